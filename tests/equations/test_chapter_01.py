"""Chapter 01's equations, as written there, against independent oracles."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

D, K = 3, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def spd(*batch, dim=D):
    """Random symmetric positive definite matrices."""
    root = rand(*batch, dim, dim + 2)
    return root @ root.mT / dim + 0.2 * torch.eye(dim, dtype=torch.float64)


def theta(dim=D, k=K):
    return rand(k).softmax(0), 2 * rand(k, dim), spd(k, dim=dim)


def oracle(weights, means, covariances):
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


def log_joint(x, weights, means, covariances):
    """By SciPy, (N, K)."""
    columns = [stats.multivariate_normal(m, s).logpdf(x) for m, s in zip(means.numpy(), covariances.numpy())]
    return weights.log() + torch.from_numpy(np.stack(columns, 1))


def double_quad(function, limit=12.0, n=401):
    """The integral over a square, by a sum over a grid: exact to rounding for smooth functions that vanish outside."""
    line = torch.linspace(-limit, limit, n, dtype=torch.float64)
    return function(torch.cartesian_prod(line, line)).sum(0) * (2 * limit / (n - 1)) ** 2


def test_eq_1_1_noise_is_a_product_of_standard_normals():
    eps = rand(50, D)
    value = -0.5 * (D * math.log(2 * math.pi) + eps.square().sum(1))
    assert np.allclose(value, stats.norm.logpdf(eps.numpy()).sum(1))
    assert integrate.quad(lambda t: math.exp(-t * t / 2), -40, 40)[0] == pytest.approx(math.sqrt(2 * math.pi))


def test_eq_1_2_mean_and_covariance_of_stretched_noise():
    """By quadrature: Gauss–Hermite nodes integrate these polynomials exactly."""
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(6)
    nodes, node_weights = torch.from_numpy(nodes), torch.from_numpy(node_weights / node_weights.sum())
    eps = torch.cartesian_prod(nodes, nodes)
    mass = torch.cartesian_prod(node_weights, node_weights).prod(1)
    mean, factor = rand(2), rand(2, 2)
    x = mean + eps @ factor.T
    assert torch.allclose(mass @ x, mean)
    assert torch.allclose((x - mean).T @ (mass[:, None] * (x - mean)), factor @ factor.T)


def test_eq_1_3_change_of_variables():
    """The probability of a box, by the formula's density, against the share of mapped noise that lies in it."""
    mean = torch.tensor([0.3, -0.2]).double()
    factor = torch.tensor([[1.1, 0.4], [-0.6, 0.8]]).double()  # not triangular
    x = mean + rand(400_000, 2) @ factor.T
    inside = ((x > torch.tensor([-0.5, -1.0])) & (x < torch.tensor([1.0, 0.5]))).all(1).double().mean()

    def density(b, a):
        eps = torch.linalg.solve(factor, torch.tensor([a, b]).double() - mean)
        return float(stats.norm.pdf(eps.numpy()).prod() / abs(torch.linalg.det(factor)))

    assert integrate.dblquad(density, -0.5, 1.0, -1.0, 0.5, epsabs=1e-6)[0] == pytest.approx(float(inside), abs=0.004)


def test_eq_1_4_normal_by_cholesky():
    x, mean, cov = rand(D), rand(D), spd()
    factor = torch.linalg.cholesky(cov)
    w = torch.linalg.solve(factor, x - mean)
    value = -0.5 * (D * math.log(2 * math.pi) + w.norm() ** 2) - factor.diagonal().log().sum()
    assert value == pytest.approx(stats.multivariate_normal(mean.numpy(), cov.numpy()).logpdf(x.numpy()))


def test_eq_1_5_normal_as_in_the_books():
    x, mean, cov = rand(D), rand(D), spd()
    value = -0.5 * (D * math.log(2 * math.pi) + cov.logdet() + (x - mean) @ torch.linalg.inv(cov) @ (x - mean))
    assert value == pytest.approx(stats.multivariate_normal(mean.numpy(), cov.numpy()).logpdf(x.numpy()))


def test_eq_1_6_cholesky_entry_by_entry():
    cov = spd(dim=6)
    factor = torch.zeros_like(cov)
    for j in range(6):
        factor[j, j] = (cov[j, j] - sum(factor[j, k] ** 2 for k in range(j))).sqrt()
        for i in range(j + 1, 6):
            factor[i, j] = (cov[i, j] - sum(factor[i, k] * factor[j, k] for k in range(j))) / factor[j, j]
    assert torch.allclose(factor @ factor.T, cov)
    assert torch.equal(factor, factor.tril()) and (factor.diagonal() > 0).all()
    before = cov[:4, :4]  # L_jj is the standard deviation left to x_j when the coordinates before it are known
    left = cov[4, 4] - cov[4, :4] @ torch.linalg.solve(before, cov[:4, 4])
    assert factor[4, 4] ** 2 == pytest.approx(float(left))


def test_eq_1_7_diagonal_normal():
    x, mean, std = rand(D), rand(D), rand(D).exp()
    value = -0.5 * (math.log(2 * math.pi) + (std**2).log() + (x - mean) ** 2 / std**2).sum()
    assert value == pytest.approx(stats.norm.logpdf(x.numpy(), mean.numpy(), std.numpy()).sum())


def test_eq_1_8_a_mixture_is_a_density():
    weights, means, covariances = theta(2)
    x = rand(40, 2)
    density = sum(w * torch.from_numpy(stats.multivariate_normal(m, s).pdf(x.numpy()))
                  for w, m, s in zip(weights, means.numpy(), covariances.numpy()))
    assert torch.allclose(density, oracle(weights, means, covariances).log_prob(x).exp())
    assert double_quad(lambda grid: oracle(weights, means, covariances).log_prob(grid).exp()) == pytest.approx(1)


@pytest.mark.parametrize("a", [0.5, 0.85, 1.1, 2.0])
def test_eq_1_9_curvature_between_two_centers(a):
    std, place = 0.9, torch.zeros((), dtype=torch.float64, requires_grad=True)
    centers = torch.tensor([-a, a], dtype=torch.float64)
    pair = torch.distributions.Normal(centers, torch.full_like(centers, std)).log_prob(place).exp().mean()
    slope, = torch.autograd.grad(pair, place, create_graph=True)
    curvature, = torch.autograd.grad(slope, place)
    value = (a**2 - std**2) / std**4 * stats.norm.pdf(0, a, std)
    assert float(curvature) == pytest.approx(value)
    line = np.linspace(-6, 6, 2001)  # one peak or two, as the sign says
    curve = 0.5 * (stats.norm.pdf(line, -a, std) + stats.norm.pdf(line, a, std))
    peaks = ((curve[1:-1] > curve[:-2]) & (curve[1:-1] > curve[2:])).sum()
    assert peaks == (2 if value > 0 else 1)


def test_eq_1_10_joint_and_marginal_against_the_story_acted_out():
    """Among draws c, then x given c: how many have c = k and x in an interval, and how many x in it at all."""
    weights = np.array([0.2, 0.5, 0.3])
    means, stds = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 1.0, 0.7])
    rng = np.random.default_rng(0)
    c = rng.choice(3, size=400_000, p=weights)
    x = rng.normal(means[c], stds[c])
    inside = (x > -0.4) & (x < 0.9)
    joint = [integrate.quad(lambda t, k=k: weights[k] * stats.norm.pdf(t, means[k], stds[k]), -0.4, 0.9)[0]
             for k in range(3)]
    assert np.allclose(joint, [(inside & (c == k)).mean() for k in range(3)], atol=0.004)
    assert sum(joint) == pytest.approx(inside.mean(), abs=0.004)


def mixture_moments(weights, means, covariances):
    """By quadrature over the plane."""
    density = oracle(weights, means, covariances)
    mean = double_quad(lambda x: density.log_prob(x).exp()[:, None] * x)
    second = double_quad(lambda x: density.log_prob(x).exp()[:, None] * (x[:, [0, 0, 1, 1]] * x[:, [0, 1, 0, 1]]))
    return mean, second.reshape(2, 2) - torch.outer(mean, mean)


def test_eq_1_11_mean_of_a_mixture():
    given = theta(2)
    assert torch.allclose(given[0] @ given[1], mixture_moments(*given)[0], atol=1e-6)


def test_eq_1_12_covariance_of_a_mixture():
    weights, means, covariances = given = theta(2)
    m = weights @ means
    value = sum(w * (s + torch.outer(u, u)) for w, u, s in zip(weights, means, covariances)) - torch.outer(m, m)
    assert torch.allclose(value, mixture_moments(*given)[1], atol=1e-6)


def test_eq_1_13_within_and_between():
    weights, means, covariances = given = theta(2)
    m = weights @ means
    within = sum(w * s for w, s in zip(weights, covariances))
    between = sum(w * torch.outer(u - m, u - m) for w, u in zip(weights, means))
    assert torch.allclose(within + between, mixture_moments(*given)[1], atol=1e-6)


def test_eq_1_14_log_sum_exp():
    a = 300 * rand(100, K)
    top = a.amax(1)
    value = top + (a - top[:, None]).exp().sum(1).log()
    assert np.allclose(value, special.logsumexp(a.numpy(), axis=1))
    assert not a.exp().sum(1).log().isfinite().all()  # what the formula is for
    small = rand(100, K)  # an identity, for every number in place of the maximum
    assert torch.allclose(0.3 + (small - 0.3).exp().sum(1).log(), small.exp().sum(1).log())


def test_eq_1_15_log_sum_exp_lies_between_the_maximum_and_log_k_more():
    a = 10 * rand(500, K)
    a[0] = 7.0  # equal: the upper bound is reached
    a[1] = torch.tensor([0.0, -900.0, -900.0, -900.0])  # one alone: the lower one
    value, top = torch.from_numpy(special.logsumexp(a.numpy(), axis=1)), a.amax(1)
    assert (value >= top - 1e-12).all() and (value <= top + math.log(K) + 1e-12).all()
    assert value[0] - top[0] == pytest.approx(math.log(K)) and value[1] == top[1]


def test_eq_1_16_responsibilities_are_frequencies():
    """What Bayes' rule is about: among many draws near a place, how many came from component 2."""
    weights, means = np.array([0.7, 0.3]), np.array([-0.5, 1.0])
    rng = np.random.default_rng(1)
    c = rng.choice(2, size=400_000, p=weights)
    x = rng.normal(means[c], 1.0)
    near = abs(x - 0.4) < 0.05
    density = weights * stats.norm.pdf(0.4, means)
    assert (density / density.sum())[1] == pytest.approx((c[near] == 1).mean(), abs=0.02)


def test_eq_1_17_responsibilities_in_logarithms():
    weights, means, covariances = given = theta()
    x = torch.cat([3 * rand(60, D), 1000 * rand(5, D)])
    a = log_joint(x, *given)
    log_resp = a - torch.from_numpy(special.logsumexp(a.numpy(), axis=1))[:, None]
    peer = SklearnMixture(K)
    peer.weights_, peer.means_ = weights.numpy(), means.numpy()
    peer.precisions_cholesky_ = torch.linalg.inv(torch.linalg.cholesky(covariances)).mT.numpy()
    assert np.allclose(log_resp.exp(), peer.predict_proba(x.numpy()))
    assert torch.allclose(log_resp.exp().sum(1), torch.ones(len(x)).double())
    plain = a[:60].exp() / a[:60].exp().sum(1, keepdim=True)  # Eq. (1.16), near enough for plain densities
    assert torch.allclose(log_resp[:60].exp(), plain)


def test_eq_1_18_log_odds_are_linear_for_equal_covariances():
    (pi_1, pi_2), (mu_1, mu_2), cov = torch.tensor([0.8, 0.2]).double(), rand(2, D), spd()
    x = 3 * rand(50, D)
    precision = torch.linalg.inv(cov)
    value = x @ precision @ (mu_1 - mu_2) + (pi_1 / pi_2).log() - 0.5 * (
        mu_1 @ precision @ mu_1 - mu_2 @ precision @ mu_2)
    joint = log_joint(x, torch.stack([pi_1, pi_2]), torch.stack([mu_1, mu_2]), torch.stack([cov, cov]))
    resp = special.softmax(joint.numpy(), axis=1)
    assert np.allclose(value, np.log(resp[:, 0] / resp[:, 1]))


PARAMETERS = {
    "full": lambda k, d: (k - 1) + k * d + k * d * (d + 1) // 2,
    "tied": lambda k, d: (k - 1) + k * d + d * (d + 1) // 2,
    "diag": lambda k, d: (k - 1) + k * d + k * d,
    "spherical": lambda k, d: (k - 1) + k * d + k,
}


@pytest.mark.parametrize("family", PARAMETERS)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (10, 64)])
def test_eq_1_19_number_of_parameters(family, k, d):
    peer = SklearnMixture(k, covariance_type=family)
    peer.means_ = np.zeros((k, d))
    assert PARAMETERS[family](k, d) == peer._n_parameters()


class Counted(float):
    """A number that counts how often it is multiplied or divided."""

    count = 0

    def __new__(cls, value):
        return super().__new__(cls, value)

    def __mul__(self, other):
        Counted.count += 1
        return Counted(float(self) * float(other))

    def __truediv__(self, other):
        Counted.count += 1
        return Counted(float(self) / float(other))

    def __sub__(self, other):
        return Counted(float(self) - float(other))

    def __add__(self, other):
        return Counted(float(self) + float(other))


def forward_substitution(factor, y):
    w = []
    for i in range(len(y)):
        rest = y[i]
        for j in range(i):
            rest = rest - w[j] * factor[i][j]
        w.append(rest / factor[i][i])
    return w


def squares(w):
    total = Counted(0.0)
    for value in w:
        total = total + value * value
    return total


def distances(family, x, means, spread):
    """||w_k||² for each component, by the way of computing that the text describes."""
    x, whole = [Counted(v) for v in x.tolist()], []
    if family == "tied":
        goals = [torch.linalg.solve(spread, mean).tolist() for mean in means]  # once for all points
        w = forward_substitution(spread.tolist(), x)
        return [squares([a - b for a, b in zip(w, goal)]) for goal in goals]
    for k, mean in enumerate(means):
        y = [a - b for a, b in zip(x, mean.tolist())]
        if family == "full":
            whole.append(squares(forward_substitution(spread[k].tolist(), y)))
        elif family == "diag":
            whole.append(squares([a / b for a, b in zip(y, spread[k].tolist())]))
        else:
            whole.append(squares(y) / float(spread[k]) ** 2)
    return whole


@pytest.mark.parametrize(("family", "work"), [
    ("full", lambda k, d: k * (d * (d + 1) // 2 + d)), ("tied", lambda k, d: d * (d + 1) // 2 + k * d),
    ("diag", lambda k, d: 2 * k * d), ("spherical", lambda k, d: k * (d + 1))])
def test_eq_1_20_multiplications_for_a_point(family, work):
    """Counted one by one, while the distances come out right."""
    k, d = 3, 5
    x, means = rand(d), rand(k, d)
    spread = {"full": torch.linalg.cholesky(spd(k, dim=d)), "tied": torch.linalg.cholesky(spd(dim=d)),
              "diag": rand(k, d).exp(), "spherical": rand(k).exp()}[family]
    Counted.count = 0
    found = distances(family, x, means, spread)
    assert Counted.count == work(k, d) == PARAMETERS[family](k, d) - (k - 1)
    for i in range(k):
        factor = {"full": lambda i=i: spread[i], "tied": lambda: spread, "diag": lambda i=i: spread[i].diag(),
                  "spherical": lambda i=i: spread[i] * torch.eye(d).double()}[family]()
        cov = factor @ factor.T
        assert float(found[i]) == pytest.approx(float((x - means[i]) @ torch.linalg.solve(cov, x - means[i])))


def test_eq_1_21_log_likelihood():
    given = theta()
    x = rand(30, D)
    inside = sum(w * torch.from_numpy(stats.multivariate_normal(m, s).pdf(x.numpy()))
                 for w, m, s in zip(given[0], given[1].numpy(), given[2].numpy()))
    assert inside.log().sum() == pytest.approx(float(oracle(*given).log_prob(x).sum()))
    assert inside.prod() == pytest.approx(float(oracle(*given).log_prob(x).exp().prod()))


def test_eq_1_22_every_order_of_the_components_gives_the_same_density():
    given = theta()
    x = rand(20, D)
    orders = list(itertools.permutations(range(K)))
    assert len(orders) == math.factorial(K)
    for order in orders:
        renamed = (value[list(order)] for value in given)
        assert torch.allclose(oracle(*renamed).log_prob(x), oracle(*given).log_prob(x))


def collapsing(x, s):
    """The log-likelihood with component 1 on the first point, covariance s² I, and component 2 over all points."""
    dim = x.shape[1]
    covariances = torch.stack([s**2 * torch.eye(dim).double(), x.T.cov()])
    weights = torch.tensor([0.1, 0.9], dtype=torch.float64)
    return float(oracle(weights, torch.stack([x[0], x.mean(0)]), covariances).log_prob(x).sum())


def test_eq_1_23_the_likelihood_has_no_maximum():
    x = rand(25, D)
    mean, cov = x.mean(0).numpy(), x.T.cov().numpy()
    others = (math.log(0.9) + stats.multivariate_normal(mean, cov).logpdf(x[1:].numpy())).sum()
    const = math.log(0.1) - D / 2 * math.log(2 * math.pi) + others
    for s in (1.0, 0.1, 1e-2, 1e-4, 1e-8):
        assert collapsing(x, s) >= -D * math.log(s) + const - 1e-9
    assert collapsing(x, 1e-8) == pytest.approx(D * math.log(1e8) + const, abs=1e-3)  # in the limit nothing is lost
    assert collapsing(x, 1e-100) > 300


def test_eq_1_24_a_floor_bounds_the_likelihood():
    s_min = 0.05
    bound = -12 * D / 2 * math.log(2 * math.pi * s_min**2)
    for _ in range(100):
        x, (weights, means, covariances) = rand(12, D), theta()
        values, vectors = torch.linalg.eigh(covariances)
        floored = vectors @ torch.diag_embed(values.mul(torch.rand(K, D)**8).clamp_min(s_min**2)) @ vectors.mT
        assert oracle(weights, means, floored).log_prob(x).sum() <= bound
    x = rand(1, D).expand(12, D)  # reached, where all points coincide with a component at the floor
    floor = s_min**2 * torch.eye(D).double().repeat(1, 1, 1)
    assert oracle(torch.ones(1).double(), x[:1], floor).log_prob(x).sum() == pytest.approx(bound)


def log_prior(covariance, psi, nu):
    """Eq. (1.25), without its constant."""
    trace = torch.trace(psi @ torch.linalg.inv(covariance))
    return -0.5 * (nu + len(psi) + 1) * covariance.logdet() - 0.5 * trace


def test_eq_1_25_inverse_wishart_and_inverse_gamma():
    psi, nu = spd(), 6.5
    peer = stats.invwishart(nu, psi.numpy())
    values = [peer.logpdf(cov.numpy()) - float(log_prior(cov, psi, nu)) for cov in spd(5)]
    assert np.allclose(values, values[0])  # the constant
    psi, nu = torch.tensor([[1.7]]).double(), 3.0
    values = [stats.invgamma(nu / 2, scale=1.7 / 2).logpdf(v) - float(log_prior(torch.tensor([[v]]).double(), psi, nu))
              for v in (0.1, 0.5, 3.0)]
    assert np.allclose(values, values[0])
    assert log_prior(torch.tensor([[1e-6]]).double(), psi, nu) + 10 * math.log(1e3) < -1e5  # faster than logs rise


def test_eq_1_26_scatter_is_where_log_det_plus_trace_is_smallest():
    S = spd()

    def f(cov):
        return float(cov.logdet() + torch.trace(torch.linalg.inv(cov) @ S))

    assert f(S) == pytest.approx(float(S.logdet()) + D)
    factor = torch.linalg.cholesky(S)
    for rival in spd(200):
        values = torch.linalg.eigvalsh(factor.T @ torch.linalg.inv(rival) @ factor)
        assert f(rival) - f(S) == pytest.approx(float((values - 1 - values.log()).sum()), abs=1e-9)
        assert f(rival) >= f(S)
    x = rand(30, D) @ rand(D, D)  # hence no mean and covariance fit points better than their own
    best = MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x).sum()
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(50):
            change = torch.eye(D) + scale * rand(D, D)
            rival = change @ x.T.cov(correction=0) @ change.T
            assert MultivariateNormal(x.mean(0) + scale * rand(D), rival).log_prob(x).sum() < best


def penalized(x, mean, cov, psi, nu):
    return float(MultivariateNormal(mean, cov).log_prob(x).sum() + log_prior(cov, psi, nu))


@pytest.mark.parametrize("n", [40, 2])
def test_eq_1_27_covariance_by_map(n):
    """Against a numerical maximization over all factors, also where there are fewer points than dimensions."""
    x, psi, nu = rand(n, D) @ rand(D, D), spd(), 4.5
    mean = x.mean(0)
    S = (x - mean).T @ (x - mean) / n
    best = (n * S + psi) / (n + nu + D + 1)
    i, j = np.tril_indices(D)

    def loss(entries):
        factor = np.zeros((D, D))
        factor[i, j] = entries
        return -penalized(x, mean, torch.from_numpy(factor @ factor.T + 1e-9 * np.eye(D)), psi, nu)

    found = optimize.minimize(loss, np.eye(D)[i, j], options={"gtol": 1e-7})
    assert penalized(x, mean, best, psi, nu) >= -found.fun - 1e-6
    assert penalized(x, mean, best, psi, nu) == pytest.approx(-found.fun, abs=1e-4)
    assert torch.linalg.eigvalsh(best)[0] >= torch.linalg.eigvalsh(psi)[0] / (n + nu + D + 1)


def test_eq_1_28_with_the_prior_there_is_a_ceiling():
    n, nu = 15, 5.0
    psi = spd()
    smallest = float(torch.linalg.eigvalsh(psi)[0])
    m = n + nu + D + 1
    ceiling = -n * D / 2 * math.log(2 * math.pi) + K * D * max(0, m / 2 * (math.log(m / smallest) - 1))
    x, highest = rand(n, D), -math.inf
    for scale in (1.0, 0.5, 0.1, 1e-2, 1e-4, 1e-8):
        for _ in range(20):
            weights, means, covariances = theta()
            means = torch.where(torch.rand(K, 1) < 0.7, x[torch.randint(n, (K,))], means)
            covariances = covariances * (scale * torch.rand(K, 1, 1)) ** 2 + 1e-18 * torch.eye(D)
            value = oracle(weights, means, covariances).log_prob(x).sum() + sum(
                log_prior(cov, psi, nu) for cov in covariances)
            highest = max(highest, float(value))
    assert highest <= ceiling
    same, psi = rand(1, D).expand(n, D), smallest * torch.eye(D).double()  # reached: K = 1, all points in one place
    cov = smallest / m * torch.eye(D).double()
    value = MultivariateNormal(same[0], cov).log_prob(same).sum() + log_prior(cov, psi, nu)
    assert float(value) == pytest.approx(-n * D / 2 * math.log(2 * math.pi) + D * m / 2 * (math.log(m / smallest) - 1))

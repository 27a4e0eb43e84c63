"""Chapter 02's equations, as written there, against independent oracles."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from sklearn.cluster import KMeans
from torch.autograd import grad
from torch.distributions import Categorical, Dirichlet, MixtureSameFamily, MultivariateNormal

N, D, K = 60, 3, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def spd(*batch, dim=D):
    """Random symmetric positive definite matrices."""
    root = rand(*batch, dim, dim + 2)
    return root @ root.mT / dim + 0.2 * torch.eye(dim, dtype=torch.float64)


def simplex(n, *batch):
    return Dirichlet(torch.ones(n, dtype=torch.float64)).sample(batch)


class Mixture:
    """Points and a mixture with its densities by torch.distributions: the oracle of most tests."""

    def __init__(self):
        self.x = 2 * rand(N, D)
        self.weights, self.means, self.covariances = simplex(K), 2 * rand(K, D), spd(K)

    def joint(self, weights=None, means=None, covariances=None):
        weights = self.weights if weights is None else weights
        means = self.means if means is None else means
        covariances = self.covariances if covariances is None else covariances
        return weights.log() + MultivariateNormal(means, covariances).log_prob(self.x[:, None])

    def resp(self):
        return torch.from_numpy(special.softmax(self.joint().numpy(), axis=1))

    def expected(self, **changed):
        """Q(theta), Eq. (2.8), with the responsibilities at the mixture itself."""
        return (self.resp() * self.joint(**changed)).sum()


@pytest.fixture
def mixture():
    return Mixture()


def scatter(x, resp, means):
    """S_k of Eq. (2.15), by loops."""
    return torch.stack([sum(r * torch.outer(p - m, p - m) for r, p in zip(resp[:, k], x)) / resp[:, k].sum()
                        for k, m in enumerate(means)])


def new_means(x, resp):
    return torch.stack([torch.from_numpy(np.average(x.numpy(), axis=0, weights=r.numpy())) for r in resp.T])


def kl(q, p):
    return torch.as_tensor(special.rel_entr(q.numpy(), p.numpy()).sum(-1))


def elbo(q, joint):
    return (q * joint - torch.xlogy(q, q)).sum(-1)


def test_eq_2_1_complete_log_likelihood_falls_apart(mixture):
    c = torch.randint(K, (N,))
    by_point = sum(MultivariateNormal(mixture.means[k], mixture.covariances[k]).log_prob(x) + mixture.weights[k].log()
                   for x, k in zip(mixture.x, c))
    joint = mixture.joint()
    assert by_point == pytest.approx(float(sum(joint[c == k, k].sum() for k in range(K))))


def test_eq_2_2_gradient_with_respect_to_a_mean(mixture):
    means = mixture.means.clone().requires_grad_()
    slope, = grad(mixture.joint(means=means).logsumexp(1).sum(), means)
    resp = mixture.resp()
    value = [sum(r * torch.linalg.inv(cov) @ (x - m) for r, x in zip(resp[:, k], mixture.x))
             for k, (m, cov) in enumerate(zip(mixture.means, mixture.covariances))]
    assert torch.allclose(torch.stack(value), slope)


def test_eq_2_3_jensen():
    q, a = simplex(K, 2000), rand(2000, K).exp()
    below, above = (q * a.log()).sum(1), (q * a).sum(1).log()
    assert (below < above).all()
    equal = a[:, :1].expand(-1, K)
    assert torch.allclose((q * equal.log()).sum(1), (q * equal).sum(1).log())


def test_eq_2_4_elbo_is_a_lower_bound(mixture):
    q, joint = simplex(K, N), mixture.joint()
    value = (q * (joint.exp() / q).log()).sum(1)
    assert (value <= joint.exp().sum(1).log()).all()
    assert torch.allclose(value, elbo(q, joint))


def test_eq_2_5_kl_is_positive_and_scipys():
    q, p = simplex(K, 2000), simplex(K, 2000)
    value = (q * (q / p).log()).sum(1)
    assert (value > 0).all()
    assert np.allclose(value, special.rel_entr(q.numpy(), p.numpy()).sum(1))
    assert torch.allclose((q * (q / q).log()).sum(1), torch.zeros(2000).double())


def test_eq_2_6_log_px_is_elbo_plus_kl(mixture):
    q = simplex(K, N)
    value = elbo(q, mixture.joint()) + kl(q, mixture.resp())
    oracle = MixtureSameFamily(Categorical(mixture.weights), MultivariateNormal(mixture.means, mixture.covariances))
    assert torch.allclose(value, oracle.log_prob(mixture.x))


def test_eq_2_7_posterior_maximizes_the_bound_and_makes_it_tight(mixture):
    joint = mixture.joint()[:3]
    assert torch.allclose(elbo(mixture.resp()[:3], joint), joint.exp().sum(1).log())
    for row, resp in zip(joint, mixture.resp()):  # a numerical optimizer finds the same q
        found = optimize.minimize(lambda logits, row=row: -float(elbo(torch.tensor(logits).softmax(0), row)),
                                  np.zeros(K), tol=1e-12)
        assert np.allclose(special.softmax(found.x), resp, atol=2e-3)


def test_eq_2_8_expected_complete_log_likelihood_is_the_mean_over_components(mixture):
    """By enumeration: the mean of Eq. (2.1) over all assignments of three points, drawn from their posteriors."""
    joint, resp = mixture.joint()[:3], mixture.resp()[:3]
    total = 0
    for c in np.ndindex(K, K, K):
        probability = math.prod(float(resp[n, k]) for n, k in enumerate(c))
        total += probability * sum(float(joint[n, k]) for n, k in enumerate(c))
    assert total == pytest.approx(float((resp * joint).sum()))
    with_entropy = (resp * joint).sum() + Categorical(resp).entropy().sum()
    assert with_entropy == pytest.approx(float(elbo(resp, joint).sum()))


def test_eq_2_9_counts_sum_to_n(mixture):
    counts = torch.stack([sum(mixture.resp()[:, k]) for k in range(K)])
    assert counts.sum() == pytest.approx(N)


def test_eq_2_10_lagrangian_is_stationary_at_the_weights_with_multiplier_n(mixture):
    counts = mixture.resp().sum(0)
    pi = (counts / N).requires_grad_()
    multiplier = torch.tensor(float(N), dtype=torch.float64, requires_grad=True)
    value = (counts * pi.log()).sum() + multiplier * (1 - pi.sum())
    slopes = grad(value, (pi, multiplier))
    assert slopes[0].abs().max() < 1e-9 * N
    assert slopes[1].abs() < 1e-9


def test_eq_2_11_weights_maximize_the_bound(mixture):
    best = mixture.resp().sum(0) / N
    top = mixture.expected(weights=best)
    assert all(mixture.expected(weights=rival) < top for rival in simplex(K, 200))

    def loss(logits):
        return -float(mixture.expected(weights=torch.tensor(logits).softmax(0)))

    assert np.allclose(special.softmax(optimize.minimize(loss, np.zeros(K)).x), best, atol=1e-4)


def test_eq_2_12_what_other_weights_lose(mixture):
    best, rivals = mixture.resp().sum(0) / N, simplex(K, 20)
    top = mixture.expected(weights=best)
    for rival in rivals:
        assert top - mixture.expected(weights=rival) == pytest.approx(N * float(kl(best, rival)))


def test_eq_2_13_gradient_of_the_bound_with_respect_to_a_mean(mixture):
    means = mixture.means.clone().requires_grad_()
    slope, = grad(mixture.expected(means=means), means)
    value = [torch.linalg.inv(cov) @ sum(r * (x - m) for r, x in zip(mixture.resp()[:, k], mixture.x))
             for k, (m, cov) in enumerate(zip(mixture.means, mixture.covariances))]
    assert torch.allclose(torch.stack(value), slope)


def test_eq_2_14_means_maximize_the_bound(mixture):
    resp = mixture.resp()
    best = torch.stack([sum(r * x for r, x in zip(resp[:, k], mixture.x)) / resp[:, k].sum() for k in range(K)])
    assert torch.allclose(best, new_means(mixture.x, resp))
    for covariances in (mixture.covariances, spd(K)):  # whatever the covariances
        means = best.clone().requires_grad_()
        slope, = grad(mixture.expected(means=means, covariances=covariances), means)
        assert slope.abs().max() < 1e-9 * N
        top = mixture.expected(means=best, covariances=covariances)
        assert all(mixture.expected(means=best + 0.3 * rand(K, D), covariances=covariances) < top for _ in range(50))


def test_eq_2_15_the_covariances_part_of_the_bound(mixture):
    """The difference between two choices of covariance, by the formula and by the densities."""
    resp = mixture.resp()
    means = new_means(mixture.x, resp)
    S, counts = scatter(mixture.x, resp, means), resp.sum(0)

    def part(cov):
        return sum(-n / 2 * (c.logdet() + (torch.linalg.inv(c) @ s).trace()) for n, c, s in zip(counts, cov, S))

    other = spd(K)
    by_density = mixture.expected(means=means, covariances=other) - mixture.expected(means=means)
    assert part(other) - part(mixture.covariances) == pytest.approx(float(by_density))


def test_eq_2_16_derivative_of_the_log_determinant():
    A, dA = spd(), spd()
    matrix = A.clone().requires_grad_()
    slope, = grad(matrix.logdet(), matrix)
    assert (slope * dA).sum() == pytest.approx(float((torch.linalg.inv(A) @ dA).trace()))
    step = 1e-5
    central = (np.linalg.slogdet(A + step * dA)[1] - np.linalg.slogdet(A - step * dA)[1]) / (2 * step)
    assert central == pytest.approx(float((torch.linalg.inv(A) @ dA).trace()), rel=1e-7)


def test_eq_2_17_derivative_of_the_inverse():
    A, dA, step = spd(), spd(), 1e-5
    central = (np.linalg.inv(A + step * dA) - np.linalg.inv(A - step * dA)) / (2 * step)
    inverse = torch.linalg.inv(A)
    assert np.allclose(central, -inverse @ dA @ inverse, rtol=1e-6)


def test_eq_2_18_covariances_maximize_the_bound(mixture):
    resp = mixture.resp()
    means = new_means(mixture.x, resp)
    best = scatter(mixture.x, resp, means)
    numpy = [np.cov(mixture.x.T.numpy(), aweights=r.numpy(), ddof=0) for r in resp.T]
    assert np.allclose(best, numpy)
    covariances = best.clone().requires_grad_()
    slope, = grad(mixture.expected(means=means, covariances=covariances), covariances)
    assert slope.abs().max() < 1e-8 * N
    top = mixture.expected(means=means, covariances=best)
    rivals = (best + 0.1 * spd(K) * rand(1).sign() for _ in range(100))
    valid = [rival for rival in rivals if (torch.linalg.eigvalsh(rival) > 0).all()]
    assert len(valid) > 20
    assert all(mixture.expected(means=means, covariances=rival) < top for rival in valid)


def restricted_optimum(mixture, build, free):
    """The best covariances of a family, by a numerical optimizer over the logarithms of its free numbers."""
    means = new_means(mixture.x, mixture.resp())

    def loss(values):
        values = torch.tensor(values, requires_grad=True)
        value = -mixture.expected(means=means, covariances=build(values))
        return value.item(), grad(value, values)[0].numpy()

    return build(torch.tensor(optimize.minimize(loss, np.zeros(free), jac=True, tol=1e-12).x))


def check_stationary_and_best(mixture, best, build):
    """By autograd, and against neighbours within the family; `best` holds the family's free numbers."""
    means = new_means(mixture.x, mixture.resp())
    free = best.clone().requires_grad_()
    top = mixture.expected(means=means, covariances=build(free))
    slope, = grad(top, free)
    assert slope.abs().max() < 1e-8 * N
    for _ in range(100):
        noise = 0.1 * rand(*best.shape)
        root = torch.eye(D) + noise if best.shape == (D, D) else None  # tied: stays positive definite
        rival = best * noise.exp() if root is None else root @ best @ root.T
        assert mixture.expected(means=means, covariances=build(rival)) < top


def test_eq_2_19_diagonal_covariances(mixture):
    resp = mixture.resp()
    means = new_means(mixture.x, resp)
    best = torch.stack([torch.stack([(resp[:, k] * (mixture.x[:, i] - means[k, i]) ** 2).sum() / resp[:, k].sum()
                                     for i in range(D)]) for k in range(K)])
    found = restricted_optimum(mixture, lambda v: torch.diag_embed(v.reshape(K, D).exp()), K * D)
    assert torch.allclose(torch.diag_embed(best), found, rtol=1e-4)
    check_stationary_and_best(mixture, best, torch.diag_embed)


def test_eq_2_20_spherical_covariances(mixture):
    resp = mixture.resp()
    S = scatter(mixture.x, resp, new_means(mixture.x, resp))
    best = torch.stack([s.trace() / D for s in S])
    eye = torch.eye(D, dtype=torch.float64)
    found = restricted_optimum(mixture, lambda v: v.exp()[:, None, None] * eye, K)
    assert torch.allclose(best[:, None, None] * eye, found, rtol=1e-4)
    check_stationary_and_best(mixture, best, lambda v: v[:, None, None] * eye)


def test_eq_2_21_tied_covariance(mixture):
    resp = mixture.resp()
    S = scatter(mixture.x, resp, new_means(mixture.x, resp))
    best = sum(n / N * s for n, s in zip(resp.sum(0), S))
    i, j = torch.tril_indices(D, D)

    def build(v):
        factor = torch.zeros(D, D, dtype=torch.float64).index_put((i, j), v)
        return ((factor + torch.eye(D)) @ (factor + torch.eye(D)).T).expand(K, D, D)

    assert torch.allclose(best, restricted_optimum(mixture, build, len(i))[0], rtol=1e-3, atol=1e-4)
    check_stationary_and_best(mixture, best, lambda s: s.expand(K, D, D))


def test_eq_2_22_each_of_the_three_inequalities(mixture):
    for _ in range(15):
        joint, resp = mixture.joint(), mixture.resp()
        before, tight = joint.logsumexp(1).sum(), elbo(resp, joint).sum()
        means = new_means(mixture.x, resp)
        mixture.weights, mixture.means = resp.sum(0) / N, means
        mixture.covariances = scatter(mixture.x, resp, means)
        joint = mixture.joint()
        climbed, after = elbo(resp, joint).sum(), joint.logsumexp(1).sum()
        assert tight == pytest.approx(float(before))
        assert climbed > tight
        assert after > climbed


def phi(x):
    i, j = np.triu_indices(D)
    return torch.cat([x[:, i] * x[:, j], x, x.new_ones(len(x), 1)], 1)


def theta(weights, means, covariances):
    """Eq. (2.24), entry by entry."""
    rows = []
    for weight, mean, covariance in zip(weights, means, covariances):
        precision = torch.linalg.inv(covariance)
        quadratic = [-precision[i, i] / 2 if i == j else -precision[i, j] for i in range(D) for j in range(i, D)]
        constant = weight.log() - 0.5 * (mean @ precision @ mean + D * math.log(2 * math.pi) - precision.logdet())
        rows.append(torch.stack([*quadratic, *(precision @ mean), constant]))
    return torch.stack(rows)


def test_eq_2_23_the_log_joint_is_linear_in_the_features(mixture):
    """Solved for: the parameters that reproduce the log-joint exist, and leave nothing over."""
    features = phi(mixture.x)
    assert features.shape[1] == D * (D + 1) // 2 + D + 1
    found = torch.linalg.lstsq(features, mixture.joint()).solution
    assert torch.allclose(features @ found, mixture.joint(), atol=1e-8)


def test_eq_2_24_natural_parameters(mixture):
    natural = theta(mixture.weights, mixture.means, mixture.covariances)
    assert torch.allclose(phi(mixture.x) @ natural.T, mixture.joint())


def test_eq_2_25_statistics_are_a_product(mixture):
    resp, features = mixture.resp(), phi(mixture.x)
    total = torch.stack([sum(r * f for r, f in zip(resp[:, k], features)) for k in range(K)])
    assert torch.allclose(resp.T @ features, total)


def test_eq_2_26_m_step_from_sums(mixture):
    resp, x = mixture.resp(), mixture.x
    for r in resp.T:
        mean = (r[:, None] * x).sum(0) / r.sum()
        covariance = sum(a * torch.outer(p, p) for a, p in zip(r, x)) / r.sum() - torch.outer(mean, mean)
        assert np.allclose(mean, np.average(x, axis=0, weights=r))
        assert np.allclose(covariance, np.cov(x.T.numpy(), aweights=r.numpy(), ddof=0))


def test_eq_2_27_statistics_of_batches_add_up_to_the_m_step_of_all(mixture):
    """Three batches of unequal size, each with its own E-step, against an M-step on all points by numpy."""
    natural = theta(mixture.weights, mixture.means, mixture.covariances)
    total = 0
    for batch in mixture.x.split([5, 40, N - 45]):
        features = phi(batch)
        resp = torch.from_numpy(special.softmax((features @ natural.T).numpy(), axis=1))
        total = total + resp.T @ features
    i, j = np.triu_indices(D)
    for row, r in zip(total, mixture.resp().T):
        count, mean = row[-1], row[-1 - D:-1] / row[-1]
        second = np.zeros((D, D))
        second[i, j] = second[j, i] = row[:-1 - D] / count
        assert count == pytest.approx(float(r.sum()))
        assert np.allclose(mean, np.average(mixture.x, axis=0, weights=r))
        expected = np.cov(mixture.x.T.numpy(), aweights=r.numpy(), ddof=0)
        assert np.allclose(second - np.outer(mean, mean), expected)


def test_eq_2_28_covariances_about_any_point(mixture):
    resp, x = mixture.resp(), mixture.x
    for a in (torch.zeros(D).double(), x.mean(0), 10 * rand(D)):
        for r in resp.T:
            mean = torch.from_numpy(np.average(x, axis=0, weights=r))
            moved = sum(s * torch.outer(p - a, p - a) for s, p in zip(r, x)) / r.sum()
            covariance = moved - torch.outer(mean - a, mean - a)
            assert np.allclose(covariance, np.cov(x.T.numpy(), aweights=r.numpy(), ddof=0))
    far, r = x + 1e6, resp[:, 0]  # what it is for
    a = far.mean(0)
    mean = (r[:, None] * (far - a)).sum(0) / r.sum()
    covariance = (r * (far - a).T) @ (far - a) / r.sum() - torch.outer(mean, mean)
    assert np.allclose(covariance, np.cov((far - 1e6).T.numpy(), aweights=r.numpy(), ddof=0), rtol=1e-8)


def test_eq_2_29_responsibilities_harden_to_k_means_assignments(mixture):
    x, means = mixture.x, mixture.means

    def shares(sigma):
        kernel = np.stack([stats.multivariate_normal(m.numpy(), sigma**2).logpdf(x.numpy()) for m in means], 1)
        return special.softmax(kernel, axis=1)

    square = (x[:, None] - means).square().sum(2).numpy()
    for sigma in (3.0, 1.0):
        by_formula = np.exp(-square / (2 * sigma**2))
        assert np.allclose(by_formula / by_formula.sum(1, keepdims=True), shares(sigma))
    oracle = KMeans(K, init=means.numpy(), n_init=1).fit(x.numpy())
    oracle.cluster_centers_ = means.numpy().copy()
    assert np.allclose(shares(1e-3), np.eye(K)[oracle.predict(x.numpy())])
    assert not np.allclose(shares(1.0), np.eye(K)[square.argmin(1)])


def test_eq_2_30_the_log_likelihood_becomes_k_means_loss(mixture):
    """J by scikit-learn's inertia, J_sigma from densities by scipy."""
    x, means = mixture.x.numpy(), mixture.means.numpy()
    oracle = KMeans(K, init=means, n_init=1, max_iter=1).fit(x)
    oracle.cluster_centers_ = means.copy()
    loss = -oracle.score(x)
    for sigma in (3.0, 1.0, 0.3, 0.1):
        log_joint = np.stack([stats.multivariate_normal(m, sigma**2).logpdf(x) for m in means], 1)
        constant = D / 2 * math.log(2 * math.pi * sigma**2)
        smooth = -2 * sigma**2 * special.logsumexp(log_joint + constant, axis=1).sum()
        assert -1e-9 < loss - smooth <= 2 * sigma**2 * N * math.log(K)
    assert smooth == pytest.approx(loss, rel=1e-3)
    assert 2 * sigma**2 * N * math.log(K) < 0.1 * loss

"""Chapter 04's equations, as written there, against independent oracles."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

D, DIM = 5, 2  # of x and z in the linear model
NOISE = 0.3
KINK_FREE = {"epsabs": 1e-13, "epsrel": 1e-12, "limit": 400}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def covariance(dim):
    root = rand(dim, dim + 2)
    return root @ root.T / dim


def joint(x, z):
    """The nonlinear model's p(x, z), by SciPy."""
    return stats.norm.pdf(x, z / 4 + z * z / 2, NOISE) * stats.norm.pdf(z)


def integral(function, low=-9, high=9):
    return integrate.quad(function, low, high, points=[-2, -1, 0, 1, 2], **KINK_FREE)[0]


def evidence(x):
    return integral(lambda z: joint(x, z))


def elbo_and_divergence(x, q):
    """E_q[log p(x,z) - log q(z)] and KL(q || p(z|x)) of a frozen SciPy distribution."""
    px = evidence(x)
    return (integral(lambda z: q.pdf(z) * (np.log(joint(x, z) + 1e-300) - q.logpdf(z))),
            integral(lambda z: q.pdf(z) * (q.logpdf(z) - np.log(joint(x, z) + 1e-300) + math.log(px))))


class Linear:
    """The linear-Gaussian model with random parameters, and one point."""

    def __init__(self):
        self.W, self.b, self.s2 = rand(D, DIM), rand(D), torch.tensor(0.4, dtype=torch.float64)
        self.x = rand(D)
        self.M = self.W.T @ self.W + self.s2 * torch.eye(DIM).double()
        self.C = self.W @ self.W.T + self.s2 * torch.eye(D).double()

    def log_joint(self, z):
        mean = z @ self.W.T + self.b
        return Normal(mean, self.s2.sqrt()).log_prob(self.x).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)

    def posterior(self):
        """By conditioning the joint Gaussian of (z, x), not by completing the square."""
        gain = torch.linalg.solve(self.C, self.W).T
        return MultivariateNormal(gain @ (self.x - self.b), torch.eye(DIM).double() - gain @ self.W)

    def evidence(self):
        return MultivariateNormal(self.b, self.C).log_prob(self.x)

    def grid(self, reach=7, n=281):
        side = torch.linspace(-reach, reach, n, dtype=torch.float64)
        return torch.cartesian_prod(side, side), float(side[1] - side[0])**2


def test_eq_4_1_the_marginal_is_the_average_of_the_likelihood_over_the_prior():
    z = torch.randn(400_000, dtype=torch.float64)
    for x in (0.0, 1.2):
        likelihood = Normal(z / 4 + z.square() / 2, NOISE).log_prob(torch.tensor(x)).exp()
        assert float(likelihood.mean()) == pytest.approx(evidence(x), abs=5 * float(likelihood.std()) / 400_000**0.5)
    heights = np.linspace(-2, 14, 65)
    assert np.trapezoid([evidence(x) for x in heights], heights) == pytest.approx(1, abs=1e-3)


def test_eq_4_2_the_posterior_is_what_draws_near_x_came_from():
    z = torch.randn(1_500_000, dtype=torch.float64)
    x = z / 4 + z.square() / 2 + NOISE * torch.randn_like(z)
    near = z[(x - 1.2).abs() < 0.03]
    posterior = {k: integral(lambda t, k=k: t**k * joint(1.2, t)) / evidence(1.2) for k in (1, 2)}
    for k, expected in posterior.items():
        error = float((near**k).std()) / len(near)**0.5
        assert float((near**k).mean()) == pytest.approx(expected, abs=5 * error + 0.01)


@pytest.mark.parametrize("x", [-0.8, 0.0, 1.2, 3.2])
def test_eq_4_3_the_sum_over_a_grid_is_the_integral(x):
    def total(n):
        z, h = np.linspace(-8, 8, n, retstep=True)
        return math.log((h * joint(x, z)).sum())

    assert total(401) == pytest.approx(math.log(evidence(x)), abs=1e-8)
    assert abs(total(201) - total(12801)) < 1e-8


QS = {"wide": stats.norm(0.5, 1.0), "narrow": stats.norm(-1.0, 0.2), "pointed": stats.laplace(0.2, 0.3),
      "heavy": stats.t(8, 0.3, 0.4)}


@pytest.mark.parametrize("q", QS)
@pytest.mark.parametrize("x", [0.0, 1.2])
def test_eq_4_4_it_is_a_lower_bound(x, q):
    assert elbo_and_divergence(x, QS[q])[0] <= math.log(evidence(x))


def test_eq_4_4_the_bound_comes_near_where_q_is_nearly_the_posterior():
    loss = math.log(evidence(-0.8)) - elbo_and_divergence(-0.8, stats.norm(-0.227, 0.301))[0]
    assert 0 < loss < 0.005


@pytest.mark.parametrize("q", ["wide", "narrow", "pointed"])
@pytest.mark.parametrize("x", [0.0, 1.2])
def test_eq_4_5_evidence_is_bound_plus_divergence(x, q):
    elbo, divergence = elbo_and_divergence(x, QS[q])
    assert divergence >= 0
    assert elbo + divergence == pytest.approx(math.log(evidence(x)), abs=1e-6)


def test_eq_4_6_highest_bound_and_smallest_divergence_are_one_and_the_gap_is_that_divergence():
    z = np.linspace(-6, 6, 3001)
    log_p, px = np.log(joint(0.2, z) + 1e-300), evidence(0.2)

    def parts(at, which):
        log_q = stats.norm.logpdf(z, at[0], math.exp(at[1]))
        divergence = (log_q - log_p + math.log(px)) if which else (log_p - log_q)
        return (np.exp(log_q) * divergence).sum() * (z[1] - z[0])

    settings = {"method": "Nelder-Mead", "options": {"xatol": 1e-5, "fatol": 1e-10}}
    up = optimize.minimize(lambda at: -parts(at, 0), (0.0, -0.5), **settings)
    down = optimize.minimize(lambda at: parts(at, 1), (-0.3, -1.0), **settings)
    assert np.allclose(up.x, down.x, atol=1e-3)
    assert math.log(evidence(0.2)) + up.fun == pytest.approx(down.fun, abs=1e-7)


def test_eq_4_7_average_of_a_quadratic():
    m, V, mu, A = rand(3), covariance(3), rand(3), covariance(3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)  # exact for quadratics, in each direction
    eps = torch.cartesian_prod(*[torch.tensor(nodes)] * 3)
    weight = torch.cartesian_prod(*[torch.tensor(weights / weights.sum())] * 3).prod(1)
    off = m + eps @ torch.linalg.cholesky(V).T - mu
    average = weight @ torch.einsum("ni,ij,nj->n", off, A, off)
    assert torch.isclose((A @ V).trace() + (m - mu) @ A @ (m - mu), average)


def test_eq_4_8_entropy_of_a_gaussian():
    for dim in (1, 3):
        V = covariance(dim)
        formula = 0.5 * (dim * math.log(2 * math.pi) + V.logdet() + dim)
        assert torch.isclose(formula, MultivariateNormal(rand(dim), V).entropy())
        assert float(formula) == pytest.approx(stats.multivariate_normal(np.zeros(dim), V.numpy()).entropy())


def gaussian_kl(m, V, mu, Sigma):
    inverse = torch.linalg.inv(Sigma)
    return 0.5 * ((inverse @ V).trace() + (m - mu) @ inverse @ (m - mu) - len(m) + Sigma.logdet() - V.logdet())


def test_eq_4_9_divergence_of_two_gaussians():
    for dim in (1, 2, 4):
        m, V, mu, Sigma = rand(dim), covariance(dim), rand(dim), covariance(dim)
        truth = kl_divergence(MultivariateNormal(m, V), MultivariateNormal(mu, Sigma))
        assert torch.isclose(gaussian_kl(m, V, mu, Sigma), truth)
    q, p = stats.norm(0.3, 0.7), stats.norm(-0.5, 1.2)  # and by quadrature, in one dimension
    m, mu, V, Sigma = (torch.tensor(value, dtype=torch.float64) for value in ([0.3], [-0.5], [[0.49]], [[1.44]]))
    truth = integral(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)))
    assert float(gaussian_kl(m, V, mu, Sigma)) == pytest.approx(truth, abs=1e-9)


def test_eq_4_10_divergence_of_diagonal_gaussians():
    m, mu, v, s2 = rand(4), rand(4), rand(4).exp(), rand(4).exp()
    formula = 0.5 * (v / s2 + (m - mu)**2 / s2 - 1 + s2.log() - v.log()).sum()
    assert torch.isclose(formula, kl_divergence(Normal(m, v.sqrt()), Normal(mu, s2.sqrt())).sum())


def test_eq_4_11_the_linear_model_s_density():
    model = Linear()
    z, cell = model.grid()
    assert torch.isclose(model.log_joint(z).logsumexp(0) + math.log(cell), model.evidence(), atol=1e-9)


def test_eq_4_12_the_linear_model_s_posterior():
    model = Linear()
    mean = torch.linalg.inv(model.M) @ model.W.T @ (model.x - model.b)
    spread = torch.linalg.inv(model.M / model.s2)
    z, cell = model.grid()
    weights = model.log_joint(z).softmax(0)
    assert torch.allclose(mean, weights @ z, atol=1e-8)
    assert torch.allclose(spread, (z - mean).T @ (weights[:, None] * (z - mean)), atol=1e-8)


def test_eq_4_13_woodbury():
    model = Linear()
    formula = (torch.eye(D) - model.W @ torch.linalg.inv(model.M) @ model.W.T) / model.s2
    assert torch.allclose(formula, torch.linalg.inv(model.C))


def test_eq_4_14_determinant():
    model = Linear()
    formula = (D - DIM) * model.s2.log() + model.M.logdet()
    assert torch.isclose(formula, torch.linalg.eigvalsh(model.C).log().sum())


def linear_elbo(model, m, V):
    residual = (model.x - model.b - model.W @ m).square().sum() + (model.W.T @ model.W @ V).trace()
    return -0.5 * (D * torch.log(2 * math.pi * model.s2) + residual / model.s2) \
        - 0.5 * (V.trace() + m.square().sum() - DIM - V.logdet())


def test_eq_4_15_the_linear_model_s_bound():
    model, m, V = Linear(), rand(DIM), 0.3 * covariance(DIM)
    q = MultivariateNormal(m, V)
    z, cell = model.grid(9, 601)
    log_q = q.log_prob(z)
    by_grid = (log_q.exp() * (model.log_joint(z) - log_q)).sum() * cell
    assert torch.isclose(linear_elbo(model, m, V), by_grid, atol=1e-8)
    gap = model.evidence() - linear_elbo(model, m, V)
    assert abs(gap - kl_divergence(q, model.posterior())) < 1e-10


def best_diagonal(p):
    """The diagonal Gaussian nearest to p in KL(q || p), by search: mean, variances, divergence."""
    def loss(at):
        at = torch.tensor(at)
        return float(kl_divergence(MultivariateNormal(at[:DIM], at[DIM:].exp().diag()), p))

    found = optimize.minimize(loss, np.zeros(2 * DIM), tol=1e-12)
    return found.x[:DIM], np.exp(found.x[DIM:]), found.fun


def test_eq_4_16_the_best_diagonal_gaussian():
    model = Linear()
    mean, variances, _ = best_diagonal(model.posterior())
    assert np.allclose(mean, model.posterior().mean, atol=1e-4)
    assert np.allclose(variances, 1 / (model.M / model.s2).diagonal(), rtol=1e-4)


def test_eq_4_17_its_gap():
    model = Linear()
    Lambda = model.M / model.s2
    formula = 0.5 * (Lambda.diagonal().log().sum() - Lambda.logdet())
    assert formula > 0
    assert float(formula) == pytest.approx(best_diagonal(model.posterior())[2], abs=1e-8)


def test_eq_4_18_conditional_variances_are_not_larger_than_marginal_ones():
    for dim in (2, 3, 6):
        Sigma = covariance(dim)
        bound = 1 / torch.linalg.inv(Sigma).diagonal()
        assert (bound <= Sigma.diagonal() * (1 + 1e-12)).all()
        # 1 / Lambda_11 is the variance given the others: what remains of regressing on them.
        rest = Sigma[0, 0] - Sigma[0, 1:] @ torch.linalg.solve(Sigma[1:, 1:], Sigma[1:, 0])
        assert torch.isclose(bound[0], rest)


def test_eq_4_19_the_best_factor_with_the_others_fixed():
    shape = (40, 30)  # any joint density on a grid, and any fixed second factor
    log_p = 1.5 * rand(*shape)
    other = rand(30).softmax(0)

    def bound(q):
        whole = q[:, None] * other
        return (whole * (log_p - whole.log())).sum()

    best = (log_p @ other).softmax(0)
    rivals = [(log_p @ other + 0.1 * rand(40)).softmax(0) for _ in range(200)] + [rand(40).softmax(0)]
    assert all(bound(rival) < bound(best) for rival in rivals)
    free = (log_p @ other).clone().requires_grad_()
    slope, = torch.autograd.grad(bound(free.softmax(0)), free)
    assert slope.abs().max() < 1e-12


def test_eq_4_20_a_gaussian_s_coordinate_update_is_the_conditional_mean():
    p = MultivariateNormal(rand(3), covariance(3))
    Lambda, mu, m = p.precision_matrix, p.mean, rand(3)
    for i in range(3):
        others = [j for j in range(3) if j != i]
        formula = mu[i] - sum(Lambda[i, j] * (m[j] - mu[j]) for j in others) / Lambda[i, i]
        moved = m.clone()
        moved[i] = formula
        moved.requires_grad_()
        slope, = torch.autograd.grad(p.log_prob(moved), moved)
        assert abs(slope[i]) < 1e-10  # the mode of log p along z_i, which is q_i's mean


def two_humps(a=1.7, share=0.6):
    weights = Categorical(torch.tensor([share, 1 - share], dtype=torch.float64))
    return MixtureSameFamily(weights, Normal(torch.tensor([-a, a]).double(), torch.tensor([0.6, 0.5]).double()))


def on_grid(values):
    return float(values.sum() * 0.01)


GRID = torch.arange(-15, 15, 0.01, dtype=torch.float64)


def test_eq_4_21_forward_divergence_is_least_at_the_moments():
    p = two_humps()
    log_p = p.log_prob(GRID)

    def forward(at):
        log_q = torch.tensor(stats.norm.logpdf(GRID.numpy(), at[0], math.exp(at[1])))
        return on_grid(log_p.exp() * (log_p - log_q))

    found = optimize.minimize(forward, (0.0, 0.0), tol=1e-10).x
    assert np.allclose((found[0], math.exp(2 * found[1])), (float(p.mean), float(p.variance)), atol=1e-4)


@pytest.mark.parametrize("a", [0.0, 0.5, 2.0, 5.0])
def test_eq_4_22_one_hump_costs_at_most_minus_the_log_of_its_weight(a):
    p = two_humps(a, 0.35)
    for k, weight in enumerate((0.35, 0.65)):
        log_k = Normal(p.component_distribution.mean[k], p.component_distribution.stddev[k]).log_prob(GRID)
        cost = on_grid(log_k.exp() * (log_k - p.log_prob(GRID)))
        assert cost <= -math.log(weight) + 1e-9
        if a == 5.0:
            assert cost == pytest.approx(-math.log(weight), abs=1e-6)  # no better bound holds at every distance


def expectation(function, mean, sd):
    return integrate.quad(lambda z: float(function(z)) * stats.norm.pdf(z, mean, sd), mean - 12 * sd, mean + 12 * sd,
                          points=[0.0], **KINK_FREE)[0]


def numerical_gradient(function, mean, sd, h=1e-4):
    """With respect to mean and sd, by differences of quadratures."""
    return ((expectation(function, mean + h, sd) - expectation(function, mean - h, sd)) / (2 * h),
            (expectation(function, mean, sd + h) - expectation(function, mean, sd - h)) / (2 * h))


@pytest.mark.parametrize("function", [math.cos, abs, lambda z: float(z > 0), lambda z: z**3],
                         ids=["cos", "kink", "step", "cube"])
def test_eq_4_23_score_function_gradient(function):
    mean, sd = 0.4, 0.8
    by_score = (expectation(lambda z: function(z) * (z - mean) / sd**2, mean, sd),
                expectation(lambda z: function(z) * ((z - mean)**2 / sd**3 - 1 / sd), mean, sd))
    assert by_score == pytest.approx(numerical_gradient(function, mean, sd), abs=1e-6)


def test_eq_4_24_the_score_averages_to_zero():
    for q, parameters in ((Normal, (0.4, 0.8)), (torch.distributions.Gumbel, (0.1, 0.5))):
        at = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
        total = [on_grid(q(*at.detach()).log_prob(GRID).exp() * torch.autograd.functional.jacobian(
            lambda p, q=q: q(p[0], p[1]).log_prob(GRID), at.detach())[:, i].nan_to_num(posinf=0, neginf=0))
            for i in range(2)]
        assert total == pytest.approx([0, 0], abs=1e-6)


def test_eq_4_25_a_shifted_and_stretched_normal_draw_has_the_right_law():
    z = 0.7 + 0.3 * np.random.default_rng(0).standard_normal(20_000)
    assert stats.kstest(z, stats.norm(0.7, 0.3).cdf).pvalue > 0.01


@pytest.mark.parametrize("function", [torch.cos, lambda z: z**3, torch.sigmoid], ids=["cos", "cube", "sigmoid"])
def test_eq_4_26_path_gradient(function):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    phi = torch.tensor([0.4, 0.8], dtype=torch.float64, requires_grad=True)
    value = torch.tensor(weights / weights.sum()) @ function(phi[0] + phi[1] * torch.tensor(nodes))
    by_path, = torch.autograd.grad(value, phi)
    truth = numerical_gradient(lambda z: function(torch.tensor(z, dtype=torch.float64)), 0.4, 0.8)
    assert by_path.tolist() == pytest.approx(truth, abs=1e-6)


def test_eq_4_27_variance_of_an_average_of_draws():
    values, chances = torch.tensor([-1.0, 0.5, 4.0]).double(), torch.tensor([0.2, 0.5, 0.3]).double()

    def variance(values, chances):
        return chances @ values**2 - (chances @ values)**2

    for size in (2, 3, 5):  # by enumeration of all samples
        samples = torch.cartesian_prod(*[values] * size)
        odds = torch.cartesian_prod(*[chances] * size).prod(1)
        assert torch.isclose(variance(samples.mean(1), odds), variance(values, chances) / size)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_eq_4_28_variances_over_dimensions(dim):
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)  # exact up to degree 15
    side, weight = torch.tensor(nodes), torch.tensor(weights / weights.sum())
    eps = torch.cartesian_prod(*[side] * dim).reshape(-1, dim)
    weight = torch.cartesian_prod(*[weight] * dim).reshape(-1, dim).prod(1)
    f, score = eps.square().sum(1), eps[:, 0]
    for g, formula in ((f * score, (dim + 2) * (dim + 4)), ((f - dim) * score, 2 * dim + 8), (2 * score, 4)):
        assert float(weight @ g**2 - (weight @ g)**2) == pytest.approx(formula)


def nonlinear_elbo(x, mean, log_sd):
    """In closed form: f(z)² is a polynomial."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    z = mean[..., None] + log_sd.exp()[..., None] * torch.tensor(nodes)
    log_p = Normal(z / 4 + z.square() / 2, NOISE).log_prob(x[..., None]) + Normal(0.0, 1.0).log_prob(z)
    return log_p @ torch.tensor(weights / weights.sum()) + 0.5 * (1 + math.log(2 * math.pi)) + log_sd


def network(width=3):
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2)).double()


def test_eq_4_29_the_training_loss_estimates_the_amortized_objective():
    encoder, x = network(), rand(5)
    with torch.no_grad():
        mean, log_sd = encoder(x[:, None]).unbind(1)
        objective = nonlinear_elbo(x, mean, log_sd).mean()
        eps = rand(200_000, 5)
        z = mean + log_sd.exp() * eps
        log_p = -0.5 * ((x - z / 4 - z.square() / 2) / NOISE).square() - 0.5 * z.square()
        constant = -math.log(NOISE) - math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi) + 0.5
        estimate = (log_p + log_sd).mean(1) + constant
    assert abs(estimate.mean() - objective) < 5 * estimate.std() / 200_000**0.5
    truth = [elbo_and_divergence(float(a), stats.norm(float(b), float(c.exp())))[0] for a, b, c in
             zip(x, mean, log_sd)]
    assert float(objective) == pytest.approx(np.mean(truth), abs=1e-6)


def test_eq_4_30_two_gaps_that_are_not_negative_add_up():
    encoder, x = network(), torch.tensor([-0.3, 0.5, 1.6]).double()
    with torch.no_grad():
        amortized = nonlinear_elbo(x, *encoder(x[:, None]).unbind(1))
    for point, low in zip(x, amortized):
        def minus(at, point=point):
            return -float(nonlinear_elbo(point, *torch.tensor(at)))

        runs = [optimize.minimize(minus, (start, -1.0)) for start in (-1.5, -0.2, 1.5)]
        best = -min(run.fun for run in runs)
        total = math.log(evidence(float(point))) - float(low)
        at = min(runs, key=lambda run: run.fun).x
        approximation = elbo_and_divergence(float(point), stats.norm(at[0], math.exp(at[1])))[1]
        amortization = best - float(low)
        assert min(approximation, amortization) > -1e-9
        assert total == pytest.approx(approximation + amortization, abs=1e-6)


@pytest.mark.parametrize(("s_p", "s_q"), [(1.0, 1.0), (1.0, 0.8), (0.7, 1.9), (2.0, 1.6)])
def test_eq_4_31_mean_squared_weight(s_p, s_q):
    def square(z):
        return math.exp(2 * stats.norm.logpdf(z, 0, s_p) - stats.norm.logpdf(z, 0, s_q))

    truth = 2 * integrate.quad(square, 0, 60, points=[1, 3, 10], **KINK_FREE)[0]
    assert s_q**2 / (s_p * math.sqrt(2 * s_q**2 - s_p**2)) == pytest.approx(truth, rel=1e-8)


def test_eq_4_31_the_mean_squared_weight_is_infinite_for_a_narrow_q():
    def log_square(z, s_q):
        return 2 * stats.norm.logpdf(z) - stats.norm.logpdf(z, 0, s_q)

    assert log_square(30, 0.70) > log_square(10, 0.70)  # the integrand grows without end
    assert log_square(30, 0.72) < log_square(10, 0.72)

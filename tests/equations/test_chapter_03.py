"""Chapter 03's equations, as written there, against independent oracles."""

import math
from itertools import combinations, product

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats
from sklearn import metrics, mixture
from sklearn.model_selection import KFold, cross_val_score
from torch.autograd.functional import hessian, jacobian
from torch.distributions import Categorical, Dirichlet, Gamma, MixtureSameFamily, MultivariateNormal, Normal

from gmvae_lib.exercises import find
from gmvae_lib.mixture import GaussianMixture

N, D, K = 80, 2, 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def simplex(n):
    return Dirichlet(torch.ones(n, dtype=torch.float64)).sample()


def gaussian_mixture(weights, means, covariances):
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))


def random_mixture(n_components=K):
    root = rand(n_components, D, D + 2)
    return simplex(n_components), 2 * rand(n_components, D), root @ root.mT / D + 0.2 * torch.eye(D).double()


def log_joint(x, weights, means, covariances):
    columns = [stats.multivariate_normal(m, c).logpdf(x) for m, c in zip(means.numpy(), covariances.numpy())]
    return np.log(weights.numpy()) + np.stack(columns, 1)


def test_eq_3_1_best_log_likelihood_of_one_gaussian_is_the_sums_maximum():
    x = rand(N) * 1.7 + 0.4

    def minus_ell(theta):
        return -stats.norm(theta[0], math.exp(theta[1])).logpdf(x.numpy()).sum()

    best = -optimize.minimize(minus_ell, [0.0, 0.0], tol=1e-10).fun
    fitted = GaussianMixture(1, reg_covar=0).fit(x[:, None])
    assert float(fitted.score_samples(x[:, None]).sum()) == pytest.approx(best, rel=1e-9)
    assert best >= -min(minus_ell(theta) for theta in rand(500, 2).numpy())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_eq_3_2_a_split_component_leaves_the_density_as_it_is(share):
    x, (weights, means, covariances) = rand(N, D), random_mixture()
    twice = [0, 1, 2, 2]
    split = weights[twice] * torch.tensor([1, 1, share, 1 - share]).double()
    a = np.exp(log_joint(x, weights, means, covariances)).sum(1)
    with np.errstate(divide="ignore"):
        b = np.exp(log_joint(x, split, means[twice], covariances[twice])).sum(1)
    assert np.allclose(a, b, rtol=1e-12)


def test_eq_3_3_the_best_likelihood_never_falls_with_K():
    x = rand(N, D)
    scores = []
    for n_components in range(1, 5):  # scikit-learn's EM, so that it is not our own
        fit = mixture.GaussianMixture(n_components, n_init=10, tol=1e-6, max_iter=500, random_state=0, reg_covar=1e-2)
        scores.append(fit.fit(x.numpy()).score(x.numpy()))
    assert all(b > a for a, b in zip(scores, scores[1:]))


def test_eq_3_4_log_score_is_entropy_plus_divergence():
    truth, model = stats.gamma(3.0), stats.norm(2.5, 2.0)
    score = integrate.quad(lambda x: truth.pdf(x) * model.logpdf(x), 0, 60)[0]
    divergence = integrate.quad(lambda x: special.rel_entr(truth.pdf(x), model.pdf(x)), 0, 60)[0]
    assert -score == pytest.approx(truth.entropy() + divergence, rel=1e-7)
    assert divergence > 0


def test_eq_3_5_standard_error_of_a_mean():
    s = rand(37).numpy()
    assert s.std(ddof=1) / math.sqrt(37) == pytest.approx(stats.sem(s))
    formula = math.sqrt(((s - s.mean())**2).sum() / 36) / math.sqrt(37)
    assert formula == pytest.approx(stats.sem(s), rel=1e-12)
    draws = Gamma(2.0, 1.0).sample((20_000, 37)).double()
    errors = (draws - draws.mean(1, keepdim=True)).square().sum(1).div(36).div(37)
    assert float(errors.mean()) == pytest.approx(float(draws.mean(1).var()), rel=0.03)


def test_eq_3_6_variance_of_a_difference():
    s = rand(50)
    t = 0.9 * s + 0.2 * rand(50)
    covariance = np.cov(s, t)
    assert np.var(s.numpy() - t.numpy(), ddof=1) == pytest.approx(
        covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], rel=1e-12)
    assert covariance[0, 1] > 0.8 * covariance[0, 0]


def test_eq_3_7_cross_validation_is_scikit_learns():
    x = rand(50, D).numpy()
    fold = np.repeat(np.arange(5), 10)
    scores = np.empty(50)
    for v in range(5):
        rest = x[fold != v]
        scores[fold == v] = stats.multivariate_normal(rest.mean(0), np.cov(rest.T, ddof=0)).logpdf(x[fold == v])
    theirs = cross_val_score(mixture.GaussianMixture(1, reg_covar=0), x, cv=KFold(5))
    assert scores.mean() == pytest.approx(theirs.mean(), rel=1e-10)


def test_eq_3_8_the_rule_takes_the_smallest_within_one_paired_error():
    def rule(scores):  # word by word
        best = max(range(len(scores)), key=lambda i: scores[i].mean())
        close = [i + 1 for i in range(len(scores))
                 if (d := scores[best] - scores[i]).mean() <= stats.sem(d)]
        return min(close)

    common, noise = 3 * rand(4, 200)[0], rand(4, 200)
    noise = (noise - noise.mean(1, keepdim=True)) / noise.std(1, keepdim=True)
    lead = torch.tensor([-1.0, -0.05, 0.0, -0.05]).double()[:, None]
    scores = (common + lead + noise).numpy()
    assert rule(scores) == 2
    assert find("3.5").solution(torch.tensor(scores)) == 2
    assert rule((common + lead + 0.01 * noise).numpy()) == 3


class Wrong:
    """A model that does not contain the truth: N(mu, sigma^2), parameters (mu, log sigma), for Gamma(4) data."""

    truth = stats.gamma(4.0)
    best = np.array([4.0, math.log(2.0)])  # the mean 4 and the variance 4 of the truth

    @staticmethod
    def log_p(theta, x):
        return Normal(theta[0], theta[1].exp()).log_prob(x)

    @classmethod
    def expected(cls, theta):
        """L(theta), exactly: E (x - mu)^2 = 4 + (4 - mu)^2."""
        mu, rho = theta
        return -0.5 * math.log(2 * math.pi) - rho - 0.5 * torch.exp(-2 * rho) * (4 + (4 - mu)**2)

    @classmethod
    def information(cls):
        """J and V at the best parameters."""
        theta = torch.tensor(cls.best)
        curvature = -hessian(cls.expected, theta)

        def gradient(x):
            return jacobian(lambda t: cls.log_p(t, torch.tensor(x)), theta).numpy()

        spread = np.array([[integrate.quad(lambda x, i=i, j=j: cls.truth.pdf(x) * gradient(x)[i] * gradient(x)[j],
                                           0, 80)[0] for j in range(2)] for i in range(2)])
        return curvature.numpy(), spread

    @classmethod
    def fits(cls, n=400, repeats=20_000):
        x = Gamma(torch.tensor(4.0).double(), 1.0).sample((repeats, n))
        return x, torch.stack([x.mean(1), x.std(1, correction=0).log()], 1)


def test_eq_3_9_optimism_of_a_wrong_model_is_the_gap_between_old_and_new_points():
    x, theta = Wrong.fits(n=50, repeats=20_000)
    train = Normal(theta[:, :1], theta[:, 1:].exp()).log_prob(x).sum(1)
    new = Gamma(torch.tensor(4.0).double(), 1.0).sample((20_000, 50))
    by_new_points = (train - Normal(theta[:, :1], theta[:, 1:].exp()).log_prob(new).sum(1)).mean()
    exact = (train - 50 * Wrong.expected(theta.T)).mean()
    assert float(by_new_points) == pytest.approx(float(exact), rel=0.1)
    assert exact > 2


def test_eq_3_10_both_expansions_hold_to_second_order():
    curvature, _ = Wrong.information()
    x, theta = Wrong.fits(n=2000, repeats=300)
    delta = theta - torch.tensor(Wrong.best)
    parabola = 2000 / 2 * torch.einsum("si,ij,sj->s", delta, torch.tensor(curvature), delta)
    best = torch.tensor(Wrong.best)
    lost_on_new = 2000 * (Wrong.expected(best) - Wrong.expected(theta.T))
    won_on_old = (Normal(theta[:, :1], theta[:, 1:].exp()).log_prob(x) - Wrong.log_p(best, x)).sum(1)
    assert torch.allclose(lost_on_new.mean(), parabola.mean(), rtol=0.05)
    assert torch.allclose(won_on_old.mean(), parabola.mean(), rtol=0.05)


def test_eq_3_11_the_fits_error_is_the_averaged_gradient_over_the_curvature():
    curvature, _ = Wrong.information()
    x, theta = Wrong.fits(n=20_000, repeats=50)
    mean_gradient = torch.stack([((x - 4) / 4).mean(1), ((x - 4)**2 / 4 - 1).mean(1)], 1)
    delta = mean_gradient @ torch.linalg.inv(torch.tensor(curvature)).T
    error = (theta - torch.tensor(Wrong.best) - delta).norm(dim=1)
    assert (error < 0.1 * delta.norm(dim=1)).double().mean() > 0.9


def test_eq_3_12_optimism_of_a_wrong_model():
    curvature, spread = Wrong.information()
    expected = np.trace(np.linalg.solve(curvature, spread))
    x, theta = Wrong.fits()
    best = torch.tensor(Wrong.best)
    # Both gaps are measured from the best parameters, which takes the common noise away.
    won = (Normal(theta[:, :1], theta[:, 1:].exp()).log_prob(x) - Wrong.log_p(best, x)).sum(1)
    lost = 400 * (Wrong.expected(best) - Wrong.expected(theta.T))
    assert float((won + lost).mean()) == pytest.approx(expected, rel=0.05)
    assert expected > 2.5, "more than the two parameters: this model is wrong"


def test_eq_3_13_with_the_truth_in_the_model_both_matrices_agree_and_optimism_is_the_number_of_parameters():
    theta = torch.tensor([0.3, 0.5]).double()
    truth = stats.norm(0.3, math.exp(0.5))

    def moment(f):
        return integrate.quad(lambda x: truth.pdf(x) * f(torch.tensor(x)), -12, 12)[0]

    J = [[moment(lambda x, i=i, j=j: -hessian(lambda t: Wrong.log_p(t, x), theta)[i, j]) for j in (0, 1)]
         for i in (0, 1)]
    V = [[moment(lambda x, i=i, j=j: torch.prod(jacobian(lambda t: Wrong.log_p(t, x), theta)[[i, j]]))
          for j in (0, 1)] for i in (0, 1)]
    assert np.allclose(J, V, atol=1e-7)
    assert np.allclose(np.trace(np.linalg.solve(J, V)), 2)
    x = rand(2000, 200, 3)
    mean = x.mean(1)
    cov = (x - mean[:, None]).mT @ (x - mean[:, None]) / 200
    # E log N(x | m, C) for x ~ N(0, I), and the same mean over the fit's own points.
    log_det, trace = cov.logdet(), torch.linalg.inv(cov).diagonal(dim1=1, dim2=2).sum(1)
    new = -0.5 * (log_det + trace + (mean * torch.linalg.solve(cov, mean)).sum(1))
    assert float(200 * (-0.5 * (log_det + 3) - new).mean()) == pytest.approx(9, rel=0.1)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical", "tied"])
def test_eq_3_14_aic(kind):
    x = rand(N, D)
    fit = mixture.GaussianMixture(2, covariance_type=kind, random_state=0).fit(x.numpy())
    ell, n_parameters = fit.score_samples(x.numpy()).sum(), fit._n_parameters()
    assert -2 * ell + 2 * n_parameters == pytest.approx(fit.aic(x.numpy()), rel=1e-12)


def ell(mu, rho, y):
    return Normal(mu, rho.exp()).log_prob(y).sum()


def log_prior(mu, rho):
    return Normal(0.0, 3.0).log_prob(mu) + Normal(0.0, 1.0).log_prob(rho)


def exact_evidence(y):
    """By Simpson's rule over mu and rho."""
    mean, square, n = float(y.mean()), float(y.var(correction=0)), len(y)
    half = 10 / math.sqrt(n)
    mu = mean + half * math.sqrt(square) * np.linspace(-1, 1, 601)[:, None]
    rho = 0.5 * math.log(square) + half * np.linspace(-1, 1, 601)
    value = -0.5 * n * (math.log(2 * math.pi) + 2 * rho + (square + (mean - mu)**2) * np.exp(-2 * rho))
    value = value + stats.norm.logpdf(mu, 0, 3) + stats.norm.logpdf(rho)
    inner = integrate.simpson(np.exp(value - value.max()), x=rho, axis=1)
    return value.max() + math.log(integrate.simpson(inner, x=mu[:, 0]))


def by_laplace(y):
    top = torch.stack([y.mean(), y.std(correction=0).log()])
    H = -hessian(lambda theta: ell(*theta, y), top)
    return float(ell(*top, y) + log_prior(*top) + 2 / 2 * math.log(2 * math.pi) - 0.5 * H.logdet())


def test_eq_3_15_evidence_is_the_average_likelihood_over_the_prior():
    y = 0.5 + rand(6)
    mu = 3 * rand(400_000)
    terms = Normal(mu[:, None], 1.0).log_prob(y).sum(1)
    by_sampling = float(terms.logsumexp(0)) - math.log(len(mu))
    by_integral = math.log(integrate.quad(
        lambda m: math.exp(stats.norm(m).logpdf(y.numpy()).sum() + stats.norm.logpdf(m, 0, 3)), -15, 15)[0])
    exact = MultivariateNormal(torch.zeros(6).double(), torch.eye(6).double() + 9).log_prob(y)
    assert by_integral == pytest.approx(float(exact), rel=1e-8)
    assert by_sampling == pytest.approx(float(exact), abs=0.02)


def test_eq_3_16_laplace_becomes_exact_as_points_are_added():
    y = 1 + 1.5 * rand(4000)
    gaps = [abs(exact_evidence(y[:n]) - by_laplace(y[:n])) for n in (40, 400, 4000)]
    assert gaps[0] < 0.05 and gaps[1] < 0.005 and gaps[2] < 0.0005


def test_eq_3_17_log_determinant_grows_by_log_n_for_each_parameter():
    y = 1 + 1.5 * rand(100_000)
    top = torch.stack([y.mean(), y.std(correction=0).log()])
    log_det = (-hessian(lambda theta: ell(*theta, y), top)).logdet()
    J = torch.tensor([[1.5**-2, 0], [0, 2.0]]).double()  # the information of (mu, log sigma)
    assert float(log_det) == pytest.approx(2 * math.log(len(y)) + float(J.logdet()), abs=0.02)


def test_eq_3_18_bic_misses_the_evidence_by_a_constant():
    for precision in (1.0, 4.0):  # known variance 1, prior mu ~ N(0, 1 / precision): exact by the joint Gaussian
        gaps = []
        for n in (100, 400, 1600):
            x = 0.7 + rand(n)
            x = x - x.mean() + 0.7
            cov = torch.eye(n).double() + 1 / precision
            exact = MultivariateNormal(torch.zeros(n).double(), cov).log_prob(x)
            bic = -2 * Normal(x.mean(), 1.0).log_prob(x).sum() + math.log(n)
            gaps.append(float(exact + bic / 2))
        constant = stats.norm(0, precision**-0.5).logpdf(0.7) + 0.5 * math.log(2 * math.pi)
        assert gaps[-1] == pytest.approx(constant, abs=0.005)
        assert abs(gaps[2] - constant) < abs(gaps[0] - constant)
    x = rand(N, D)
    fit = mixture.GaussianMixture(2, random_state=0).fit(x.numpy())
    formula = -2 * fit.score_samples(x.numpy()).sum() + fit._n_parameters() * math.log(N)
    assert formula == pytest.approx(fit.bic(x.numpy()), rel=1e-12)


def test_eq_3_19_bic_gives_the_posterior_of_a_model():
    # Two models of one mean: fixed at 0 (P = 0), or free with the unit-information prior N(xbar, 1), for which the
    # constant that BIC drops is zero: there the formula is exact up to O(1/N).
    n = 3000
    x = rand(n)
    x = x - x.mean() + 0.05
    log_fixed = Normal(0.0, 1.0).log_prob(x).sum()
    log_free = MultivariateNormal(x.mean().expand(n), torch.eye(n).double() + 1.0).log_prob(x)
    exact = torch.softmax(torch.stack([log_fixed, log_free]), 0)
    bics = torch.stack([-2 * log_fixed, -2 * Normal(x.mean(), 1.0).log_prob(x).sum() + math.log(n)])
    weights = torch.exp(-(bics - bics.min()) / 2)
    assert torch.allclose(weights / weights.sum(), exact, atol=1e-3)
    assert 0.02 < exact[0] < 0.98


def test_eq_3_20_every_peak_counts():
    # Two components of known weights 1/2 and variance 1 with means on the line, far apart: by brute force.
    x = torch.cat([rand(40) - 6, rand(40) + 6])
    grid = torch.arange(-9, 9, 0.03).double()
    first, second = torch.meshgrid(grid, grid, indexing="ij")
    joint = torch.zeros_like(first)
    for point in x:
        joint += torch.logaddexp(Normal(first, 1.0).log_prob(point), Normal(second, 1.0).log_prob(point)) - math.log(2)
    joint += Normal(0.0, 5.0).log_prob(first) + Normal(0.0, 5.0).log_prob(second)
    exact = joint.flatten().logsumexp(0) + 2 * math.log(0.03)

    def height(theta):
        points = torch.logaddexp(Normal(theta[0], 1.0).log_prob(x), Normal(theta[1], 1.0).log_prob(x)) - math.log(2)
        return points.sum()

    top = torch.stack([x[:40].mean(), x[40:].mean()])
    one = height(top) + Normal(0.0, 5.0).log_prob(top).sum() + math.log(2 * math.pi)
    one = one - 0.5 * (-hessian(height, top)).logdet()
    assert float(exact) == pytest.approx(float(one) + math.log(math.factorial(2)), abs=0.01)


def test_eq_3_21_gradients_of_the_log_density():
    x, (weights, means, covariances) = rand(5, D), random_mixture()

    def log_p(weights, means):
        joint = MultivariateNormal(means, covariances).log_prob(x[:, None]) + weights.log()
        return joint.logsumexp(1)

    by_weights, by_means = jacobian(log_p, (weights, means))
    joint = log_joint(x, weights, means, covariances)
    resp = special.softmax(joint, axis=1)
    for n, k in product(range(5), range(K)):
        expected = resp[n, k] * np.linalg.solve(covariances[k], x[n] - means[k])
        assert np.allclose(by_means[n, k], expected)
    density = np.exp(joint - np.log(weights.numpy()))
    assert np.allclose(by_weights, density / np.exp(joint).sum(1)[:, None])


def test_eq_3_21_singular_points_lose_directions():
    x = torch.linspace(-4, 4, 200).double()

    def log_p(theta):
        a, b = (Normal(theta[1 + k], theta[3 + k].exp()).log_prob(x).exp() for k in range(2))
        return (theta[0] * a + (1 - theta[0]) * b).log()

    places = {(0.4, -1, 1, 0, 0.2): 5, (0.4, 1, 1, 0, 0): 2, (0.0, -1, 1, 0, 0): 3}
    for theta, rank in places.items():
        gradients = jacobian(log_p, torch.tensor(theta).double())
        assert int(torch.linalg.matrix_rank(gradients)) == rank


def entropies(resp):
    return stats.entropy(resp, axis=1)


def test_eq_3_22_log_likelihood_is_expectation_plus_doubt():
    x, theta = rand(N, D), random_mixture()
    joint = log_joint(x, *theta)
    resp = special.softmax(joint, axis=1)
    ell = gaussian_mixture(*theta).log_prob(x).sum()
    assert float(ell) == pytest.approx((resp * joint).sum() + entropies(resp).sum(), rel=1e-12)
    assert entropies(resp).sum() > 1


@pytest.mark.parametrize("kind", ["full", "diag", "spherical", "tied"])
def test_eq_3_23_icl_is_bic_of_the_completed_data(kind):
    x = rand(N, D)
    fit = mixture.GaussianMixture(3, covariance_type=kind, random_state=0).fit(x.numpy())
    resp = fit.predict_proba(x.numpy())
    joint = np.log(resp) + fit.score_samples(x.numpy())[:, None]
    icl = fit.bic(x.numpy()) + 2 * entropies(resp).sum()
    assert icl == pytest.approx(-2 * (resp * joint).sum() + fit._n_parameters() * math.log(N), rel=1e-10)
    ours = GaussianMixture(3, kind, max_iter=1, tol=0, reg_covar=0, weights_init=fit.weights_,
                           means_init=fit.means_, precisions_init=fit.precisions_).fit(x)
    ours.weights_, ours.means_, ours.covariances_ = (
        torch.tensor(v) for v in (fit.weights_, fit.means_, fit.covariances_))
    assert ours.icl(x) == pytest.approx(icl, rel=1e-9)


def test_eq_3_24_hard_doubt_below_entropy_below_log_k():
    resp = np.vstack([np.eye(4)[:1], np.full((1, 4), 0.25),
                      Dirichlet(torch.full((4,), 0.4).double()).sample((500,)).numpy()])
    hard = -np.log(resp.max(1))
    assert (hard <= entropies(resp) + 1e-12).all() and (entropies(resp) <= math.log(4) + 1e-12).all()
    assert hard[0] == entropies(resp)[0] == 0
    assert hard[1] == pytest.approx(math.log(4)) and entropies(resp)[1] == pytest.approx(math.log(4))


def test_eq_3_25_adjusted_rand_index():
    rng = np.random.default_rng(0)
    first, second = rng.integers(3, size=40), rng.integers(4, size=40)
    second[:20] = first[:20]

    def pairs_together(first, second):  # by looking at all of them
        return sum(first[i] == first[j] and second[i] == second[j] for i, j in combinations(range(40), 2))

    T, A, B = (pairs_together(*labels) for labels in ((first, second), (first, first), (second, second)))
    E = A * B / math.comb(40, 2)
    shuffled = np.mean([pairs_together(first, rng.permutation(second)) for _ in range(300)])
    assert shuffled == pytest.approx(E, rel=0.02)
    assert (T - E) / ((A + B) / 2 - E) == pytest.approx(metrics.adjusted_rand_score(first, second), rel=1e-12)


def penalized(weights, counts, alpha):
    return float(torch.xlogy(counts + alpha - 1, weights).sum())


def test_eq_3_26_the_penalized_problem_is_the_log_posterior():
    counts = torch.tensor([12.0, 3.5, 4.5]).double()
    for weights in Dirichlet(torch.ones(3).double()).sample((5,)):
        prior = Dirichlet(torch.full((3,), 0.4, dtype=torch.float64)).log_prob(weights)
        other = Dirichlet(torch.full((3,), 0.4, dtype=torch.float64)).log_prob(torch.ones(3).double() / 3)
        expected = float((counts * weights.log()).sum() + prior - other)
        constant = 3 * 0.6 * math.log(1 / 3)
        assert penalized(weights, counts, 0.4) == pytest.approx(expected - constant, rel=1e-10)


@pytest.mark.parametrize("alpha", [3.0, 1.0, 0.4, -1.5])
def test_eq_3_27_weights_of_the_maximum(alpha):
    counts = torch.tensor([12.0, 3.5, 4.5, 0.3]).double()
    weights = (counts + alpha - 1).clamp(min=0)
    alive = weights > 0
    weights = weights / weights.sum()
    n = int(alive.sum())
    assert n == (4 if alpha >= 1 else 3)

    def loss(logits):
        return -float(((counts[alive] + alpha - 1) * torch.log_softmax(torch.tensor(logits), 0)).sum())

    found = special.softmax(optimize.minimize(loss, np.zeros(n), tol=1e-12).x)
    assert np.allclose(weights[alive], found, atol=1e-5)
    # What is switched off gains without limit as its weight goes to zero.
    if n < 4:
        series = [penalized((1 - w) * weights + w * (~alive), counts, alpha) for w in (1e-2, 1e-4, 1e-8)]
        assert series[0] < series[1] < series[2]

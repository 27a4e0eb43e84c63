"""Chapter 7's equations, as written there, against torch.distributions, quadrature, enumeration and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from gmvae_lib.evaluation import aggregate_log_prob, elbo_surgery
from gmvae_lib.gaussian import kl_standard
from gmvae_lib.vae import VAE

Z = np.linspace(-15, 15, 12_001)


def line(n=6, seed=0, spread=1.5):
    """An encoder's Gaussians on a line: means (n,), standard deviations (n,)."""
    rng = np.random.default_rng(seed)
    return spread * rng.standard_normal(n), rng.uniform(0.2, 0.8, n)


def density(means, sds):
    """The mixture of Eq. (7.1) on the line, as a function."""
    return lambda z: np.mean([stats.norm.pdf(z, m, s) for m, s in zip(means, sds, strict=True)], axis=0)


def kl(q, p):
    """KL between two densities (functions), by quadrature."""
    a, b = q(Z), p(Z)
    return np.trapezoid(np.where(a > 1e-290, a * (np.log(np.maximum(a, 1e-290)) - np.log(np.maximum(b, 1e-290))), 0), Z)


def encoder(n=40, d=3, seed=0):
    torch.manual_seed(seed)
    model = VAE.build(12, d, (16,))
    with torch.no_grad():
        model.encoder.mlp.layers[-1].bias[d:] -= 2
        model.encoder.mlp.layers[-1].weight[:d] *= 12
    return model, torch.randint(0, 17, (n, 12)).float()


def codes(n=8, d=2, seed=0):
    torch.manual_seed(seed)
    return 2 * torch.randn(n, d, dtype=torch.float64), torch.randn(n, d, dtype=torch.float64) - 1


def mixture(mean, log_var):
    parts = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mean)).to(mean)), parts)


def sampled(mean, log_var, size):
    """z (size, n, d), one draw from each Gaussian a row."""
    return Normal(mean, (0.5 * log_var).exp()).sample((size,))


def test_eq_7_1_a_random_image_s_code_has_the_average_density():
    means, sds = line()
    rng = np.random.default_rng(1)
    n = rng.integers(len(means), size=400_000)
    z = means[n] + sds[n] * rng.standard_normal(len(n))
    counts, edges = np.histogram(z, 40, range=(-5, 5))
    q = density(means, sds)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        assert count / len(z) == pytest.approx(integrate.quad(q, low, high)[0], abs=0.004)


@pytest.mark.parametrize("seed", range(3))
def test_eq_7_2_best_accuracy_is_half_and_half_the_total_variation(seed):
    means, sds = line(4, seed)
    q, p = density(means, sds), stats.norm.pdf
    variation = 0.5 * integrate.quad(lambda z: abs(p(z) - q(z)), -15, 15, limit=500)[0]
    rng = np.random.default_rng(seed)
    n = rng.integers(4, size=200_000)
    from_q, from_p = means[n] + sds[n] * rng.standard_normal(len(n)), rng.standard_normal(len(n))
    accuracy = (np.mean(q(from_q) > p(from_q)) + np.mean(q(from_p) <= p(from_p))) / 2
    assert accuracy == pytest.approx(0.5 + 0.5 * variation, abs=0.005)
    for threshold in (-1, 0, 1):  # other rules do worse
        assert (np.mean(from_q > threshold) + np.mean(from_p <= threshold)) / 2 <= 0.5 + 0.5 * variation + 0.005


def test_eq_7_2_no_rule_for_decoded_draws_is_better():
    """All 2^n rules on a small discrete space, for draws and for what a decoder (a function) makes of them."""
    rng = np.random.default_rng(0)
    p, q, decode = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6)), np.array([0, 1, 1, 2, 0, 2])

    def best(p, q):
        rules = np.array(np.meshgrid(*[[0, 1]] * len(p))).reshape(len(p), -1).T
        return max((rule @ q + (1 - rule) @ p) / 2 for rule in rules)

    after = [np.bincount(decode, weights=v) for v in (p, q)]
    assert best(*after) <= best(p, q) == pytest.approx(0.5 + 0.5 * 0.5 * np.abs(p - q).sum())


def test_eq_7_3_log_sum_exp_over_images_gives_the_log_density():
    mean, log_var = codes(9, 3)
    z = torch.cat([torch.randn(20, 3).double(), torch.tensor([[60.0, -60.0, 60.0]]).double()])
    terms = np.array([stats.norm.logpdf(z.numpy(), m, np.sqrt(v)).sum(1)
                      for m, v in zip(mean.numpy(), log_var.exp().numpy(), strict=True)])
    found = special.logsumexp(terms, axis=0) - math.log(9)
    assert np.allclose(found, mixture(mean, log_var).log_prob(z))
    model, x = encoder()
    with torch.no_grad():
        oracle = mixture(*model.encode(x))
    z = torch.randn(30, 3)
    assert torch.allclose(aggregate_log_prob(model, x, z), oracle.log_prob(z), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_eq_7_4_rate_is_information_and_misfit(seed):
    means, sds = line(5, seed)
    q, p = density(means, sds), stats.norm.pdf
    rate = np.mean(0.5 * (means**2 + sds**2 - 1 - 2 * np.log(sds)))
    information = np.mean([kl(lambda z, m=m, s=s: stats.norm.pdf(z, m, s), q)
                           for m, s in zip(means, sds, strict=True)])
    assert rate == pytest.approx(information + kl(q, p), abs=1e-6)


def test_eq_7_4_the_library_s_parts_add_up_to_the_closed_form():
    model, x = encoder()
    parts = elbo_surgery(model, x, n_samples=300)
    with torch.no_grad():
        rate = float(kl_standard(*model.encode(x)).mean())
    error = math.hypot(parts.information_error, parts.marginal_kl_error)
    assert abs(parts.information + parts.marginal_kl - rate) < 4 * error
    assert error < 0.05


def test_eq_7_5_the_index_has_bayes_responsibilities():
    means, sds = line(4, 3)
    rng = np.random.default_rng(0)
    n = rng.integers(4, size=2_000_000)
    z = means[n] + sds[n] * rng.standard_normal(len(n))
    for place in (-0.5, 0.4):
        here = np.abs(z - place) < 0.02
        shares = np.array([stats.norm.pdf(place, m, s) for m, s in zip(means, sds, strict=True)])
        assert np.allclose(np.bincount(n[here], minlength=4) / here.sum(), shares / shares.sum(), atol=0.02)


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0, 200.0])
def test_eq_7_6_information_is_log_n_minus_the_doubt_that_is_left(spread):
    mean, log_var = codes()
    mean, log_var = spread * mean, log_var if spread else torch.zeros_like(log_var)
    q, parts = mixture(mean, log_var), Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    z = sampled(mean, log_var, 4000)
    information = (parts.log_prob(z) - q.log_prob(z)).mean()  # Eq. (7.4)'s first term
    flat = z.flatten(0, 1)
    index = Categorical(logits=parts.log_prob(flat.unsqueeze(1)))
    assert information == pytest.approx(float(math.log(8) - index.entropy().mean()), abs=0.03)
    assert information <= math.log(8) + 1e-9
    if spread in (0.0, 200.0):
        assert information == pytest.approx(math.log(8) if spread else 0.0, abs=1e-3)


def test_eq_7_7_the_standard_error_is_the_spread_of_repeated_averages():
    rng = np.random.default_rng(0)
    passes = rng.gamma(2.0, 1.5, size=(20_000, 12))
    error = np.sqrt(((passes - passes.mean(1, keepdims=True)) ** 2).sum(1) / (12 * 11))
    assert np.sqrt((error**2).mean()) == pytest.approx(passes.mean(1).std(), rel=0.02)
    assert np.allclose(error, stats.sem(passes, axis=1))


@pytest.mark.parametrize("edge", [-0.5, 0.3, 1.2])
def test_eq_7_8_a_hole_costs_at_least_minus_log_of_what_is_left(edge):
    h = stats.norm.sf(edge)  # the hole: all z above the edge
    inside = np.linspace(-12, edge, 40_001)
    p = stats.norm.pdf(inside)

    def divergence(q):
        q = q / np.trapezoid(q, inside)
        return np.trapezoid(q * np.log(q / p), inside)

    assert divergence(p) == pytest.approx(-math.log(1 - h), abs=1e-4)  # q = p outside of the hole
    for mean, sd in ((-1, 0.5), (-2, 1.0), (0, 1.5)):
        rival = np.maximum(stats.norm.pdf(inside, mean, sd), 1e-300)
        rest = divergence(rival) + math.log(1 - h)
        normalized = rival / np.trapezoid(rival, inside)
        assert rest == pytest.approx(np.trapezoid(normalized * np.log(normalized / (p / (1 - h))), inside), abs=1e-4)
        assert rest > 0


def test_eq_7_9_the_bound_has_the_prior_in_one_term_and_the_aggregate_posterior_is_best():
    means, sds = line(5, 1)
    q, x = density(means, sds), np.linspace(-1, 1, 5)

    def log_likelihood(z, n):
        return stats.norm.logpdf(x[n], np.sin(z), 0.3)

    def bound(prior):
        total = 0.0
        for n, (m, s) in enumerate(zip(means, sds, strict=True)):
            q_n = stats.norm.pdf(Z, m, s)
            safe = np.log(np.maximum(prior(Z), 1e-290)) - stats.norm.logpdf(Z, m, s)
            total += np.trapezoid(q_n * (log_likelihood(Z, n) + safe), Z) / 5
        return total

    distortion = -np.mean([np.trapezoid(stats.norm.pdf(Z, m, s) * log_likelihood(Z, n), Z)
                           for n, (m, s) in enumerate(zip(means, sds, strict=True))])
    information = np.mean([kl(lambda z, m=m, s=s: stats.norm.pdf(z, m, s), q)
                           for m, s in zip(means, sds, strict=True)])
    rivals = [stats.norm.pdf, density([-1, 1], [1, 1]), density(means, sds + 0.1), lambda z: stats.norm.pdf(z, 0.5, 2)]
    for prior in [q, *rivals]:
        assert bound(prior) == pytest.approx(-distortion - information - kl(q, prior), abs=1e-5)
        assert bound(prior) <= bound(q) + 1e-9


@pytest.mark.parametrize(("mean", "sd"), [(0, 1.4), (0.7, 1), (-1, 3), (0, 0.6)])
def test_eq_7_10_gain_of_another_prior(mean, sd):
    means, sds = line(6, 2)
    q, p, r = density(means, sds), stats.norm.pdf, lambda z: stats.norm.pdf(z, mean, sd)
    rng = np.random.default_rng(0)
    n = rng.integers(6, size=400_000)
    z = means[n] + sds[n] * rng.standard_normal(len(n))
    gain = np.mean(stats.norm.logpdf(z, mean, sd) - stats.norm.logpdf(z))
    assert gain == pytest.approx(kl(q, p) - kl(q, r), abs=0.02)
    assert gain <= kl(q, p) + 0.02


def test_eq_7_11_draws_estimate_the_rate():
    mean, log_var = codes(6, 2)
    mean_p, log_var_p = torch.tensor([0.3, -0.5]).double(), torch.tensor([0.4, 0.1]).double()
    prior = Independent(Normal(mean_p, (0.5 * log_var_p).exp()), 1)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    z = q.sample((40_000,))
    estimate = (q.log_prob(z) - prior.log_prob(z)).mean(0)
    assert torch.allclose(estimate, kl_divergence(q, prior), atol=0.1)


def test_eq_7_12_fitting_draws_is_maximum_likelihood():
    """The mixture that EM finds for the draws is better, in the expected logarithm under q(z), than random others."""
    means, sds = line(6, 4)
    rng = np.random.default_rng(0)
    z = (means + sds * rng.standard_normal((4000, 6))).reshape(-1, 1)
    found = SklearnMixture(2, n_init=5, random_state=0).fit(z)
    q = density(means, sds)(Z)
    expected = np.trapezoid(q * found.score_samples(Z[:, None]), Z)
    assert found.score(z) == pytest.approx(expected, abs=0.02)
    for _ in range(200):
        weights = rng.dirichlet([1, 1])
        places, widths = 2 * rng.standard_normal(2), rng.uniform(0.3, 2, 2)
        rival = sum(w * stats.norm.pdf(Z, m, s) for w, m, s in zip(weights, places, widths, strict=True))
        assert np.trapezoid(q * np.log(np.maximum(rival, 1e-290)), Z) <= expected + 0.02


def test_eq_7_13_moments_of_the_aggregate_posterior():
    mean, log_var = codes(7, 3)
    n = len(mean)
    mu = mean.sum(0) / n
    sigma = sum(torch.outer(m - mu, m - mu) for m in mean) / n + sum(torch.diag(v.exp()) for v in log_var) / n
    oracle = mixture(mean, log_var)
    assert torch.allclose(mu, oracle.mean) and torch.allclose(sigma.diagonal(), oracle.variance)
    z = sampled(mean, log_var, 100_000).flatten(0, 1)
    assert torch.allclose(z.T.cov(), sigma, atol=0.05)


def test_eq_7_14_gain_of_one_gaussian_is_its_divergence_from_the_prior():
    mean, log_var = codes(7, 3)
    oracle = mixture(mean, log_var)
    mu = oracle.mean
    sigma = (mean - mu).T @ (mean - mu) / 7 + log_var.exp().mean(0).diag()
    gain = 0.5 * (sigma.trace() + mu @ mu - 3 - torch.logdet(sigma))
    fitted, normal = MultivariateNormal(mu, sigma), MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    assert gain == pytest.approx(float(kl_divergence(fitted, normal)))
    z = sampled(mean, log_var, 100_000).flatten(0, 1)
    assert gain == pytest.approx(float((fitted.log_prob(z) - normal.log_prob(z)).mean()), abs=0.03)


def test_eq_7_14_no_other_gaussian_gains_more():
    mean, log_var = codes(7, 2)
    oracle = mixture(mean, log_var)
    sigma = (mean - oracle.mean).T @ (mean - oracle.mean) / 7 + log_var.exp().mean(0).diag()
    z = sampled(mean, log_var, 30_000).flatten(0, 1)
    best = MultivariateNormal(oracle.mean, sigma).log_prob(z).mean()
    torch.manual_seed(0)
    for _ in range(50):
        change = 0.3 * torch.randn(2, 2, dtype=torch.float64)
        rival = MultivariateNormal(oracle.mean + change[0], sigma + change @ change.T)
        assert rival.log_prob(z).mean() <= best + 1e-3


def test_eq_7_15_the_population_s_misfit_lies_between_gain_and_surgery():
    means, sds = line(60, 5)  # the population
    p, population = stats.norm.pdf, density(means, sds)
    truth = kl(population, p)
    rng = np.random.default_rng(0)
    draws = rng.permutation(60)[:30]
    for r in (stats.norm(0.2, 1.6).pdf, density(means[draws], sds[draws] + 0.3)):
        log_ratio = np.log(np.maximum(r(Z), 1e-290)) - stats.norm.logpdf(Z)
        assert np.trapezoid(population(Z) * log_ratio, Z) <= truth
    rates = 0.5 * (means**2 + sds**2 - 1 - 2 * np.log(sds))
    for size in (2, 10):
        misfits, information = [], []
        for _ in range(60):
            some = rng.integers(60, size=size)
            q = density(means[some], sds[some])
            misfits.append(kl(q, p))
            information.append(np.mean([kl(lambda z, m=m, s=s: stats.norm.pdf(z, m, s), q)
                                        for m, s in zip(means[some], sds[some], strict=True)]))
        assert np.mean(misfits) - 3 * stats.sem(misfits) > truth
        assert np.mean(misfits) == pytest.approx(rates.mean() - np.mean(information), abs=0.4)


def test_eq_7_16_price_of_the_means_alone():
    mean, log_var = codes(30, 3)
    mean = mean * torch.tensor([1.0, 0.3, 0.02]).double()
    mu = mean.mean(0)
    v = (mean - mu).T @ (mean - mu) / 30
    sigma = v + log_var.exp().mean(0).diag()
    rho = torch.linalg.eigvals(torch.linalg.inv(v) @ sigma).real
    right, wrong = MultivariateNormal(mu, sigma), MultivariateNormal(mu, v)
    price = 0.5 * (rho - 1 - rho.log()).sum()
    assert price == pytest.approx(float(kl_divergence(right, wrong)), rel=1e-6)
    assert (rho >= 1).all()
    z = sampled(mean, log_var, 50_000).flatten(0, 1)
    assert price == pytest.approx(float((right.log_prob(z) - wrong.log_prob(z)).mean()), rel=0.02)


def test_eq_7_17_a_batch_s_information_never_exceeds_the_log_of_its_size():
    mean, log_var = codes(64, 2)
    log_var = log_var - 5
    z = sampled(mean, log_var, 50)
    own = Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(z)
    found = []
    for size in (1, 4, 16, 64):
        batches = [(own[:, i:i + size] - mixture(mean[i:i + size], log_var[i:i + size]).log_prob(z[:, i:i + size]))
                   for i in range(0, 64, size)]
        assert all((batch <= math.log(size) + 1e-9).all() for batch in batches)  # each draw, not the average only
        found.append(float(torch.stack([batch.mean() for batch in batches]).mean()))
    assert found[0] == pytest.approx(0, abs=1e-9) and found == sorted(found)
    assert found[1] == pytest.approx(math.log(4), abs=0.15)

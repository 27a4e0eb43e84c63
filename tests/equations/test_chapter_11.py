"""Chapter 11's equations, as written there, against scipy's quadrature, exact counting and torch.distributions."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn

from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.likelihood import Gaussian
from gmvae_lib.network import Decoder, Encoder
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE


def smooth(seed=0):
    """A decoder from the plane to three pixels of 0..4, smooth, as a NumPy function of (z1, z2)."""
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((5, 2)), rng.standard_normal((3, 5))
    return lambda z: np.tanh(z @ first.T) @ second.T


def table(seed=0, states=4):
    """A latent z of a few values: p(x, z) for one x, and q(z | x)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(states)) * 0.07, rng.dirichlet(3 * np.ones(states))


def moments(joint, q, size):
    """Mean and variance of log 1/S sum w, by counting all multinomial outcomes."""
    first, second, states = 0.0, 0.0, len(q)
    ratios = joint / q

    def outcomes(left, parts):
        if parts == 1:
            yield (left,)
            return
        for k in range(left + 1):
            for rest in outcomes(left - k, parts - 1):
                yield (k, *rest)

    for counts in outcomes(size, states):
        chance = np.exp(special.gammaln(size + 1) - sum(special.gammaln(k + 1) for k in counts)
                        + sum(k * math.log(p) for k, p in zip(counts, q, strict=True)))
        value = math.log(np.dot(counts, ratios) / size)
        first, second = first + chance * value, second + chance * value**2
    return first, second - first**2


def test_eq_11_1_a_sum_over_a_grid_is_the_integral():
    decode, x, h = smooth(), np.array([3, 0, 2]), 0.1

    def joint(a, b):
        z = np.stack([a, b], -1)
        chance = stats.binom.pmf(x, 4, special.expit(decode(z))).prod(-1)
        return chance * np.exp(-0.5 * (z**2).sum(-1)) / (2 * math.pi)

    axis = np.arange(-7, 7 + h / 2, h)
    grid = h**2 * joint(*np.meshgrid(axis, axis)).sum()                              # Eq. (11.1)
    truth, _ = integrate.dblquad(lambda b, a: joint(np.array(a), np.array(b)), -7, 7, -7, 7, epsabs=1e-9)
    assert grid == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_eq_11_2_relative_variance_is_the_chi_squared_divergence(seed):
    joint, q = table(seed)
    evidence, ratios = joint.sum(), joint / q
    variance = (q * ratios**2).sum() - (q * ratios).sum() ** 2
    posterior = joint / evidence
    assert variance / evidence**2 == pytest.approx((posterior * posterior / q).sum() - 1)
    assert (q * ratios).sum() == pytest.approx(evidence)
    draws = np.random.default_rng(seed).choice(ratios, size=400_000, p=q)
    assert draws.var() / evidence**2 == pytest.approx((posterior**2 / q).sum() - 1, rel=0.03)


def relative_variance(joint, q):
    posterior = joint / joint.sum()
    return (posterior**2 / q).sum() - 1


@pytest.mark.parametrize("seed", range(3))
def test_eq_11_3_bias_is_minus_v_over_2s(seed):
    joint, q = table(seed, states=3)
    v = relative_variance(joint, q)
    off = [s * (moments(joint, q, s)[0] - math.log(joint.sum())) + v / 2 for s in (40, 80, 160)]
    assert abs(off[2]) < 0.02 * v + 1e-3
    assert abs(off[1]) < 0.65 * abs(off[0]) and abs(off[2]) < 0.65 * abs(off[1])  # what is left falls like 1/S


@pytest.mark.parametrize("seed", range(3))
def test_eq_11_4_variance_is_v_over_s(seed):
    joint, q = table(seed, states=3)
    v = relative_variance(joint, q)
    off = [s * moments(joint, q, s)[1] - v for s in (40, 80, 160)]
    assert abs(off[2]) < 0.05 * v + 1e-3
    assert abs(off[1]) < 0.65 * abs(off[0]) and abs(off[2]) < 0.65 * abs(off[1])


def test_eq_11_5_effective_sample_size_estimates_v_over_s():
    joint, q = table(1)
    ratios, size = joint / q, 20_000
    w = np.random.default_rng(0).choice(ratios, size=size, p=q)
    ess = w.sum() ** 2 / (w**2).sum()
    assert 1 / ess - 1 / size == pytest.approx(relative_variance(joint, q) / size, rel=0.05)
    sample = w.var() / w.mean() ** 2 / size  # exactly the draws' own relative variance over S
    assert 1 / ess - 1 / size == pytest.approx(sample, rel=1e-9)
    assert 1 <= ess <= size


@pytest.mark.parametrize("r", [0.55, 0.8, 1.0, 2.25, 16.0])
@pytest.mark.parametrize("d", [1, 2])
def test_eq_11_6_cost_of_a_wrong_width(r, d):
    s = 0.7

    def integrand(z):
        return np.exp(2 * stats.norm.logpdf(z, 0, s) - stats.norm.logpdf(z, 0, math.sqrt(r) * s))

    one, _ = integrate.quad(integrand, -40 * s, 40 * s, points=[0.0], limit=500)
    assert one**d == pytest.approx((r / math.sqrt(2 * r - 1)) ** d, rel=1e-5)


def test_eq_11_6_is_infinite_for_narrow_q():
    def partial(reach, r):
        z = np.linspace(-reach, reach, 20_001)
        return np.trapezoid(np.exp(2 * stats.norm.logpdf(z) - stats.norm.logpdf(z, 0, math.sqrt(r))), z)

    assert partial(20, 0.5) == pytest.approx(2 * partial(10, 0.5), rel=1e-6)  # the integrand is constant
    assert partial(20, 0.4) > 1e10 * partial(10, 0.4)
    assert partial(20, 0.6) == pytest.approx(partial(40, 0.6), rel=1e-6)


def test_eq_11_7_spread_over_images_holds_that_of_draws():
    rng = np.random.default_rng(0)
    truth, tau = 20 * rng.standard_normal(400_000), rng.uniform(5, 25, 400_000)
    seen = truth + tau * rng.standard_normal(400_000)
    assert seen.var() == pytest.approx(truth.var() + (tau**2).mean(), rel=0.01)
    images = (truth + tau * rng.standard_normal((1, 400_000))).reshape(4000, 100).mean(1)
    assert images.std() == pytest.approx(seen.std() / math.sqrt(100), rel=0.05)  # nothing to add for the draws


def test_eq_11_8_error_of_a_difference():
    rng = np.random.default_rng(1)
    covariance = np.array([[400.0, 380.0], [380.0, 441.0]])
    rho = 380 / math.sqrt(400 * 441)
    a, b = rng.multivariate_normal([0, 1], covariance, size=(20_000, 50)).transpose(2, 0, 1)
    formula = math.sqrt((400 + 441 - 2 * rho * 20 * 21) / 50)
    assert (a.mean(1) - b.mean(1)).std() == pytest.approx(formula, rel=0.03)
    sigma, n = (a[0].std(ddof=1), b[0].std(ddof=1), np.corrcoef(a[0], b[0])[0, 1]), 50
    sample = math.sqrt((sigma[0] ** 2 + sigma[1] ** 2 - 2 * sigma[2] * sigma[0] * sigma[1]) / n)
    assert sample == pytest.approx(stats.sem(a[0] - b[0]), rel=1e-9)


def test_eq_11_9_activity_is_gaussian_information_and_keeps_under_scaling():
    rng = np.random.default_rng(0)
    mean, noise = 1.7 * rng.standard_normal(500_000), 0.6
    z = mean + noise * rng.standard_normal(500_000)
    correlation = np.corrcoef(mean, z)[0, 1]
    information = -0.5 * math.log(1 - correlation**2)  # of two jointly Gaussian variables
    activity = 0.5 * math.log(1 + mean.var() / noise**2)
    assert activity == pytest.approx(information, rel=0.01)
    assert 0.5 * math.log(1 + (10 * mean).var() / (10 * noise) ** 2) == pytest.approx(activity)


def test_eq_11_9_a_rescaled_model_is_the_same_model():
    torch.manual_seed(0)
    model = VAE(Encoder(6, 2, (8,)), Decoder(2, 6, (8,)), Gaussian(), MixturePrior(3, 2))
    scaled = VAE(Encoder(6, 2, (8,)), nn.Sequential(Decoder(2, 6, (8,))), Gaussian(), MixturePrior(3, 2))
    scaled.encoder.load_state_dict(model.encoder.state_dict())
    scaled.decoder[0].load_state_dict(model.decoder.state_dict())
    with torch.no_grad():
        scaled.encoder.mlp.layers[-1].weight[:2] *= 10
        scaled.encoder.mlp.layers[-1].bias[:2] *= 10
        scaled.encoder.mlp.layers[-1].bias[2:] += 2 * math.log(10)
        scaled.decoder[0].mlp.layers[0].weight /= 10
        scaled.prior.set_parameters(model.prior.weights, 10 * model.prior.means, 100 * model.prior.covariances)
    x = torch.randn(30, 6)
    assert torch.allclose(log_likelihood(scaled, x, 20), log_likelihood(model, x, 20), atol=1e-3)
    with torch.no_grad():
        assert scaled.encode(x)[0].var() > 50 * model.encode(x)[0].var()


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_eq_11_10_only_beta_1_bounds_the_likelihood(beta):
    # A linear-Gaussian model, where all is known: x = z + noise, q = N(m, s^2).
    x, noise, m, s = 1.3, 0.5, 1.0, 0.4
    distortion = 0.5 * math.log(2 * math.pi * noise**2) + ((x - m) ** 2 + s**2) / (2 * noise**2)
    rate = 0.5 * (m**2 + s**2 - 1 - math.log(s**2))
    evidence = -stats.norm.logpdf(x, 0, math.sqrt(1 + noise**2))
    objective = distortion + beta * rate
    assert objective == pytest.approx((distortion + rate) - (1 - beta) * rate)
    assert distortion + rate >= evidence
    assert (objective >= evidence) == (beta >= 1)


@pytest.mark.parametrize("m", [1, 2, 5, 20, 100])
def test_eq_11_11_best_of_many_scores(m):
    z = np.linspace(-9, 9, 20_001)
    density = m * stats.norm.pdf(z) * stats.norm.cdf(z) ** (m - 1)  # of the largest of m
    expected = 110.0 + 1.5 * np.trapezoid(z * density, z)
    bound = 110.0 + 1.5 * math.sqrt(2 * math.log(m))
    assert expected <= bound + 1e-9
    if m > 1:
        assert expected - 110 > 0.45 * (bound - 110)

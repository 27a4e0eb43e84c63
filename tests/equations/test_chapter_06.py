"""Chapter 6's equations, as written there, against brute force, numerical optimization, autograd and torch's KLs."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch.distributions import Binomial, Normal, kl_divergence

from gmvae_lib.data import load
from gmvae_lib.network import Gate
from gmvae_lib.prior import StandardNormal
from gmvae_lib.vae import VAE

N_X, N_Z = 5, 3


def tables(seed):
    """p^(x), q(z|x), p(z), p(x|z) of a small world, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    shapes = ((N_X,), (N_X, N_Z), (N_Z,), (N_Z, N_X))
    return [rng.dirichlet(np.full(shape[-1], 0.7), shape[:-1]) + 1e-9 for shape in shapes]


def normalized(parts):
    return [part / part.sum(-1, keepdims=True) for part in parts]


WORLDS = [normalized(tables(seed)) for seed in range(20)]


def terms(p_hat, q, prior, decoder):
    """D, R, I, H by explicit loops over x and z."""
    marginal = [sum(p_hat[x] * q[x, z] for x in range(N_X)) for z in range(N_Z)]
    d = r = i = 0.0
    for x in range(N_X):
        for z in range(N_Z):
            weight = p_hat[x] * q[x, z]
            d -= weight * math.log(decoder[z, x])
            r += weight * math.log(q[x, z] / prior[z])
            i += weight * math.log(q[x, z] / marginal[z])
    return d, r, i, stats.entropy(p_hat), np.array(marginal)


def test_eq_6_1_distortion_and_rate_are_averages_over_the_data():
    torch.manual_seed(0)
    model, x = VAE.build(64, 3, (8,)), load("digits").x[:20]
    with torch.no_grad():
        mean, log_var = model.encode(x)
        q = Normal(mean, (0.5 * log_var).exp())
        rate = kl_divergence(q, Normal(torch.zeros(3), torch.ones(3))).sum(1).mean()
        draws = q.sample((2000,))
        log_p = Binomial(16, logits=model.decoder(draws)).log_prob(x).sum(-1)
        elbos = [model.elbo(x) for _ in range(2000)]
    assert torch.stack([e.rate.mean() for e in elbos]).mean() == pytest.approx(float(rate), rel=1e-4)
    assert torch.stack([e.distortion.mean() for e in elbos]).mean() == pytest.approx(-float(log_p.mean()), rel=2e-3)


def test_eq_6_2_aggregate_posterior_is_the_codes_distribution():
    p_hat, q, *_ = WORLDS[0]
    rng = np.random.default_rng(0)
    x = rng.choice(N_X, 200_000, p=p_hat)
    z = (rng.random(len(x))[:, None] > q[x].cumsum(1)).sum(1)
    assert np.allclose(np.bincount(z, minlength=N_Z) / len(z), p_hat @ q, atol=0.005)


@pytest.mark.parametrize("world", WORLDS)
def test_eq_6_3_rate_is_information_and_waste(world):
    _, rate, _, _, marginal = terms(*world)
    p_hat, q, prior, _ = world
    joint = p_hat[:, None] * q
    information = stats.entropy(joint.sum(0)) + stats.entropy(p_hat) - stats.entropy(joint.ravel())
    assert rate == pytest.approx(information + stats.entropy(marginal, prior))
    assert rate >= information


@pytest.mark.parametrize("world", WORLDS)
def test_eq_6_4_distortion_is_what_the_code_leaves_open_and_the_decoders_error(world):
    distortion, _, information, entropy, marginal = terms(*world)
    p_hat, q, _, decoder = world
    errors = [stats.entropy(p_hat * q[:, z] / marginal[z], decoder[z]) for z in range(N_Z)]
    assert distortion == pytest.approx(entropy - information + marginal @ errors)


@pytest.mark.parametrize("world", WORLDS)
def test_eq_6_5_information_lies_between(world):
    """And at the best decoder and prior for this encoder, both bounds are reached: they cannot be tighter."""
    distortion, rate, information, entropy, marginal = terms(*world)
    assert entropy - distortion <= information + 1e-12 <= rate + 2e-12
    p_hat, q, *_ = world
    joint = p_hat[:, None] * q
    counted = stats.entropy(joint.sum(0)) + stats.entropy(p_hat) - stats.entropy(joint.ravel())
    distortion, rate, information, *_ = terms(p_hat, q, marginal, joint.T / marginal[:, None])
    assert [entropy - distortion, information, rate] == pytest.approx([counted] * 3, rel=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_eq_6_6_sum_is_the_entropy_and_two_divergences(world):
    distortion, rate, _, entropy, _ = terms(*world)
    p_hat, q, prior, decoder = world
    joint = prior[:, None] * decoder
    model = joint.sum(0)
    gaps = [stats.entropy(q[x], joint[:, x] / model[x]) for x in range(N_X)]
    assert distortion + rate == pytest.approx(entropy + stats.entropy(p_hat, model) + p_hat @ gaps)


def small_best(beta, lam=3.0, sigma2=0.5):
    """The best (rate, distortion) of one Gaussian axis, found numerically over encoder and decoder."""
    def parts(v):  # z = a u + s eps; decoder w z
        a, s2, w = v[0], math.exp(v[1]), v[2]
        rate = 0.5 * (a * a * lam + s2 - 1 - v[1])
        error = lam - 2 * w * a * lam + w * w * (a * a * lam + s2)
        return rate, error / (2 * sigma2)
    found = optimize.minimize(lambda v: parts(v)[1] + beta * parts(v)[0], [0.4, -0.5, 0.5], tol=1e-12)
    return parts(found.x)


def test_eq_6_7_best_objective_lies_below_every_model():
    for beta in (0.3, 1.0, 3.0):
        rate, distortion = small_best(beta)
        for other in (0.1, 0.5, 2.0, 5.0):
            r, d = small_best(other)
            assert distortion + beta * rate <= d + beta * r + 1e-7


def test_eq_6_8_a_higher_price_never_buys_a_longer_code():
    rng = np.random.default_rng(0)
    for _ in range(50):
        models = rng.random((30, 2)) * [3, 5]
        low, high = np.sort(rng.random(2) * 4)
        first, second = (models[(models[:, 1] + beta * models[:, 0]).argmin()] for beta in (low, high))
        assert second[0] <= first[0] and second[1] >= first[1]


def test_eq_6_9_slopes_of_objective_and_curve():
    def best(beta):
        rate, distortion = small_best(beta)
        return distortion + beta * rate
    for beta in (0.4, 1.0, 3.0):
        h = 1e-3
        assert (best(beta + h) - best(beta - h)) / (2 * h) == pytest.approx(small_best(beta)[0], rel=1e-3)
        (r0, d0), (r1, d1) = small_best(beta - 0.01), small_best(beta + 0.01)
        assert (d1 - d0) / (r1 - r0) == pytest.approx(-beta, rel=1e-2)


@pytest.mark.parametrize("beta", [0.2, 1.0, 6.0])
def test_eq_6_10_priced_e_step_is_optimal(beta):
    p_hat, _, prior, decoder = WORLDS[3]
    for x in range(N_X):
        def loss(v, x=x):
            q = np.exp(v - v.max())
            q /= q.sum()
            return q @ (-np.log(decoder[:, x]) + beta * np.log(np.maximum(q, 1e-300) / prior))
        weights = prior * decoder[:, x] ** (1 / beta)
        formula = weights / weights.sum()
        found = optimize.minimize(loss, np.zeros(N_Z), method="Nelder-Mead",
                                  options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
        assert loss(np.log(formula)) <= found.fun + 1e-8


@pytest.mark.parametrize("rate", [0.1, 0.7, 2.0])
def test_eq_6_11_error_falls_exponentially_with_the_rate(rate):
    """The smallest error of regressing u on z, by quadrature, for the code that wastes nothing."""
    lam = 2.5
    s2 = math.exp(-2 * rate)
    a = math.sqrt((1 - s2) / lam)
    assert 0.5 * (a * a * lam + s2 - 1 - math.log(s2)) == pytest.approx(rate)

    def error(w):
        def inner(u):
            return stats.norm.pdf(u, 0, math.sqrt(lam)) * ((u - w * a * u) ** 2 + w * w * s2)
        return integrate.quad(inner, -12, 12)[0]
    assert optimize.minimize_scalar(error, (0, 1)).fun == pytest.approx(lam * math.exp(-2 * rate), rel=1e-5)


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_eq_6_12_reverse_water_filling_is_the_best_split(beta):
    eigenvalues, sigma2 = np.array([4.0, 2.0, 0.6, 0.1]), 0.5
    def loss(r):
        return (eigenvalues * np.exp(-2 * r)).sum() / (2 * sigma2) + beta * r.sum()
    found = optimize.minimize(loss, np.full(4, 0.3), bounds=[(0, None)] * 4, tol=1e-12)
    rates = np.maximum(0, 0.5 * np.log(eigenvalues / (beta * sigma2)))
    assert np.allclose(found.x, rates, atol=1e-4)
    assert np.allclose(eigenvalues * np.exp(-2 * rates), np.minimum(eigenvalues, beta * sigma2))


def whisper(v, w, x, rho):
    """D and R of the whispering encoder and listening decoder, the average over z by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    mean = (x - x.mean(0)) @ v
    z = torch.as_tensor(mean.numpy()[:, None] + nodes)
    logits = torch.logit(rho) + z[..., None] * w
    cost = -Binomial(16, logits=logits, validate_args=False).log_prob(x[:, None]).sum(-1)
    return float((cost @ torch.as_tensor(weights / weights.sum())).mean()), float(0.5 * mean.square().mean())


def setting():
    x = load("digits").x[:300, 18:24].double()
    rho = x.mean(0) / 16
    centered = x - x.mean(0)
    return x, rho, centered.T @ centered / len(x), 16 * rho * (1 - rho)


def test_eq_6_13_distortion_and_rate_near_silence():
    x, rho, c, s = setting()
    generator = torch.Generator().manual_seed(0)
    v, w = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    silent = whisper(0 * v, 0 * w, x, rho)[0]
    for scale in (3e-3, 1e-3):
        distortion, rate = whisper(scale * v, scale * w, x, rho)
        expected = -scale**2 * w @ c @ v + 0.5 * scale**2 * (s * w) @ w
        assert distortion - silent == pytest.approx(float(expected), rel=0.03)
        assert rate == pytest.approx(float(0.5 * scale**2 * v @ c @ v), rel=1e-6)


def test_eq_6_14_silence_is_a_minimum_above_the_threshold_only():
    x, rho, c, s = setting()
    values, vectors = torch.linalg.eigh(c / s.sqrt()[:, None] / s.sqrt())
    threshold = float(values[-1])
    silent = whisper(torch.zeros(6).double(), torch.zeros(6).double(), x, rho)[0]

    def change(v, w, beta):
        distortion, rate = whisper(v, w, x, rho)
        return distortion + beta * rate - silent

    y = vectors[:, -1]  # C v = S^(1/2) y up to scale, and w = S^-1 C v
    v = torch.linalg.solve(c, s.sqrt() * y)
    v = 1e-2 * v / (v @ c @ v).sqrt()
    w = (c @ v) / s
    assert change(v, w, 0.97 * threshold) < 0 < change(v, w, 1.03 * threshold)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):  # no other whisper pays above the threshold, with its best listener
        v = torch.randn(6, generator=generator, dtype=torch.float64)
        v = 1e-2 * v / (v @ c @ v).sqrt()
        assert change(v, (c @ v) / s, 1.03 * threshold) > 0


def test_eq_6_15_free_bits():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(50, 4, generator=generator) * torch.tensor([1.5, 0.5, 0.1, 0.0])
    log_var = -torch.rand(50, 4, generator=generator) * torch.tensor([2.0, 0.5, 0.1, 0.0])
    each = kl_divergence(Normal(mean, (0.5 * log_var).exp()), Normal(torch.zeros(4), torch.ones(4)))
    expected = sum(max(0.3, float(each[:, i].mean())) for i in range(4))
    assert float(StandardNormal(4).rate(mean, log_var, free_bits=0.3).mean()) == pytest.approx(expected, rel=1e-5)
    assert expected > float(each.mean(0).sum())


def test_eq_6_16_gate_turns_at_its_price():
    gate = Gate(3)
    slope, turn = torch.tensor([-2.0, 0.5, 3.0]), torch.tensor([0.1, 4.0, 20.0])
    with torch.no_grad():
        gate.slope.copy_(slope)
        gate.offset.copy_(-slope * turn.log())
    for beta in (0.01, 1.0, 50.0):
        expected = [1 / (1 + math.exp(-s * (math.log(beta) - math.log(b)))) for s, b in zip(slope, turn, strict=True)]
        assert gate(beta)[0].tolist() == pytest.approx(expected, rel=1e-4)
    assert gate(torch.tensor([[0.1], [4.0], [20.0]])).diagonal().tolist() == pytest.approx([0.5] * 3, rel=1e-5)


def test_eq_6_17_loss_is_the_mean_objective_over_log_uniform_prices():
    """Stratified draws of beta, as `fit` takes them, give the integral over log beta by quadrature."""
    from gmvae_lib.training import _spread

    low, high = 0.1, 10.0
    def objective(beta):  # any curve: here a Gaussian axis
        rate = np.maximum(0, 0.5 * np.log(3 / beta))
        return np.minimum(3, beta) / 2 + beta * rate
    beta = _spread(4000, torch.Generator().manual_seed(0), low, high).squeeze(1).double().numpy()
    integral = integrate.quad(lambda t: objective(math.exp(t)), math.log(low), math.log(high), limit=200)[0]
    assert objective(beta).mean() == pytest.approx(integral / math.log(high / low), rel=1e-3)


def test_eq_6_17_each_point_pays_its_own_price_in_full():
    """The gradients of the mean of D + beta R, written out point by point with torch's distributions."""
    torch.manual_seed(0)
    model, x = VAE.build(64, 2, (16,), gated=2.0), load("digits").x[:40]
    beta = torch.logspace(-1, 1, 40)[:, None]
    elbo = model.elbo(x, beta, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(-elbo.value.mean(), list(model.parameters()))
    mean, log_var = model.encoder(x / 16, beta)
    q = Normal(mean, (0.5 * log_var).exp())
    z = mean + q.stddev * torch.randn(mean.shape, generator=torch.Generator().manual_seed(1))
    loss = 0.0
    for i in range(40):
        d = -Binomial(16, logits=model.decoder(z[i:i + 1], beta[i:i + 1])).log_prob(x[i]).sum()
        r = kl_divergence(Normal(q.loc[i], q.stddev[i]), Normal(torch.zeros(2), torch.ones(2))).sum()
        loss = loss + (d + float(beta[i]) * r) / 40
    for ours, theirs in zip(torch.autograd.grad(loss, list(model.parameters())), gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)

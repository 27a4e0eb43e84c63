"""Chapter 12's equations, as written there, against enumeration, simulation, torch's number formats and autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from gmvae_lib.likelihood import DynamicBernoulli
from gmvae_lib.profiling import finish_times
from gmvae_lib.vae import VAE


def pixels(seed, dim=6):
    """Grey levels (D,), among them 0 and 1, and logits (D,)."""
    rng = np.random.default_rng(seed)
    return np.r_[0.0, 1.0, rng.random(dim - 2)], 2 * rng.standard_normal(dim)


def drawn(grey):
    """All 2^D black-and-white images (2^D, D), and the chance of each."""
    bits = np.array(list(itertools.product([0, 1], repeat=len(grey))))
    return bits, stats.bernoulli.pmf(bits, grey).prod(1)


@pytest.mark.parametrize("seed", range(3))
def test_eq_12_1_the_average_over_all_drawn_images(seed):
    grey, logits = pixels(seed)
    bits, chance = drawn(grey)
    assert chance.sum() == pytest.approx(1)
    rho = special.expit(logits)
    inner = (bits * np.log(rho) + (1 - bits) * np.log(1 - rho)).sum(1)               # of Eq. (12.1)
    assert np.allclose(inner, stats.bernoulli.logpmf(bits, rho).sum(1))
    draws = torch.distributions.Bernoulli(torch.tensor(grey)).sample((100_000,)).numpy()
    seen = stats.bernoulli.logpmf(draws, rho).sum(1)
    assert seen.mean() == pytest.approx(chance @ inner, abs=4 * seen.std() / math.sqrt(len(seen)))


@pytest.mark.parametrize("seed", range(3))
def test_eq_12_2_the_average_in_closed_form(seed):
    grey, logits = pixels(seed)
    bits, chance = drawn(grey)
    rho = special.expit(logits)
    truth = chance @ stats.bernoulli.logpmf(bits, rho).sum(1)
    assert special.xlogy(grey, rho).sum() + special.xlogy(1 - grey, 1 - rho).sum() == pytest.approx(truth)
    assert (grey * logits - np.log1p(np.exp(logits))).sum() == pytest.approx(truth)
    ours = DynamicBernoulli().log_prob(255 * torch.tensor(grey)[None], torch.tensor(logits)[None])
    assert float(ours[0]) == pytest.approx(truth)


def world(seed, states=4):
    """A latent of a few states and six pixels: prior and q (states,), logits (states, D), grey levels (D,)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(states)), rng.dirichlet(np.ones(states)), rng.standard_normal((states, 6)), pixels(
        seed)[0]


def sides(seed):
    """Left and right side of Eq. (12.3), and the mean divergence of Eq. (12.4), by enumeration."""
    prior, q, logits, grey = world(seed)
    bits, chance = drawn(grey)
    joint = prior * np.exp(stats.bernoulli.logpmf(bits[:, None], special.expit(logits)).sum(2))
    evidence = joint.sum(1)
    right = q @ (logits @ grey - np.log1p(np.exp(logits)).sum(1)) - stats.entropy(q, prior)
    lost = chance @ [stats.entropy(q, row / row.sum()) for row in joint]
    return chance @ np.log(evidence), right, lost


@pytest.mark.parametrize("seed", range(5))
def test_eq_12_3_a_bound_of_the_drawn_bits_log_probability(seed):
    left, right, _ = sides(seed)
    assert right < left < 0


@pytest.mark.parametrize("seed", range(5))
def test_eq_12_4_the_gap_is_the_mean_divergence(seed):
    left, right, lost = sides(seed)
    assert left - right == pytest.approx(lost)


def test_eq_12_3_is_what_the_library_s_elbo_estimates():
    torch.manual_seed(0)
    model = VAE.build(6, 2, (5,), DynamicBernoulli()).double()
    grey = torch.tensor(pixels(1)[0])[None]
    bits, chance = drawn(grey[0].numpy())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean, log_var = model.encode(255 * grey)
        z = mean + (0.5 * log_var).exp() * torch.randn(20_000, 2, generator=generator).double()
        params = model.decoder(z)
        each = torch.stack([torch.distributions.Bernoulli(logits=params).log_prob(torch.tensor(b).double()).sum(1)
                            for b in bits], 1) @ torch.tensor(chance)
        elbo = model.elbo((255 * grey).repeat(20_000, 1), generator=generator, validate=False)
        assert float(elbo.distortion.mean()) == pytest.approx(-float(each.mean()), rel=0.01)
        assert torch.allclose(elbo.rate, model.prior.rate(mean, log_var), rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_eq_12_5_no_model_is_better_than_the_coins_entropy(seed):
    grey = pixels(seed)[0]
    _, chance = drawn(grey)
    entropy = (special.entr(grey) + special.entr(1 - grey)).sum()
    assert -sides(seed)[0] >= entropy
    assert stats.entropy(chance) == pytest.approx(entropy)  # which the model with rho = g attains


def lanes(seed, n=30):
    rng = np.random.default_rng(seed)
    return rng.exponential(size=n).cumsum(), rng.exponential(0.9, size=n)


@pytest.mark.parametrize("seed", range(4))
def test_eq_12_6_is_a_queue_in_small_time_steps(seed):
    asked, work = (np.round(100 * v).astype(int) + 1 for v in lanes(seed, 12))
    left, current, ends, clock = list(zip(asked, work, strict=True)), 0, [], 0
    while left or current:  # a machine that looks at its queue once a tick
        if not current and left and left[0][0] <= clock:
            current = left.pop(0)[1]
        clock += 1
        if current:
            current -= 1
            if not current:
                ends.append(clock)
    end, found = 0, []
    for s, w in zip(asked, work, strict=True):
        end = max(s, end) + w                                                        # Eq. (12.6)
        found.append(end)
    assert found == ends
    assert np.allclose(finish_times(asked, work), ends)


@pytest.mark.parametrize("seed", range(4))
def test_eq_12_7_the_longest_wait(seed):
    asked, work = lanes(seed)
    closed = [max(asked[j] + work[j:n].sum() for j in range(n)) for n in range(1, len(work) + 1)]
    end = 0.0
    for n, (s, w) in enumerate(zip(asked, work, strict=True)):
        end = max(s, end) + w
        assert end == pytest.approx(closed[n])
    assert np.allclose(finish_times(asked, work), closed)


@pytest.mark.parametrize(("tau", "w"), [(3.0, 0.2), (3.0, 2.9), (1.0, 1.0), (0.5, 4.0)])
def test_eq_12_8_equal_operations_and_the_share_of_work(tau, w):
    for n in (1, 2, 50, 4000):
        end = finish_times(tau * np.arange(1, n + 1), np.full(n, w))[-1]
        assert end == pytest.approx(max(n * tau + w, tau + n * w))
    assert n * w / end == pytest.approx(min(1, w / tau), rel=2e-3)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24)])
def test_eq_12_9_rounding_error_of_a_format(dtype, bits):
    x = torch.logspace(-3, 4, 100_001, dtype=torch.float64)
    error = (x.to(dtype).double() - x).abs() / x
    assert error.max() <= 2.0**-bits
    assert error.max() > 0.95 * 2.0**-bits / (1 + 2.0**-bits)  # and the bound is attained
    assert torch.finfo(dtype).eps == 2.0 ** (1 - bits)


def features(x):
    return np.concatenate([np.einsum("ni,nj->nij", x, x).reshape(len(x), -1), x, np.ones((len(x), 1))], 1)


def test_eq_12_10_statistics_of_shares_add_up():
    rng = np.random.default_rng(0)
    x, resp = rng.standard_normal((90, 3)), rng.dirichlet(np.ones(4), size=90)
    cuts = [5, 37, 60]
    whole = np.array([[sum(resp[n, k] * features(x[n:n + 1])[0] for n in range(90))] for k in range(4)])[:, 0]
    shares = [r.T @ features(p) for p, r in zip(np.split(x, cuts), np.split(resp, cuts), strict=True)]
    assert np.allclose(sum(shares), whole)
    counts, sums = whole[:, -1], whole[:, -4:-1]
    means = sums / counts[:, None]
    assert np.allclose(means, [np.average(x, axis=0, weights=resp[:, k]) for k in range(4)])


@pytest.mark.parametrize("sizes", [(8, 8, 8), (2, 5, 17)])
def test_eq_12_11_gradients_of_shares(sizes):
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)).double()
    x = torch.randn(24, 4, dtype=torch.float64)

    def gradient(part):
        loss = layer(part).square().mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(layer.parameters()))])

    parts = torch.stack([gradient(part) for part in x.split(sizes)])
    weighted = torch.tensor(sizes).double() / 24 @ parts
    assert torch.allclose(weighted, gradient(x), rtol=1e-10)
    assert torch.allclose(parts.mean(0), gradient(x), rtol=1e-10) == (len(set(sizes)) == 1)


def test_eq_12_12_two_steps_are_one_of_twice_the_rate_to_first_order():
    torch.manual_seed(0)
    a, b = torch.randn(2, 10, 3, dtype=torch.float64)

    def slope(theta, batch):
        theta = theta.clone().requires_grad_()
        loss = torch.nn.functional.softplus(batch @ theta).square().mean()
        return torch.autograd.grad(loss, theta)[0]

    def mismatch(eta):
        theta = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
        once = theta - eta * slope(theta, a)
        twice = once - eta * slope(once, b)
        return float((twice - (theta - 2 * eta * slope(theta, torch.cat([a, b])))).norm())

    assert mismatch(1e-3) > 0
    assert mismatch(1e-3) / mismatch(5e-4) == pytest.approx(4, rel=0.01)  # an error of second order

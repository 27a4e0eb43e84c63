"""Chapter 5's equations, as written there, against quadrature, autograd, torch.distributions and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from sklearn.decomposition import PCA
from torch.distributions import (
    Bernoulli,
    Binomial,
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.nn.functional import softplus

X = np.array([0.4, 0.7])  # one point of a toy with two pixels and a nonlinear decoder
SIGMA = 0.6
GRID = np.linspace(-14, 14, 20_001)


def double(*values):
    return [torch.as_tensor(value, dtype=torch.float64) for value in values]


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(z):
    return np.stack([np.sin(2 * z), z**2 / 3], -1)


def log_likelihood(x, z):
    return stats.norm.logpdf(x, decoder(z), SIGMA).sum(-1)


def log_joint(x, z):
    return log_likelihood(x, z) + stats.norm.logpdf(z)


def average(values, mean, sd):
    """E_q[values] on the grid, for q = N(mean, sd²)."""
    return np.trapezoid(stats.norm.pdf(GRID, mean, sd) * values, GRID)


def evidence(x):
    return np.trapezoid(np.exp(log_joint(x, GRID)), GRID)


def test_eq_5_1_marginal_of_the_latent_model_is_the_density_of_its_samples():
    rng = np.random.default_rng(0)
    samples = decoder(rng.standard_normal(200_000)) + SIGMA * rng.standard_normal((200_000, 2))
    low, high = np.array([-0.5, 0.0]), np.array([0.5, 0.8])
    share = ((samples > low) & (samples < high)).all(1).mean()
    nodes = np.linspace(0, 1, 7)
    p = np.array([[evidence(low + (high - low) * np.array([u, v])) for v in nodes] for u in nodes])
    mass = integrate.simpson(integrate.simpson(p, x=nodes), x=nodes) * np.prod(high - low)
    assert mass == pytest.approx(share, abs=5e-3)


@pytest.mark.parametrize(("mean", "sd"), [(0.3, 0.5), (-1.0, 0.2), (0.0, 1.0)])
def test_eq_5_2_evidence_is_the_elbo_plus_the_divergence_from_the_posterior(mean, sd):
    log_q = stats.norm.logpdf(GRID, mean, sd)
    log_posterior = log_joint(X, GRID) - np.log(evidence(X))
    elbo, gap = average(log_joint(X, GRID) - log_q, mean, sd), average(log_q - log_posterior, mean, sd)
    assert elbo + gap == pytest.approx(np.log(evidence(X)), abs=1e-9)
    assert gap > 0 and np.trapezoid(np.exp(log_posterior), GRID) == pytest.approx(1)


def test_eq_5_3_elbo_is_minus_distortion_minus_rate():
    mean, sd = 0.3, 0.5
    log_q = stats.norm.logpdf(GRID, mean, sd)
    distortion = average(-log_likelihood(X, GRID), mean, sd)
    rate = average(log_q - stats.norm.logpdf(GRID), mean, sd)
    assert -distortion - rate == pytest.approx(average(log_joint(X, GRID) - log_q, mean, sd), abs=1e-9)
    assert rate == pytest.approx(float(kl_divergence(Normal(mean, sd), Normal(0.0, 1.0))), abs=1e-6)


def test_eq_5_4_objective_with_beta_one_bounds_the_mean_log_likelihood_and_beta_weighs_the_rate():
    from gmvae_lib.vae import VAE

    torch.manual_seed(0)
    model, x = VAE.build(3, 2, hidden=(4,)), torch.randint(17, (6, 3)).float()
    parts = [model.elbo(x, beta, generator=torch.Generator().manual_seed(1)) for beta in (1.0, 4.0)]
    for beta, elbo in zip((1.0, 4.0), parts, strict=True):
        objective = sum(d + beta * r for d, r in zip(elbo.distortion.tolist(), elbo.rate.tolist(), strict=True)) / 6
        assert -elbo.value.mean().item() == pytest.approx(objective, rel=1e-5)
    points = torch.cartesian_prod(*[torch.linspace(-6, 6, 241)] * 2)  # log p(x) by a grid over the latent plane
    log_p = torch.stack([torch.logsumexp(model.likelihood.log_prob(row, model.decoder(points))
                                         + model.prior.log_prob(points), 0) + 2 * math.log(0.05) for row in x])
    draws = torch.stack([model.elbo(x).value for _ in range(500)]).mean(0)
    assert (draws < log_p).all()


def test_eq_5_5_encoder_s_density_has_its_means_and_independent_variances():
    from gmvae_lib.gaussian import sample_diag
    from gmvae_lib.network import Encoder

    torch.manual_seed(0)
    mean, log_var = Encoder(5, 2, hidden=(8,))(torch.randn(1, 5))
    z = sample_diag(mean.expand(200_000, 2), log_var.expand(200_000, 2), torch.Generator().manual_seed(0))
    assert torch.allclose(z.mean(0), mean[0], atol=0.02)
    assert torch.allclose(torch.cov(z.T), torch.diag(log_var[0].exp()), atol=0.03)
    assert mean.shape == log_var.shape == (1, 2)


def test_eq_5_6_log_density_of_a_diagonal_gaussian():
    z, mu, log_var = randn(3, 20, 4)
    written = -0.5 * (math.log(2 * math.pi) + log_var + (z - mu) ** 2 / log_var.exp()).sum(1)
    oracle = MultivariateNormal(mu, torch.diag_embed(log_var.exp())).log_prob(z)
    assert torch.allclose(written, oracle)


def test_eq_5_7_reparameterized_draw_has_the_density():
    mu, sigma = 0.7, 0.3
    z = mu + sigma * randn(20_000)
    assert stats.kstest(z.numpy(), stats.norm(mu, sigma).cdf).pvalue > 0.01


def test_eq_5_8_gradient_moves_inside_the_average():
    def f(z):
        return torch.sin(2 * z) + z**4

    mu, log_var = (value.requires_grad_() for value in double(0.4, -0.6))
    eps = torch.linspace(-9, 9, 20_001, dtype=torch.float64)  # quadrature: over eps on the right, over z on the left
    weight = Normal(*double(0.0, 1.0)).log_prob(eps).exp() * (eps[1] - eps[0])
    right = torch.autograd.grad((weight * f(mu + (0.5 * log_var).exp() * eps)).sum(), (mu, log_var))

    def left(m, v):
        return average(f(torch.as_tensor(GRID)).numpy(), m, math.exp(0.5 * v))

    h = 1e-4
    assert float(right[0]) == pytest.approx((left(0.4 + h, -0.6) - left(0.4 - h, -0.6)) / (2 * h), rel=1e-5)
    assert float(right[1]) == pytest.approx((left(0.4, -0.6 + h) - left(0.4, -0.6 - h)) / (2 * h), rel=1e-5)


MU, LOG_VAR = randn(2, 6, 3, seed=3)
Q = Independent(Normal(MU, (0.5 * LOG_VAR).exp()), 1)
P = Independent(Normal(torch.zeros_like(MU), torch.ones_like(MU)), 1)


def test_eq_5_9_entropy():
    written = 0.5 * (math.log(2 * math.pi) + LOG_VAR + 1).sum(1)
    assert torch.allclose(written, Q.entropy())


def test_eq_5_10_cross_entropy_with_the_prior():
    written = 0.5 * (math.log(2 * math.pi) + MU**2 + LOG_VAR.exp()).sum(1)
    for row, (mu, log_var) in enumerate(zip(MU.tolist(), LOG_VAR.tolist(), strict=True)):
        terms = [average(-stats.norm.logpdf(GRID), m, math.exp(v / 2)) for m, v in zip(mu, log_var, strict=True)]
        assert float(written[row]) == pytest.approx(sum(terms), rel=1e-6)


def test_eq_5_11_rate_in_closed_form():
    from gmvae_lib.prior import StandardNormal

    written = 0.5 * (MU**2 + LOG_VAR.exp() - 1 - LOG_VAR).sum(1)
    assert torch.allclose(written, kl_divergence(Q, P))
    draws = Q.sample((100_000,))
    assert torch.allclose(written, (Q.log_prob(draws) - P.log_prob(draws)).mean(0), rtol=0.02)
    assert torch.allclose(written, StandardNormal(3).rate(MU, LOG_VAR))


def test_eq_5_12_bernoulli_log_likelihood_in_both_forms():
    a = 3 * randn(10, 8)
    x = Bernoulli(logits=a).sample()
    rho = 1 / (1 + torch.exp(-a))
    first = (x * rho.log() + (1 - x) * (1 - rho).log()).sum(1)
    second = (x * a - softplus(a)).sum(1)
    assert torch.allclose(first, second) and torch.allclose(second, Bernoulli(logits=a).log_prob(x).sum(1))


def test_eq_5_13_binomial_log_likelihood():
    a = 2 * randn(10, 8)
    x = Binomial(16, logits=a).sample()
    choices = torch.tensor([[math.log(math.comb(16, int(k))) for k in row] for row in x], dtype=torch.float64)
    written = (choices + x * a - 16 * softplus(a)).sum(1)
    assert np.allclose(written, stats.binom.logpmf(x, 16, torch.sigmoid(a)).sum(1))
    # 4 trials by enumeration: x successes can be arranged in C(4, x) ways.
    rho = 0.3
    for k in range(5):
        ways = sum(rho**sum(bits) * (1 - rho) ** (4 - sum(bits))
                   for bits in itertools.product((0, 1), repeat=4) if sum(bits) == k)
        logit = torch.logit(torch.tensor(rho, dtype=torch.float64))
        assert math.log(math.comb(4, k)) + k * logit - 4 * softplus(logit) == pytest.approx(math.log(ways))


def test_eq_5_14_gaussian_log_likelihood():
    x, x_hat = randn(2, 10, 7)
    sigma = 0.4
    written = -((x - x_hat) ** 2).sum(1) / (2 * sigma**2) - 7 * math.log(sigma) - 3.5 * math.log(2 * math.pi)
    assert torch.allclose(written, Normal(x_hat, sigma).log_prob(x).sum(1))


def test_eq_5_15_best_noise_is_the_mean_squared_error():
    x, x_hat = randn(2, 30, 5)
    sigma2 = ((x - x_hat) ** 2).sum() / (30 * 5)
    found = optimize.minimize_scalar(lambda s: -float(Normal(x_hat, math.exp(s)).log_prob(x).sum()), bounds=(-3, 3),
                                     method="bounded", options={"xatol": 1e-10})
    assert math.exp(2 * found.x) == pytest.approx(float(sigma2), rel=1e-6)


def test_eq_5_16_squared_error_with_a_weight_fixes_the_noise():
    x, x_hat = randn(2, 30, 5)
    rate = randn(30, seed=9).exp()
    for sigma2 in (0.1, 0.5, 2.0):
        scaled = 2 * sigma2 * (-Normal(x_hat, math.sqrt(sigma2)).log_prob(x).sum(1) + rate)
        rest = scaled - ((x - x_hat) ** 2).sum(1) - 2 * sigma2 * rate
        assert torch.allclose(rest, rest[:1].expand(30))


def test_eq_5_17_density_changes_with_the_unit():
    y = MultivariateNormal(randn(3), torch.eye(3, dtype=torch.float64) * 0.4 + 0.2)
    x = MultivariateNormal(16 * y.mean, 16**2 * y.covariance_matrix)  # of x = 16 y
    points = 16 * y.sample((20,))
    assert torch.allclose(x.log_prob(points), y.log_prob(points / 16) - 3 * math.log(16))


def bin_share(x, x_hat, sigma):
    return Normal(x_hat, sigma).cdf(x + 0.5) - Normal(x_hat, sigma).cdf(x - 0.5)


def test_eq_5_18_rounding_gives_each_bin_what_the_density_holds_there():
    x_hat, sigma = torch.tensor([2.2, 7.9, -0.4]).double(), 1.3
    draws = (x_hat + sigma * randn(400_000, 3)).round()
    for x in ([2.0, 8.0, 0.0], [3.0, 7.0, -1.0]):
        cells = [integrate.quad(lambda u, k=k, m=m: stats.norm.pdf(k + u, m, sigma), -0.5, 0.5)[0]
                 for k, m in zip(x, x_hat.tolist(), strict=True)]
        written = bin_share(torch.tensor(x).double(), x_hat, sigma).prod()
        assert float(written) == pytest.approx(math.prod(cells), rel=1e-9)
        assert float((draws == torch.tensor(x)).all(1).double().mean()) == pytest.approx(float(written), abs=2e-3)


def test_eq_5_19_average_log_density_of_a_dequantized_pixel_bounds_its_log_probability():
    u = np.linspace(-0.5, 0.5, 2001)
    for pdf in (stats.norm(0.3, 0.4).pdf, stats.laplace(0.1, 0.3).pdf, stats.t(2, 1.0, 0.2).pdf):
        for x in (0, 1, 3):
            left = math.log(integrate.quad(lambda v, pdf=pdf, x=x: pdf(x + v), -0.5, 0.5, points=(0.1, 0.3))[0])
            right = np.trapezoid(np.log(pdf(x + u)), u)
            assert right <= left
            assert left - right < 0.5 * np.ptp(np.log(pdf(x + u)))  # and is no trivial bound


def test_eq_5_20_dequantized_gaussian_loses_a_twenty_fourth_of_the_precision():
    x, x_hat, sigma = *randn(2, 3), 0.7
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact for the polynomial that log N(x + u) is
    average = sum(w / 2 * Normal(x_hat, sigma).log_prob(x + u / 2).sum() for u, w in zip(nodes, weights, strict=True))
    assert torch.isclose(average, Normal(x_hat, sigma).log_prob(x).sum() - 3 / (24 * sigma**2))


def test_eq_5_21_rounding_and_clipping_gives_probabilities_of_17_levels():
    edges = np.array([-math.inf, *(k - 0.5 for k in range(1, 17)), math.inf])
    for x_hat, sigma in ((-3.0, 4.0), (8.2, 1.5), (17.0, 3.0)):
        cdf = torch.as_tensor(stats.norm.cdf(edges, x_hat, sigma))
        written = cdf[1:] - cdf[:-1]
        draws = (x_hat + sigma * randn(400_000)).round().clamp(0, 16)
        assert torch.allclose(draws.long().bincount(minlength=17).double() / 400_000, written, atol=4e-3)
        assert float(written.sum()) == pytest.approx(1)
        assert (written >= bin_share(torch.arange(17).double(), *double(x_hat, sigma)) - 1e-12).all()


def test_eq_5_22_bits_cost_less_than_the_levels_by_what_the_levels_add():
    rng = np.random.default_rng(0)
    joint = rng.dirichlet(np.ones(25)).reshape(5, 5)  # two pixels of five levels; a bit says whether one is above 2
    bit = np.arange(5) > 2
    for i, j in itertools.product(range(5), repeat=2):
        bits = joint[np.ix_(bit == bit[i], bit == bit[j])].sum()
        conditional = joint[i, j] / bits
        others = joint[np.ix_(bit == bit[i], bit == bit[j])] / bits
        assert math.log(joint[i, j]) == pytest.approx(math.log(bits) + math.log(conditional))
        assert others.sum() == pytest.approx(1) and math.log(conditional) <= 0


TOY = np.array([0.1, 0.8])  # the chapter's own toy, with the decoder (z/4, z²/2) and the noise 0.3


@pytest.mark.parametrize(("m", "s"), [(1.2, 0.25), (0.0, 1.0), (-0.6, 0.4)])
def test_eq_5_23_mean_squared_error_of_a_polynomial_decoder_in_closed_form(m, s):
    (x1, x2), sigma = TOY, 0.3
    written = x1**2 - x1 * m / 2 + (m**2 + s**2) / 16 + x2**2 - x2 * (m**2 + s**2)
    written += (m**4 + 6 * m**2 * s**2 + 3 * s**4) / 4
    pixels = np.stack([GRID / 4, GRID**2 / 2], -1)
    assert written == pytest.approx(average(((TOY - pixels) ** 2).sum(-1), m, s), rel=1e-8)
    distortion = written / (2 * sigma**2) + math.log(2 * math.pi * sigma**2)
    assert distortion == pytest.approx(average(-stats.norm.logpdf(TOY, pixels, sigma).sum(-1), m, s), rel=1e-8)


def ratios(n, mean=0.3, sd=0.5):
    z = mean + sd * np.random.default_rng(0).standard_normal(n)
    return log_joint(X, z) - stats.norm.logpdf(z, mean, sd)


def bound(log_ratio, size):  # the mean over many groups of `size` draws
    return float(np.mean(np.logaddexp.reduce(log_ratio.reshape(-1, size), axis=1) - math.log(size)))


def test_eq_5_24_importance_weighted_bound_stays_below_the_evidence_and_reaches_it():
    log_ratio, truth = ratios(1_000_000), np.log(evidence(X))
    assert float(np.exp(log_ratio).mean()) == pytest.approx(evidence(X), rel=0.03)  # the mean of the ratios
    assert bound(log_ratio, 1) < bound(log_ratio, 1000) < truth + 5e-3
    assert bound(log_ratio, 1_000_000) == pytest.approx(truth, abs=0.03)


def test_eq_5_25_bound_rises_from_the_elbo_with_each_draw():
    elbo = average(log_joint(X, GRID) - stats.norm.logpdf(GRID, 0.3, 0.5), 0.3, 0.5)
    assert bound(ratios(1_000_000), 1) == pytest.approx(elbo, abs=0.02)
    values, p = np.array([0.1, 0.7, 3.0]), np.array([0.5, 0.3, 0.2])  # ratios that take three values: by enumeration
    exact = [sum(math.prod(p[[*c]]) * math.log(values[[*c]].mean()) for c in itertools.product(range(3), repeat=size))
             for size in range(1, 8)]
    assert all(a < b for a, b in zip(exact, exact[1:])) and exact[-1] < math.log(p @ values)
    draws = np.exp(ratios(8))  # and the proof's inequality, draw by draw
    left_out = [np.log(np.delete(draws, j).mean()) for j in range(8)]
    assert np.log(draws.mean()) >= np.mean(left_out)


def ppca():
    data = randn(300, 6, seed=11) @ torch.diag(torch.tensor([3.0, 2.0, 1.2, 1.0, 0.9, 0.6]).double()) @ randn(6, 6)
    centered = data - data.mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / len(data))
    values, vectors = values.flip(0), vectors.flip(1)
    sigma2 = values[2:].sum() / (6 - 2)
    return data, values, sigma2, vectors[:, :2] @ torch.diag((values[:2] - sigma2).sqrt())


def test_eq_5_26_maximum_likelihood_of_ppca_has_no_rival():
    data, _, sigma2, best = ppca()
    parameters = [t.clone().requires_grad_() for t in (data.mean(0), best, sigma2)]

    def likelihood(b, w, s2):
        return MultivariateNormal(b, w @ w.T + s2 * torch.eye(6)).log_prob(data).mean()

    value = likelihood(*parameters)
    for gradient in torch.autograd.grad(value, parameters):
        assert gradient.abs().max() < 1e-6
    for seed in range(50):
        rival = [p.detach() + 0.1 * randn(*p.shape, seed=seed) * p.detach().abs().mean() for p in parameters]
        assert likelihood(*rival) < value
    _, values, _, _ = ppca()
    other = torch.linalg.eigh(torch.cov(data.T, correction=0)).eigenvectors.flip(1)[:, [0, 2]]  # other axes do worse
    left = (values.sum() - values[0] - values[2]) / 4
    worse = likelihood(data.mean(0), other * (values[[0, 2]] - left).clamp_min(0).sqrt(), left)
    assert worse < value - 0.01


def test_eq_5_27_maximum_in_closed_form():
    data, values, sigma2, best = ppca()
    written = -0.5 * (6 * math.log(2 * math.pi) + values[:2].log().sum() + (6 - 2) * sigma2.log() + 6)
    model = MultivariateNormal(data.mean(0), best @ best.T + sigma2 * torch.eye(6))
    assert torch.isclose(written, model.log_prob(data).mean())
    assert float(written) == pytest.approx(PCA(2).fit(data.numpy()).score(data.numpy()), abs=0.02)  # it has N - 1


def test_eq_5_27_maximum_is_what_a_linear_vae_reaches():
    from gmvae_lib.data import load
    from gmvae_lib.likelihood import Gaussian
    from gmvae_lib.network import Decoder, Encoder
    from gmvae_lib.training import fit
    from gmvae_lib.vae import VAE

    data = (load("digits").x / 16).double()
    centered = data - data.mean(0)
    values = torch.linalg.eigvalsh(centered.T @ centered / len(data)).flip(0)
    sigma2 = values[2:].mean()
    maximum = -0.5 * (64 * math.log(2 * math.pi) + values[:2].log().sum() + 62 * sigma2.log() + 64)
    torch.manual_seed(1)  # another seed than the chapter's
    model = VAE(Encoder(64, 2, hidden=()), Decoder(2, 64, hidden=()), Gaussian())
    for epochs, lr in ((500, 5e-2), (200, 5e-3)):
        fit(model, data, epochs=epochs, lr=lr, batch_size=len(data), device="cpu", progress=False)
    with torch.no_grad():
        bound = torch.stack([model.elbo(data).value.mean() for _ in range(200)]).mean()
    total = 64 * math.log(16) - maximum  # in grey levels: about 177 nats
    assert -0.02 < float(maximum - bound) < 1e-3 * float(total)


def test_eq_5_28_mean_over_pixels_is_beta_64():
    from gmvae_lib.vae import VAE

    torch.manual_seed(0)
    model, x = VAE.build(64, 2, hidden=(8,)), torch.randint(17, (10, 64)).float()

    def gradient(loss):
        return torch.cat([g.ravel() for g in torch.autograd.grad(loss, model.parameters())])

    elbo = model.elbo(x, generator=torch.Generator().manual_seed(0))
    averaged = gradient((elbo.distortion / 64 + elbo.rate).mean())
    elbo = model.elbo(x, beta=64.0, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(64 * averaged, gradient(-elbo.value.mean()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rho", [0.01, 0.3, 0.49, 0.8, 0.999])
def test_eq_5_29_bernoulli_on_grey_pixels_does_not_integrate_to_one(rho):
    total = integrate.quad(lambda x: rho**x * (1 - rho) ** (1 - x), 0, 1)[0]
    a = math.log(rho / (1 - rho))
    assert total == pytest.approx((1 - rho) * (math.exp(a) - 1) / a)
    assert total == pytest.approx((2 * rho - 1) / (math.log(rho) - math.log(1 - rho)))
    assert total <= 0.5
    assert sum(rho ** (k / 16) * (1 - rho) ** (1 - k / 16) for k in range(17)) <= 8.5

"""The mixture that moves with a style, against quadrature, torch.distributions and the mixture that stands still."""

import copy

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.gaussian import kl_standard, log_prob_diag
from gmvae_lib.likelihood import Gaussian
from gmvae_lib.moving_mixture import CodeDecoder, MovingMixture
from gmvae_lib.network import Encoder
from gmvae_lib.prior import MixturePrior, StandardNormal
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


def dice(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def moving(n_components=3, code_dim=1, style_dim=1, device="cpu", seed=0):
    """One whose components move visibly, with unequal weights, in float64."""
    torch.manual_seed(seed)
    prior = MovingMixture(n_components, code_dim, style_dim, (8,), spread=2.0).double()
    with torch.no_grad():
        prior.logits.copy_(torch.linspace(-0.5, 0.7, n_components))
        for layer in prior.mlp.layers:
            layer.weight.mul_(1.5)
    return prior.to(device)


def given(prior, w):
    """p(z | w) by torch.distributions, with the network called by hand."""
    out = prior.mlp(w)
    d, K = prior.code_dim, prior.n_components
    mean, log_var = out[..., :K * d].unflatten(-1, (K, d)), out[..., K * d:].unflatten(-1, (K, d))
    return MixtureSameFamily(Categorical(logits=prior.logits.expand(*w.shape[:-1], K)),
                             Independent(Normal(mean, (0.5 * log_var).exp()), 1))


def encoded(n, dim, device="cpu", seed=1):
    mean, log_var = torch.randn(2, n, dim, generator=dice(seed), dtype=torch.float64)
    return mean.to(device), (log_var - 1).to(device)


def grid(low=-12.0, high=12.0, n=601):
    axis = torch.linspace(low, high, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_density_is_a_mixture_given_the_style_times_the_styles(device):
    prior, v = moving(4, 3, 2, device), encoded(7, 5, device)[0]
    z, w = v[:, :3], v[:, 3:]
    expected = given(prior, w).log_prob(z) + Normal(0.0, 1.0).log_prob(w).sum(1)
    assert torch.allclose(prior.log_prob(v), expected)
    assert torch.allclose(prior.weights, prior.logits.softmax(0))


def test_density_integrates_to_one_and_samples_agree_with_it():
    prior = moving()
    points, area = grid()
    with torch.no_grad():
        p = prior.log_prob(points).exp() * area
        assert p.sum().item() == pytest.approx(1, abs=1e-4)
        draws = prior.sample(100_000, generator=dice())
    mean = p @ points
    second = (points.T * p) @ points
    assert torch.allclose(draws.mean(0), mean, atol=0.04)
    assert torch.allclose(draws.T @ draws / len(draws), second, rtol=0.03, atol=0.06)
    assert abs((second - mean[:, None] * mean)[0, 1]) > 0.1  # code and style do go together


def test_samples_of_one_component_agree_with_it():
    prior = moving()
    with torch.no_grad():
        z, w = prior.sample(50_000, 2, dice()).T
        means, _ = prior.components(w.unsqueeze(1))
        assert (z.mean() - means[:, 2, 0].mean()).abs() < 0.04
        assert (z - means[:, 2, 0]).mean().abs() < 0.04


def test_exact_rate_agrees_with_quadrature_and_is_the_lowest():
    prior, (mean, log_var) = moving(), encoded(4, 2)
    points, area = grid()
    with torch.no_grad():
        log_q = log_prob_diag(points.unsqueeze(1), mean, log_var)
        truth = (log_q.exp() * (log_q - prior.log_prob(points).unsqueeze(1))).sum(0) * area
        many = mean.repeat(20_000, 1), log_var.repeat(20_000, 1)
        rates = {method: prior.rate(*many, method, generator=dice()).reshape(20_000, 4).mean(0)
                 for method in ("exact", "collapsed", "joint")}
        resp = torch.full((80_000, 3), 1 / 3, dtype=torch.float64)
        uniform = prior.rate(*many, "joint", resp, generator=dice()).reshape(20_000, 4).mean(0)
    assert torch.allclose(rates["exact"], truth, rtol=0.03, atol=0.03)
    assert (truth < rates["collapsed"] + 0.03).all() and (rates["collapsed"] < uniform).all()
    assert torch.allclose(rates["collapsed"], rates["joint"])  # with the best shares for each style


def still(n_components=3, code_dim=2, style_dim=2):
    """A moving mixture that does not move, and the `MixturePrior` that it is."""
    prior, twin = moving(n_components, code_dim, style_dim), MixturePrior(n_components, code_dim).double()
    with torch.no_grad():
        prior.mlp.layers[-1].weight.zero_()
        means, log_var = (value[0] for value in prior.components(torch.zeros(1, style_dim, dtype=torch.float64)))
        twin.set_parameters(prior.weights, means, log_var.exp())
    return prior, twin


@pytest.mark.parametrize("method", ["exact", "collapsed", "joint"])
def test_one_that_stands_still_is_the_plain_mixture_and_a_price_for_the_style(method):
    prior, twin = still()
    mean, log_var = encoded(6, 4)
    z, w = (mean[:, :2], log_var[:, :2]), (mean[:, 2:], log_var[:, 2:])
    with torch.no_grad():
        repeated = mean.repeat(20_000, 1), log_var.repeat(20_000, 1)
        ours = prior.rate(*repeated, method, generator=dice()).reshape(20_000, 6)
        theirs = twin.rate(*(value.repeat(20_000, 1) for value in z), method, generator=dice(1)).reshape(20_000, 6)
    tolerance = 6 * (ours.std(0) / 20_000**0.5) + 1e-6  # of the exact rate, which draws
    assert ((ours.mean(0) - theirs.mean(0) - kl_standard(*w)).abs() < tolerance).all()
    assert torch.allclose(prior.responsibilities(mean, log_var), twin.responsibilities(*z), atol=1e-6)
    with torch.no_grad():  # and a style that the encoder leaves at p(w) costs nothing
        mean[:, 2:], log_var[:, 2:] = 0, 0
        assert torch.allclose(prior.rate(mean, log_var), twin.rate(*z), atol=1e-6)


def test_one_component_that_stands_still_is_the_standard_normal():
    prior = MovingMixture(1, 3, 2)
    with torch.no_grad():
        prior.mlp.layers[-1].weight.zero_()
        prior.mlp.layers[-1].bias.zero_()
    mean, log_var = (value.float() for value in encoded(5, 5))
    assert torch.allclose(prior.rate(mean, log_var), StandardNormal(5).rate(mean, log_var), rtol=1e-5)
    assert torch.allclose(prior.log_prob(mean), StandardNormal(5).log_prob(mean), rtol=1e-5)


def test_bound_is_below_the_evidence_and_many_draws_reach_it():
    """One pixel, linear: for each style p(x | w) is a mixture of Gaussians, and the style is summed by quadrature."""
    torch.manual_seed(0)
    prior = moving().float()
    model = VAE(Encoder(1, 2, ()), CodeDecoder(1, 1, ()), Gaussian(0.5), prior)
    x = torch.tensor([[-1.0], [-0.5], [0.3]])
    w = torch.linspace(-8, 8, 801).unsqueeze(1)
    layer, = model.decoder.mlp.layers
    with torch.no_grad():
        means, log_var = prior.components(w)
        spread = (layer.weight**2 * log_var.exp()[..., 0] + model.likelihood.sigma**2).sqrt()
        each = Normal(means[..., 0] * layer.weight[0, 0] + layer.bias, spread).log_prob(x.unsqueeze(1))
        given_w = torch.logsumexp(prior.weights.log() + each, 2)
        truth = torch.logsumexp(given_w + Normal(0.0, 1.0).log_prob(w[:, 0]), 1) + (w[1, 0] - w[0, 0]).log()
        model.encoder.mlp.layers[0].weight.zero_()  # a wide q, for importance sampling
        model.encoder.mlp.layers[0].bias.copy_(torch.tensor([0.0, 0.0, 1.5, 0.5]))
        for method in ("exact", "collapsed"):
            values = model.elbo(x.repeat(2000, 1), method=method).value.reshape(2000, 3)
            assert (values.mean(0) < truth + 4 * values.std(0) / 2000**0.5).all()
        found = log_likelihood(model, x, 50_000)
    assert torch.allclose(found, truth, atol=0.05)


def test_groups_of_views_share_a_component_and_have_styles_of_their_own():
    prior, (mean, log_var) = moving(3, 2, 2), encoded(6, 4)
    grouped = mean.reshape(3, 2, 4), log_var.reshape(3, 2, 4)
    assert torch.allclose(prior.log_prob(mean.unsqueeze(1)), prior.log_prob(mean))
    z, w = grouped[0][..., :2], grouped[0][..., 2:]
    means, log_vars = prior.components(w)
    each = log_prob_diag(z.unsqueeze(2), means, log_vars).sum(1) + prior.weights.log()
    expected = torch.logsumexp(each, 1) + Normal(0.0, 1.0).log_prob(w).sum((1, 2))
    assert torch.allclose(prior.log_prob(grouped[0]), expected)
    a = prior.rate(mean.unsqueeze(1), log_var.unsqueeze(1), generator=dice())
    assert torch.allclose(a, prior.rate(mean, log_var, generator=dice()))
    prior, twin = still()
    z, w = ([value[..., part] for value in grouped] for part in (slice(2), slice(2, 4)))
    assert torch.allclose(prior.rate(*grouped), twin.rate(*z) + kl_standard(*w).mean(1), atol=1e-6)
    assert torch.allclose(prior.responsibilities(*grouped), twin.responsibilities(*z), atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "collapsed"])
def test_fit_trains_dilokthanakuls_model(method, device):
    x = load("digits").x[:256]
    torch.manual_seed(0)
    model = VAE(Encoder(64, 6, (32,)), CodeDecoder(4, 64, (32,)), prior=MovingMixture(5, 4, 2))
    before = copy.deepcopy(model.prior.state_dict())
    history = fit(model, x, epochs=15, lr=1e-2, method=method, device=device, progress=False)
    loss = [d + r for d, r in zip(history.distortion, history.rate, strict=True)]
    assert loss[-1] < 0.8 * loss[0]
    assert all(not torch.equal(value.cpu(), before[name]) for name, value in model.prior.state_dict().items())
    resp = model.responsibilities(x)
    assert resp.shape == (256, 5) and torch.allclose(resp.sum(1).cpu(), torch.ones(256))
    assert model.sample(3, component=1).shape == model.reconstruct(x[:3]).shape == (3, 64)


def test_the_decoder_does_not_see_the_style():
    decoder = CodeDecoder(4, 9, (8,))
    v = torch.randn(5, 6)
    assert torch.equal(decoder(v), decoder(torch.cat([v[:, :4], 100 * torch.ones(5, 2)], 1)))


def test_variances_are_floored_and_free_bits_are_a_floor():
    prior = moving()
    with torch.no_grad():
        prior.mlp.layers[-1].bias.fill_(-50)
    assert prior.components(torch.zeros(1, 1, dtype=torch.float64))[1].exp().min() >= 0.99e-4
    mean, log_var = encoded(4, 2)
    assert prior.rate(mean, log_var, free_bits=1e9).eq(1e9).all()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="n_components is 0, code_dim 2 and style_dim 1: each must be at least 1"):
        MovingMixture(0, 2, 1)
    with pytest.raises(ValueError, match="style_dim 0"):
        MovingMixture(3, 2, 0)
    prior = MovingMixture(3, 2, 1)
    with pytest.raises(ValueError, match="component is 3: choose 0 to 2"):
        prior.sample(2, 3)
    with pytest.raises(ValueError, match="method is 'gumbel': choose one of"):
        prior.rate(torch.zeros(2, 3), torch.zeros(2, 3), "gumbel")
    model = VAE(Encoder(64, 3, ()), CodeDecoder(2, 64, ()), prior=prior)
    with pytest.raises(ValueError, match="has no M-step"):
        fit(model, load("digits").x[:64], epochs=1, prior_update="em", device="cpu")

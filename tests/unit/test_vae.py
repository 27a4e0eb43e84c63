"""The VAE against models whose log-likelihood has a formula."""

import copy

import pytest
import torch
from torch.distributions import Binomial, MultivariateNormal

from gmvae_lib.data import load
from gmvae_lib.likelihood import Bernoulli, Gaussian
from gmvae_lib.prior import MixturePrior, StandardNormal
from gmvae_lib.vae import VAE, Elbo


def linear_gaussian(dim=5, latent=2, prior=None, seed=0):
    """A VAE with linear maps and Gaussian noise: probabilistic PCA, whose log p(x) is known."""
    torch.manual_seed(seed)
    return VAE.build(dim, latent, (), Gaussian(0.5), prior)


def log_evidence(model, x):
    """log p(x) of a linear-Gaussian model, component by component of its prior."""
    layer, = model.decoder.mlp.layers
    w, noise = layer.weight, model.likelihood.sigma**2 * torch.eye(x.shape[1])
    if isinstance(model.prior, StandardNormal):
        return MultivariateNormal(layer.bias, w @ w.T + noise).log_prob(x)
    covariances = model.prior.covariances
    covariances = torch.diag_embed(covariances) if covariances.ndim == 2 else covariances
    parts = MultivariateNormal(model.prior.means @ w.T + layer.bias, w @ covariances @ w.T + noise)
    return torch.logsumexp(model.prior.weights.log() + parts.log_prob(x.unsqueeze(1)), 1)


def set_posterior(model):
    """Makes the encoder of a probabilistic PCA exact: possible for orthogonal columns, so the decoder gets those."""
    encoder, decoder = model.encoder.mlp.layers[0], model.decoder.mlp.layers[0]
    variance, latent = model.likelihood.sigma**2, model.encoder.latent_dim
    with torch.no_grad():
        decoder.weight.copy_(torch.linalg.qr(decoder.weight)[0] * torch.tensor([1.5, 0.7]))
        precision = (decoder.weight.T @ decoder.weight).diagonal() / variance + 1
        encoder.weight.zero_()
        encoder.weight[:latent] = decoder.weight.T / variance / precision[:, None]
        encoder.bias[:latent] = -encoder.weight[:latent] @ decoder.bias
        encoder.bias[latent:] = -precision.log()


PRIORS = {"standard": lambda: None, "diag": lambda: MixturePrior(3, 2), "full": lambda: MixturePrior(3, 2, "full")}


@pytest.mark.parametrize("kind", PRIORS)
@pytest.mark.parametrize("seed", range(3))
def test_elbo_is_a_lower_bound_of_the_log_evidence(kind, seed):
    model = linear_gaussian(prior=PRIORS[kind](), seed=seed)
    x = torch.randn(40, 5)
    with torch.no_grad():
        values = torch.stack([model.elbo(x).value for _ in range(400)])
        truth = log_evidence(model, x)
    error = 4 * values.std(0) / 20
    assert (values.mean(0) <= truth + error).all()


def test_elbo_is_tight_for_the_exact_posterior():
    model, x = linear_gaussian(), torch.randn(40, 5)
    set_posterior(model)
    with torch.no_grad():
        values = torch.stack([model.elbo(x).value for _ in range(2000)])
        assert torch.allclose(values.mean(0), log_evidence(model, x), atol=0.1)


def test_elbo_by_hand():
    x = load("digits").x[:20]
    model = VAE.build(64, 3, (16,))
    elbo = model.elbo(x, beta=2.5, generator=torch.Generator().manual_seed(5))
    mean, log_var = model.encoder(x / 16)
    z = mean + (0.5 * log_var).exp() * torch.randn(20, 3, generator=torch.Generator().manual_seed(5))
    distortion = -Binomial(16, logits=model.decoder(z)).log_prob(x).sum(1)
    rate = 0.5 * (mean**2 + log_var.exp() - log_var - 1).sum(1)
    assert torch.allclose(elbo.distortion, distortion, rtol=1e-5) and torch.allclose(elbo.rate, rate, rtol=1e-4)
    assert torch.allclose(elbo.value, -(distortion + 2.5 * rate), rtol=1e-5)


def test_beta_weighs_the_rate_of_each_point():
    beta = torch.tensor([[0.5], [2.0]])
    assert Elbo(torch.ones(2), torch.ones(2), beta.squeeze(1)).value.tolist() == [-1.5, -3.0]
    model = VAE.build(64, 3, (16,), gated=True)
    elbo = model.elbo(load("digits").x[:2], beta)
    assert torch.allclose(elbo.value, -(elbo.distortion + beta[:, 0] * elbo.rate))


def test_half_precision_reaches_the_networks_but_not_the_sums():
    """In bfloat16 a rate has two and a half digits."""
    x = load("digits").x[:256]
    for prior in (None, MixturePrior(5, 8), MixturePrior(5, 8, "full")):
        model = VAE.build(64, 8, (32,), prior=prior)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            elbo = model.elbo(x, generator=torch.Generator().manual_seed(0))
            mean, log_var = (v.float() for v in model.encode(x))
        assert elbo.rate.dtype == elbo.distortion.dtype == torch.float32
        assert torch.allclose(elbo.rate, model.prior.rate(mean, log_var), rtol=1e-5)


def test_one_fixed_component_is_the_plain_vae():
    x = load("digits").x[:50]
    plain = VAE.build(64, 3, (16,))
    mixed = VAE(plain.encoder, plain.decoder, plain.likelihood, MixturePrior(1, 3, spread=0.0))
    a, b = (m.elbo(x, generator=torch.Generator().manual_seed(0)) for m in (plain, mixed))
    assert torch.allclose(a.value, b.value, rtol=1e-6)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_responsibilities_sum_to_one_and_predict_takes_the_largest(kind):
    x = load("digits").x[:100]
    model = VAE.build(64, 3, (16,), prior=MixturePrior(7, 3, kind))
    resp = model.responsibilities(x)
    assert resp.shape == (100, 7) and torch.allclose(resp.sum(1), torch.ones(100)) and not resp.requires_grad
    assert model.predict(x).equal(resp.argmax(1))


def test_samples_and_reconstructions_are_pixels():
    x = load("digits").x[:10]
    model = VAE.build(64, 3, (16,), prior=MixturePrior(4, 3))
    assert model.reconstruct(x).shape == (10, 64) and not model.reconstruct(x).requires_grad
    means, draws = model.sample(20, component=2), model.sample(20, noise=True)
    assert means.shape == draws.shape == (20, 64) and (means > 0).all() and (means < 16).all()
    model.likelihood.check(draws)
    repeated = [model.sample(5, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert repeated[0].equal(repeated[1])


def test_a_gated_model_needs_beta_and_follows_it():
    x = load("digits").x[:10]
    model = VAE.build(64, 3, (16,), gated=True)
    assert model.gated and not VAE.build(64, 3, (16,)).gated
    assert not torch.allclose(model.reconstruct(x, 0.1), model.reconstruct(x, 10.0))
    with pytest.raises(ValueError, match="pass beta"):
        model.reconstruct(x)


@pytest.mark.parametrize("method", ["elbo", "responsibilities", "predict", "reconstruct", "check"])
def test_input_is_checked(method):
    call = getattr(VAE.build(64, 3, (16,)), method)
    x = load("digits").x[:5].clone()
    with pytest.raises(ValueError, match="x has 63 features: expected 64"):
        call(x[:, :63])
    with pytest.raises(ValueError, match=r"shape \(5, 8, 8\): expected \(N, 64\), .*x.flatten\(1\)"):
        call(x.reshape(5, 8, 8))
    with pytest.raises(ValueError, match=r"whole numbers in 0..16 \(Binomial\), but x runs from 0 to 8.*rescale"):
        call(x / 2)
    x[3, 0] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 row\(s\), the first are \[3\]"):
        call(x)


def test_arrays_of_any_number_type_are_pixels_too():
    x = load("digits").x[:5]
    model = VAE.build(64, 3, (16,))
    for given in (x.numpy(), x.long(), x.double(), x.numpy().astype("uint8"), x.tolist()):
        assert model.reconstruct(given).equal(model.reconstruct(x))
    black = VAE.build(64, 3, (16,), Bernoulli())
    assert black.elbo(x > 8).value.isfinite().all()
    with pytest.raises(ValueError, match="0 or 1"):
        black.elbo(x)


def test_runs_on_every_device(device):
    x = load("digits").x[:20]
    here = VAE.build(64, 3, (16,), prior=MixturePrior(4, 3, "full"))
    there = copy.deepcopy(here).to(device)
    assert torch.allclose(there.reconstruct(x).cpu(), here.reconstruct(x), atol=1e-3)
    assert there.elbo(x).value.device.type == there.sample(2).device.type == device

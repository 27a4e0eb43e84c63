"""The clustering recipe's parts, on little data; `python -m gmvae_lib.pretrained.clustering` measures its quality."""

import math
from dataclasses import replace

import pytest
import torch

from gmvae_lib.clustering import (
    DenoisingAutoencoder,
    Recipe,
    agreement,
    cluster,
    encode_views,
    fit_mixtures,
    train_gmvae,
    views_agreement,
)
from gmvae_lib.data import Dataset, load, random_affine, views
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import History, fit
from gmvae_lib.vae import VAE

SMALL = Recipe(latent_dim=4, hidden=(16,), autoencoder_epochs=2, starts=4, mixture_views=2, epochs=2, n_views=2,
               warm_up_epochs=1)
DATA = load("digits")
DATA = Dataset(DATA.x[:200], DATA.y[:200], DATA.image_shape, "digits")


def test_the_autoencoder_s_loss_is_the_distortion_of_the_encoder_s_mean():
    vae = VAE.build(64, 4, (16,))
    elbo = DenoisingAutoencoder(vae, 0.0).elbo(DATA.x)
    expected = -vae.likelihood.log_prob(DATA.x, vae.decoder(vae.encode(DATA.x)[0]))
    assert torch.allclose(elbo.distortion, expected) and not elbo.rate.any()


def test_the_autoencoder_hides_the_asked_share_from_the_encoder_but_not_from_the_target():
    vae, seen = VAE.build(64, 4, (16,)), []
    hook = vae.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = DATA.x.clamp(min=1)
    elbo = DenoisingAutoencoder(vae, 0.3).elbo(x, generator=torch.Generator().manual_seed(0))
    hook.remove()
    assert (seen[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(seen[0][seen[0] > 0], (x / 16)[seen[0] > 0])
    expected = -vae.likelihood.log_prob(x, vae.decoder(vae.encoder(seen[0])[0]))
    assert torch.allclose(elbo.distortion, expected)


def test_training_the_autoencoder_trains_the_vae_s_own_networks():
    torch.manual_seed(0)
    vae = VAE.build(64, 4, (16,))
    before = vae.elbo(DATA.x).distortion.mean()
    history = fit(DenoisingAutoencoder(vae, 0.1), DATA, 5, lr=1e-2, progress=False)
    assert history.distortion[-1] < history.distortion[0]
    assert vae.elbo(DATA.x).distortion.mean() < before


def test_views_are_encoded_in_parts_as_in_one():
    vae = VAE.build(64, 4, (16,))
    moved = views(lambda x, generator: x, 3)
    whole, parts = (encode_views(vae, DATA.x, moved, size=size) for size in (1000, 7))
    assert whole.shape == (200, 3, 4) and torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(whole[:, 1], vae.encode(DATA.x)[0].detach().double(), atol=1e-5)


def test_agreement_is_what_is_gained_by_knowing_views_together():
    """Two far components of equal weight: the first view tells the component, worth log 2 to each further one."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([-1.0, 1.0]).repeat(200)[:, None, None] * 50
    latents = (sides + torch.randn(400, 3, 2, generator=generator)).double()
    together, = fit_mixtures(latents, 2, 1, 1e-3)
    assert agreement(together, latents) == pytest.approx(2 * math.log(2), abs=1e-6)
    alone, = fit_mixtures(latents, 1, 1, 1e-3)
    assert agreement(alone, latents) == pytest.approx(0, abs=1e-9)


def test_of_all_starts_the_one_with_most_agreement_becomes_the_prior(monkeypatch):
    """Whatever their likelihoods."""
    monkeypatch.setattr("gmvae_lib.clustering.agreement", lambda mixture, latents: mixture.seed == 2)
    seen = []
    monkeypatch.setattr("gmvae_lib.clustering.train_gmvae", lambda vae, mixture, *_, **__: seen.append(mixture.seed))
    cluster(DATA, 3, SMALL, progress=False, device="cpu")
    assert seen == [2]


def test_the_prior_starts_as_the_mixture():
    vae = VAE.build(64, 4, (16,))
    latents = encode_views(vae, DATA.x, views(random_affine((8, 8)), 2))
    mixture = fit_mixtures(latents, 3, 1, SMALL.min_var)[0]
    still = replace(SMALL, epochs=1, warm_up_epochs=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmvae_lib.clustering.fit", lambda *_, **__: History([2.0], [3.0]))
        model, loss, agreed_on = train_gmvae(vae, mixture, DATA, still, random_affine((8, 8)))
    assert loss == 2 + still.beta * 3
    moves = views(random_affine((8, 8)), still.mixture_views)
    assert agreed_on == pytest.approx(agreement(mixture, encode_views(vae, DATA.x, moves)), abs=1e-3)
    z = latents[:, 0]
    assert torch.allclose(model.prior.double().log_prob(z), mixture.score_samples(z), rtol=1e-3, atol=1e-3)


def test_views_that_share_their_component_agree_and_others_do_not():
    """Images with much ink or none, behind an encoder that passes on their ink alone; components far apart, or one."""
    x = torch.zeros(40, 64)
    x.reshape(-1, 8, 8)[:20, 2:6, 2:6] = 16
    vae, moves = VAE.build(64, 2, (), prior=MixturePrior(2, 2, "full")), views(random_affine((8, 8)), 8)
    with torch.no_grad():
        for parameter in vae.encoder.parameters():
            parameter.zero_()
        vae.encoder.mlp.layers[0].weight[0] = 0.2
        codes = vae.encode(vae.check(x))[0].double()
    half, narrow = torch.full((2,), 0.5), (0.1 * torch.eye(2, dtype=torch.float64)).repeat(2, 1, 1)
    vae.prior.set_parameters(half, codes[[0, -1]], narrow)
    # Eight views of one of two clusters: log(1/2) is paid once instead of eight times.
    assert views_agreement(vae, x, moves) == pytest.approx(7 * math.log(2), abs=0.05)
    vae.prior.set_parameters(half, codes.mean(0).repeat(2, 1), narrow)
    assert abs(views_agreement(vae, x, moves)) < 1e-6


def test_labels_play_no_part_and_the_seed_repeats_the_result():
    shuffled = Dataset(DATA.x, DATA.y.flip(0), DATA.image_shape, "digits")
    found = [cluster(data, 3, SMALL, seed=1, progress=False, device="cpu") for data in (DATA, shuffled)]
    assert found[0][1:] == found[1][1:]  # loss and agreement
    assert torch.equal(found[0].model.predict(DATA.x), found[1].model.predict(DATA.x))

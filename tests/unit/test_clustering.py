"""The clustering recipe's parts, on little data; its quality is measured by `python -m tests.benchmarks.clustering`."""

from itertools import pairwise

import pytest
import torch

from gmvae_lib.clustering import (
    Clustering,
    DenoisingAutoencoder,
    Recipe,
    cluster,
    fit_mixtures,
    tournament,
    with_prior,
)
from gmvae_lib.data import Dataset, load, random_affine, views
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

SMALL = Recipe(latent_dim=4, hidden=(16,), autoencoder_epochs=2, candidates=3, starts=4, mixture_views=2,
               rounds=(1, 1, 2), n_views=2, warm_up_epochs=1)
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


def test_mixtures_and_priors_say_the_same():
    vae = VAE.build(64, 4, (16,))
    mixtures = fit_mixtures(vae, DATA.x, 3, views(random_affine((8, 8)), 2), SMALL)
    assert 1 <= len(mixtures) <= SMALL.candidates
    assert all(a.lower_bound_ >= b.lower_bound_ for a, b in pairwise(mixtures))
    model = with_prior(vae, mixtures[0], SMALL.min_var)
    z = vae.encode(DATA.x)[0].detach()
    mixtures[0].weights_ = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert torch.allclose(model.prior.log_prob(z), mixtures[0].score_samples(z).float(), rtol=1e-3, atol=1e-3)
    assert model.encoder is not vae.encoder and vae.prior is not model.prior


def test_the_tournament_keeps_the_lowest_loss(monkeypatch):
    """Nothing is trained here: each model's loss is itself."""
    trained = []

    class History:
        def __init__(self, model, epochs):
            self.distortion, self.rate = [model] * epochs, [0.0] * epochs

    monkeypatch.setattr("gmvae_lib.clustering.fit", lambda model, data, epochs, *_, **__: (
        trained.append((model, epochs)), History(model, epochs))[1])
    best = tournament([5.0, 3.0, 4.0, 1.0, 2.0], DATA, None, Recipe(rounds=(2, 4, 8)))
    assert best == Clustering(1.0, 1.0)
    assert trained == [(5.0, 2), (3.0, 2), (4.0, 2), (1.0, 2), (2.0, 2), (1.0, 4), (2.0, 4), (1.0, 8)]


def test_labels_play_no_part_and_the_seed_repeats_the_result():
    shuffled = Dataset(DATA.x, DATA.y.flip(0), DATA.image_shape, "digits")
    found = [cluster(data, 3, SMALL, seed=1, progress=False, device="cpu") for data in (DATA, shuffled)]
    assert found[0].loss == found[1].loss
    assert torch.equal(found[0].model.predict(DATA.x), found[1].model.predict(DATA.x))
    assert torch.allclose(found[0].model.prior.weights, torch.full((3,), 1 / 3))

"""The widget of chapter 11: a posterior, a q, and what draws make of log p(x)."""

import math

import numpy as np
import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.explorers import BoundExplorer, quick_plane
from gmvae_lib.vae import VAE


@pytest.fixture(scope="module")
def images():
    return load("digits", "test").x[:40]


@pytest.fixture(scope="module")
def model():
    return quick_plane(load("digits").x[:400], epochs=15)


@pytest.fixture(scope="module")
def truth(model, images):  # near enough, from a wide q
    return log_likelihood(model, images, 5000, widen=4.0)


@pytest.fixture
def panel(model, images, truth):
    return BoundExplorer(model, images, truth, n_images=4, draws=2000, image=3)


def test_images_are_sorted_by_the_gap(panel):
    plain = panel.log_w[:, panel.WIDTHS.index(1.0)].mean(1)
    gaps = torch.tensor(panel.truth) - plain
    assert gaps[0] < gaps[-1] and panel.error is None


def test_estimates_are_the_library_s(panel, model):
    i, widen = 2, 2.0
    ours = panel.log_w[i, panel.WIDTHS.index(widen)].logsumexp(0) - math.log(2000)
    theirs = log_likelihood(model, panel.x[i:i + 1], 20_000, widen=widen)[0]
    assert float(ours) == pytest.approx(float(theirs), abs=0.3)


def test_the_map_is_the_posterior(panel, model):
    (left, right, bottom, top), density = panel.maps[1]
    assert density.max() == 1 and right - left == pytest.approx(top - bottom, rel=1e-4)
    row, column = np.unravel_index(density.argmax(), density.shape)
    z = torch.tensor([[left + (right - left) * column / 60, bottom + (top - bottom) * row / 60]]).float()
    nearby = z + 0.02 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * (right - left)
    with torch.no_grad():
        joint = [model.likelihood.log_prob(panel.x[1], model.decoder(p)) + model.prior.log_prob(p) for p in (z, nearby)]
    assert float(joint[0]) > float(joint[1].mean())


def test_every_control_changes_picture_and_words(panel):
    for name, value in (("draws", 100), ("widen", 3.0), ("image_number", 4)):
        picture, words = panel.image.value, panel.status.value
        getattr(panel, name).value = value
        assert panel.error is None and panel.image.value != picture and panel.status.value != words
    assert "Image 4, q widened 3 times, 100 draws" in panel.status.value


def test_the_caption_says_what_changed(panel):
    panel.draws.value = 500
    assert "The number of draws changed the bound by" in panel.status.value
    panel.widen.value = 0.5
    assert "Widening changed the bound by" in panel.status.value
    panel.image_number.value = 1
    assert "changed" not in panel.status.value


def test_more_draws_raise_the_mean_curve(panel):
    curve = panel._curve.get_ydata()
    assert curve[0] < curve[4] < curve[-1]


def test_a_model_without_a_plane_is_refused(images):
    with pytest.raises(ValueError, match="3 latent dimensions"):
        BoundExplorer(VAE.build(64, 3, hidden=(4,)), images, torch.zeros(40))


def test_the_static_picture_has_a_description(panel):
    bundle, metadata = panel._repr_mimebundle_()
    assert bundle["image/png"] and bundle["text/plain"].startswith("A widget: ")
    assert metadata["image/png"]["alt"] == bundle["text/plain"]

"""The widget of chapter 7: a point, the prior's holes, and a mixture behind the decoder."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.data import load
from gmvae_lib.explorers import HoleExplorer, quick_vae
from gmvae_lib.explorers.chapter_07 import verdict
from gmvae_lib.vae import VAE


@pytest.fixture(scope="module")
def digits():
    return load("digits").x[:300], load("digits", "test").x[:100]


@pytest.fixture(scope="module")
def model():
    return quick_vae(load("digits"), epochs=10)


@pytest.fixture
def panel(model, digits):
    return HoleExplorer(model, *digits, largest=4)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_the_map_is_the_log_ratio_of_codes_and_prior(panel, model, digits):
    with torch.no_grad():
        mean, log_var = model.encode(digits[0])
    codes = MixtureSameFamily(Categorical(torch.ones(len(mean))),
                              Independent(Normal(mean, (0.5 * log_var).exp()), 1))
    shown = panel._map.get_array()
    for z1, z2 in ((0.0, 0.0), (1.0, -2.0), (-0.5, 1.2)):
        z = torch.tensor([z1, z2])
        expected = codes.log_prob(z) - Normal(0.0, 1.0).log_prob(z).sum()
        column, row = (round((value + panel.EXTENT) / panel.STEP) for value in (z1, z2))
        assert shown[row, column] == pytest.approx(float(expected), abs=1e-3)


def test_moving_the_point_changes_picture_and_words(panel, model):
    assert panel.error is None
    picture, caption = panel.image.value, panel.status.value
    panel.z1.value = 1.5
    assert panel.error is None and panel.image.value != picture and panel.status.value != caption
    assert "z = (1.5, 0.0)" in panel.status.value
    with torch.no_grad():
        expected = model.decode(torch.tensor([[1.5, 0.0]]))[0].reshape(8, 8)
    assert np.allclose(panel._image.get_array(), expected, atol=1e-4)


def test_more_components_change_map_samples_and_rate(panel):
    before = panel._map.get_array().copy(), panel._grid.get_array().copy()
    panel.n_components.value = 4
    assert panel.error is None
    assert not np.array_equal(before[0], panel._map.get_array())
    assert not np.array_equal(before[1], panel._grid.get_array())
    assert "the mixture, K = 4" in panel.status.value and "K changed from 0 to 4: the rate fell" in panel.status.value
    assert panel.rates[4] < panel.rates[0]
    assert panel.in_holes[4] < panel.in_holes[0]


def test_a_moved_point_is_drawn_over_the_present_prior(panel, model, digits):
    normal = pixels(panel.image.value)
    panel.n_components.value = 3
    assert (pixels(panel.image.value) != normal).any(2).mean() > 0.03  # the map is in the picture
    panel.z1.value = 1.5
    fresh = HoleExplorer(model, *digits, largest=4, place=(1.5, 0.0), n_components=3)
    assert np.array_equal(pixels(panel.image.value), pixels(fresh.image.value))


def test_samples_follow_their_prior(panel):
    drawn = torch.cat(panel.samples[:1])
    assert drawn.shape == (30, 2) and float(drawn.abs().mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.2)


def test_the_rate_of_the_standard_normal_is_the_closed_form(panel, model, digits):
    with torch.no_grad():
        rate = float(model.prior.rate(*model.encode(digits[1])).mean())
    assert panel.rates[0] == pytest.approx(rate, abs=0.2)


@pytest.mark.parametrize(("log_ratio", "words"), [
    (-30, "no codes here at all: <b>a hole"), (-3, "20 times rarer here than the prior says: <b>a hole"),
    (-1, "2.7 times rarer than the prior says: no hole"), (1, "2.7 times denser"), (5, "150 times denser"),
])
def test_the_verdict_is_in_words(log_ratio, words):
    assert words in verdict(log_ratio, math.log(10))


def test_coming_back_gives_the_same_picture(panel):
    first = panel.image.value
    panel.set_quietly(z2=2.0, n_components=2)
    panel.set_quietly(z2=0.0, n_components=0)
    assert np.array_equal(pixels(first), pixels(panel.image.value))


def test_a_move_draws_once_and_the_number_box_moves_the_point(panel, monkeypatch):
    calls = []
    monkeypatch.setattr(panel, "draw", lambda: calls.append(1) or HoleExplorer.draw(panel))
    panel.z1.value = 0.7
    assert len(calls) == 1
    box = panel.box.children[0].children[0].children[1]
    box.value = -1.2
    assert panel.z1.value == -1.2 and "z = (−1.2, 0.0)" in panel.status.value


def test_a_model_without_a_plane_is_refused(digits):
    with pytest.raises(ValueError, match="3 latent dimensions"):
        HoleExplorer(VAE.build(64, 3, hidden=(4,)), *digits)


def test_the_static_picture_has_a_description(panel):
    bundle, metadata = panel._repr_mimebundle_()
    assert bundle["image/png"] and bundle["text/plain"].startswith("A widget: ")
    assert metadata["image/png"]["alt"] == bundle["text/plain"]

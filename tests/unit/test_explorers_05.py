"""The latent-plane widget of chapter 5."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gmvae_lib.data import Dataset, load
from gmvae_lib.explorers import LatentExplorer, quick_vae
from gmvae_lib.vae import VAE


@pytest.fixture(scope="module")
def data():
    digits = load("digits", "test")
    return Dataset(digits.x[:120], digits.y[:120], digits.image_shape, digits.name)


@pytest.fixture(scope="module")
def model(data):
    return quick_vae(data, epochs=3)


@pytest.fixture
def panel(model, data):
    return LatentExplorer(model, data)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def test_moving_the_point_changes_the_picture_and_the_caption(panel):
    assert panel.error is None
    picture, caption = panel.image.value, panel.status.value
    panel.z1.value = 1.0
    assert panel.error is None
    assert panel.image.value != picture and panel.status.value != caption
    assert "z = (1.0, 0.0)" in panel.status.value and "last move changed a pixel" in panel.status.value


def test_the_picture_shows_what_the_decoder_draws_and_the_nearest_image(panel, model, data):
    panel.set_quietly(z1=0.5, z2=-0.5)
    decoded, nearest = (artist.get_array() for artist in panel._images)
    with torch.no_grad():
        expected = model.decode(torch.tensor([[0.5, -0.5]]))[0].reshape(8, 8)
        distances = (model.encode(data.x)[0] - torch.tensor([0.5, -0.5])).norm(dim=1)
    assert np.allclose(decoded, expected, atol=1e-4)
    assert np.array_equal(nearest, data.x[distances.argmin()].reshape(8, 8))


def test_the_quick_picture_is_the_figure_s_own(panel):
    panel.z2.value = 1.5
    whole = io.BytesIO()
    panel.picture.figure.savefig(whole, format="png", dpi=panel.picture.dpi)
    # Of 255 grey levels: the quick one has a palette of 256 colours, in which white is 254.
    assert np.abs(pixels(panel.image.value) - pixels(whole.getvalue())).mean() < 2


def test_coming_back_gives_the_same_picture(panel):
    first = panel.image.value
    panel.z1.value = 2.0
    panel.z1.value = 0.0
    assert np.array_equal(pixels(first), pixels(panel.image.value))


def test_a_move_draws_once_and_the_number_box_moves_the_point(panel, monkeypatch):
    calls = []
    monkeypatch.setattr(panel, "draw", lambda: calls.append(1) or LatentExplorer.draw(panel))
    panel.z1.value = 0.7
    assert len(calls) == 1
    box = panel.box.children[0].children[0].children[1]
    assert box.value == 0.7
    box.value = -1.2
    assert panel.z1.value == -1.2 and "z = (-1.2, 0.0)" in panel.status.value


def test_the_caption_says_where_nothing_was_encoded(panel):
    panel.set_quietly(z1=panel.extent, z2=panel.extent)
    assert "No image was encoded here" in panel.status.value


def test_a_model_without_a_plane_is_refused(data):
    with pytest.raises(ValueError, match="3 latent dimensions"):
        LatentExplorer(VAE.build(64, 3, hidden=(4,)), data)


def test_the_static_picture_has_a_description(panel):
    bundle, metadata = panel._repr_mimebundle_()
    assert bundle["image/png"] and bundle["text/plain"].startswith("A widget: ")
    assert metadata["image/png"]["alt"] == bundle["text/plain"]

"""The base of all pictures: the bundle, the palette, and that figures hold the data they were given."""

import io
import itertools

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from gmvae_lib import figures
from gmvae_lib.data import load

# Machado, Oliveira & Fernandes (2009), full severity: linear RGB as a colour-blind reader sees it.
SIGHT = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                        [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                        [0.004733, 0.691367, 0.303900]]),
}


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness_and_hue(rgb):
    """CIE L*a*b* of a linear RGB color (white point D65)."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    x, y, z = np.where((t := xyz / [0.9505, 1.0, 1.089]) > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color):
    """WCAG contrast with white."""
    return 1.05 / (linear(color) @ [0.2126, 0.7152, 0.0722] + 0.05)


def test_colors_stand_out_from_white():
    assert all(contrast(color) >= 3 for color in figures.COLORS)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_first_colors_differ_for_every_kind_of_sight(sight):
    seen = [lightness_and_hue(SIGHT[sight] @ linear(color)) for color in figures.COLORS[:6]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14


def test_color_never_stands_alone():
    assert len(set(figures.COLORS)) == len(set(figures.MARKERS)) == 10 and len(set(figures.LINES)) == 4
    x, y = load("blobs").x[:90], torch.arange(90) % 10
    axes = figures.scatter(x, y, "t", "alt").figure.axes[0]
    assert len({line.get_marker() for line in axes.lines}) == 10
    series = {str(i): np.arange(5) + i for i in range(6)}
    axes = figures.curves(np.arange(5), series, "t", "x", "y", "alt").figure.axes[0]
    looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 6 and len({line.get_color() for line in axes.lines}) == 6


def simple():
    return figures.curves([0, 1, 2], {"a": [1, 2, 3]}, "A title", "steps", "nats", "A line that rises.")


def test_a_picture_is_shown_as_an_image_and_in_words():
    picture = simple()
    data, metadata = picture._repr_mimebundle_()
    assert data["text/plain"] == "A line that rises." == metadata["image/png"]["alt"]
    image = Image.open(io.BytesIO(data["image/png"]))
    assert image.format == "PNG" and image.width == 1.5 * metadata["image/png"]["width"]
    assert Image.open(io.BytesIO(picture.png(dpi=50))).width == 300
    assert np.asarray(image.convert("RGB"))[0, 0].tolist() == [255, 255, 255]  # no dark page shines through


def test_figures_leave_the_global_state_alone():
    before = dict(matplotlib.rcParams)
    simple()
    assert dict(matplotlib.rcParams) == before


def test_curves_show_their_data_with_labels():
    picture = figures.curves([1, 2, 4], {"a": torch.tensor([3.0, 2.0, 1.0]), "b": ([1, 10], [5, 6])}, "T", "steps",
                             "nats", "alt", log_x=True, log_y=True)
    axes, = picture.figure.axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("T", "steps", "nats")
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [4, 1]]
    assert axes.lines[1].get_xydata().tolist() == [[1, 5], [10, 6]]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_images_stand_where_they_belong():
    x = load("digits").x[:7]
    axes, = figures.images(x, (8, 8), "T", "alt", columns=3, row_labels=["a", "b", "c"]).figure.axes
    canvas = axes.images[0].get_array()
    assert canvas.shape == (26, 26)
    for i, image in enumerate(x.reshape(-1, 8, 8).numpy()):
        top, left = 9 * (i // 3), 9 * (i % 3)
        assert (canvas[top:top + 8, left:left + 8] == image).all()
    assert np.isnan(np.ma.filled(canvas[18:, 9:], np.nan)).all()  # nothing where there is no image
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_an_ellipse_lies_at_so_many_standard_deviations():
    mean, covariance = np.array([1.0, -2.0]), np.array([[2.0, 0.8], [0.8, 0.5]])
    outline = figures.ellipse(mean, covariance, n_std=3.0) - mean
    distance = np.einsum("ni,ij,nj->n", outline, np.linalg.inv(covariance), outline)
    assert distance == pytest.approx(np.full(60, 9.0))


@pytest.mark.parametrize(("kind", "given", "expected"), [
    ("full", np.eye(2)[None].repeat(3, 0) * 2, np.eye(2)[None].repeat(3, 0) * 2),
    ("tied", np.eye(2) * 2, np.eye(2)[None].repeat(3, 0) * 2),
    ("diag", np.full((3, 2), 2.0), np.eye(2)[None].repeat(3, 0) * 2),
    ("spherical", np.full(3, 2.0), np.eye(2)[None].repeat(3, 0) * 2),
])
def test_covariances_of_every_family_become_matrices(kind, given, expected):
    assert figures.full_covariances(torch.tensor(given), kind, 3, 2) == pytest.approx(expected)


def test_scatter_shows_points_and_outlines():
    data = load("blobs", n_samples=50)
    mixture = (torch.ones(3) / 3, torch.randn(3, 2), torch.eye(2).repeat(3, 1, 1))
    axes, = figures.scatter(data.x, data.y, "T", "alt", mixture).figure.axes
    drawn = np.concatenate([line.get_xydata() for line in axes.lines[:3]])
    assert sorted(map(tuple, drawn.tolist())) == sorted(map(tuple, data.x.double().tolist()))
    assert len(axes.lines) == 3 + 2 * 3

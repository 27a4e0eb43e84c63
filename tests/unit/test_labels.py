"""Texts drawn as one artist stand where they should, and the kept palette changes no colour much."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gmvae_lib.figures import COLORS, Blitted, Labels, apart


def drawn(dpi=100, **settings):
    """Two labels, and the pixels (columns and rows) that each has inked, and where its place is."""
    figure = Figure(figsize=(4, 2), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 4), ylim=(0, 2))
    axes.set_axis_off()
    labels = Labels(axes, 12, **settings)
    labels.write(["nothing of this is left"], [[2, 1]])
    labels.write(["1", "20"], [[1, 0.5], [3, 1.5]], ["red", "blue"])
    picture = Blitted(figure, [labels], dpi=dpi)
    picture.png()
    pixels = np.asarray(picture.canvas.buffer_rgba())[..., :3].astype(int)
    found = []
    for other, (x, y) in ((1, (1, 0.5)), (1, (3, 1.5))):
        left, right = (0, 2 * dpi) if x < 2 else (2 * dpi, 4 * dpi)
        rows, columns = (pixels[:, left:right, other] < 128).nonzero()
        found.append((columns + left, rows, x * dpi, (2 - y) * dpi))
    return figure, found, pixels


@pytest.mark.parametrize("dpi", [100, 150])
def test_labels_are_centred_on_their_places_at_every_resolution(dpi):
    _, found, pixels = drawn(dpi)
    for columns, rows, x, y in found:
        assert abs((columns.min() + columns.max() + 1) / 2 - x) <= 1.5
        assert abs((rows.min() + rows.max() + 1) / 2 - y) <= 1.5
        assert rows.max() + 1 - rows.min() == pytest.approx(0.75 * 12 * dpi / 72, abs=2)  # a digit's height
    assert (pixels[..., 1] < 128)[:, int(1.3 * dpi):int(2.7 * dpi)].sum() == 0  # the first text is gone
    assert pixels[:, :2 * dpi, 0].min() > 200 and pixels[:, 2 * dpi:, 2].min() > 200  # red left, blue right


def test_labels_on_the_left_begin_at_their_places():
    for columns, _, x, _ in drawn(horizontal="left")[1]:
        assert columns.min() == pytest.approx(x, abs=1.5)


def test_a_kept_palette_changes_no_colour_by_much():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    points = axes.scatter(range(10), range(10), c=COLORS, s=80)
    picture = Blitted(figure, [points])
    picture.keep_palette()
    points.set_offsets([[9 - i, i] for i in range(10)])
    kept, palette = (np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB")).astype(int) for _ in range(2))
    picture.palette = None
    chosen = np.asarray(Image.open(io.BytesIO(picture.png())).convert("RGB")).astype(int)
    truth = np.asarray(picture.canvas.buffer_rgba())[..., :3].astype(int)
    assert np.array_equal(kept, palette) and not np.array_equal(kept, np.full_like(kept, 255))
    assert np.abs(kept - truth).mean() < 2 and np.quantile(np.abs(kept - truth), 0.99) < 40
    assert np.abs(chosen - truth).mean() < 2


def test_labels_that_would_hide_each_other_are_moved_apart_and_others_stay():
    places = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0]])
    moved = apart(places, 1.0)
    assert np.linalg.norm(moved[0] - moved[1]) == pytest.approx(1.0, abs=1e-6)
    assert moved[:2].mean(0) == pytest.approx(places[:2].mean(0))  # each by as much
    assert moved[2].tolist() == [5.0, 5.0] and places[0].tolist() == [0.0, 0.0]
    crowd = apart(np.random.default_rng(0).normal(size=(20, 2)), 0.3)
    distances = np.linalg.norm(crowd[:, None] - crowd, axis=2) + np.eye(20)
    assert distances.min() > 0.25

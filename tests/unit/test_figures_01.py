"""Chapter 01's figures show what they say."""

import numpy as np
import torch

from gmvae_lib import figures
from gmvae_lib.data import load

X = load("cigars", n_samples=80).x.double()
WEIGHTS = torch.tensor([0.5, 0.5]).double()
MEANS = torch.tensor([[-2.0, 0.0], [2.0, 0.5]]).double()
COVARIANCES = torch.eye(2).double().repeat(2, 1, 1)


def test_density_panels_show_the_points_the_centers_and_bands_about_them():
    picture = figures.density_panels(X, {"bare": None, "two": (WEIGHTS, MEANS, COVARIANCES)}, "Two panels.")
    bare, two = picture.figure.axes
    assert all(np.allclose(np.stack(axis.lines[0].get_data(), 1), X) for axis in (bare, two))
    assert not bare.collections
    assert np.allclose(np.stack(two.lines[1].get_data(), 1), MEANS)
    filled = two.collections[0]
    assert any(path.contains_point(MEANS[0].numpy()) for path in filled.get_paths())
    assert not any(path.contains_point((0.0, 4.5)) for path in filled.get_paths())


def test_cloud_panels_keep_each_points_label():
    labels = torch.arange(len(X)) % 3
    moved = X + 5
    picture = figures.cloud_panels({"here": (X, X.mean(0), X.T.cov()), "there": (moved, moved.mean(0), X.T.cov())},
                                   labels, "Two panels.", legend=["a", "b", "c"])
    for axis, points in zip(picture.figure.axes, (X, moved)):
        for i, line in enumerate(axis.lines[:3]):
            assert np.allclose(np.stack(line.get_data(), 1), points[labels == i])
        inner, outer = (np.stack(line.get_data(), 1) for line in axis.lines[3:])
        assert np.allclose(outer - points.mean(0).numpy(), 2 * (inner - points.mean(0).numpy()))


def test_hills_carry_their_marks_and_diagonal():
    line = torch.linspace(-1, 1, 21)
    values = -(line[:, None] - 0.5) ** 2 - (line + 0.5) ** 2
    picture = figures.hills(line, line, values, {"a top": (-0.5, 0.5)}, "t", "x", "y", "A map.")
    mark, diagonal = picture.figure.axes[0].lines
    assert mark.get_xydata().tolist() == [[-0.5, 0.5]]
    assert diagonal.get_xydata().tolist() == [[-1, -1], [1, 1]]


def test_mixture_panels_wrap_into_rows():
    stages = {str(k): (None, None) for k in range(4)}
    picture = figures.mixture_panels(X, stages, "Four panels.", columns=2)
    axes = picture.figure.axes
    assert [axis.get_title() for axis in axes] == ["0", "1", "2", "3"]
    assert [axis.get_xlabel() for axis in axes] == ["", "", "$x_1$", "$x_1$"]
    assert [axis.get_ylabel() for axis in axes] == ["$x_2$", "", "$x_2$", ""]

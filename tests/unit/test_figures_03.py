"""Chapter 03's figures show what they say."""

import numpy as np
import pytest
import torch

from gmvae_lib import figures
from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture

X = load("cigars", n_samples=90).x.double()


@pytest.mark.parametrize("family", ["full", "diag", "spherical", "tied"])
def test_fit_panels_show_all_points_with_colours_and_centers_of_the_fit(family):
    model = GaussianMixture(3, family).fit(X)
    picture = figures.fit_panels({"a": (X, model), "K = 1: -2": (X[:50], model)}, "Two panels of points.")
    first, second = picture.figure.axes
    assert sum(len(cloud.get_offsets()) for cloud in first.collections) == 90
    assert sum(len(cloud.get_offsets()) for cloud in second.collections) == 50
    assert np.allclose([text.get_position() for text in first.texts], model.means_)
    assert second.get_title() == "K = 1: −2"


def test_fit_panels_colour_by_labels():
    labels = torch.tensor([0, 1] * 45)
    axis, = figures.fit_panels({"classes": (X, labels)}, "One panel of points.").figure.axes
    assert [len(cloud.get_offsets()) for cloud in axis.collections] == [45, 45]
    assert len(axis.texts) == 0


def test_count_panels_write_every_count_that_is_not_zero():
    table = torch.tensor([[0, 3, 1], [4, 0, 0]])
    picture = figures.count_panels({"one": table, "two": table.flip(0)}, "K", ["a", "b"], range(1, 4), "Two tables.")
    one, two = picture.figure.axes
    assert {(t.get_position(), t.get_text()) for t in one.texts} == {((1, 0), "3"), ((2, 0), "1"), ((0, 1), "4")}
    assert [label.get_text() for label in one.get_xticklabels()] == ["1", "2", "3"]
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "b"]
    assert two.get_title() == "two"


@pytest.mark.parametrize(("best", "where"), [("max", (2, 5.0)), ("min", (1, -1.0))])
def test_curves_ring_the_best_value_and_draw_error_bars(best, where):
    picture = figures.curves([1, 2, 3], {"a": [-1.0, 5.0, 2.0]}, "t", "x", "y", "A curve.", best=best,
                             errors={"a": [0.1, 0.2, 0.3]})
    axis, = picture.figure.axes
    rings = [line for line in axis.lines if line.get_markersize() == 15]
    assert [(float(r.get_xdata()[0]), float(r.get_ydata()[0])) for r in rings] == [where]
    bars, = (c for c in axis.collections if len(c.get_segments()) == 3)
    assert np.allclose([np.ptp(segment[:, 1]) for segment in bars.get_segments()], [0.2, 0.4, 0.6])

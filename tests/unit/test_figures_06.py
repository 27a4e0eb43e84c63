"""The picture of rate and distortion carries its data."""

import numpy as np
import torch

from gmvae_lib.figures import rate_plane


def test_the_plane_shows_points_curves_and_the_bound():
    rate, distortion = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 2.0, 1.5])
    picture = rate_plane("title", "Three points.", points={"models": (rate, distortion)},
                         curves={"best": (rate, distortion - 1)}, bound=2.0, names={"here": (1.0, 2.0)})
    axes = picture.figure.axes[0]
    curve, points, bound = axes.lines
    assert np.allclose(points.get_xydata(), torch.stack([rate, distortion], 1))
    assert np.allclose(curve.get_ydata(), distortion - 1)
    assert np.allclose(bound.get_xydata().sum(1), 2.0)
    assert [text.get_text() for text in axes.texts] == ["here"] and picture.alt == "Three points."
    assert axes.get_xlabel() == "rate R (nats)" and axes.get_ylabel() == "distortion D (nats)"

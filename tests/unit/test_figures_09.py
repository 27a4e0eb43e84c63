"""Chapter 9's pictures carry their data."""

import numpy as np
import torch

from gmvae_lib.figures import start_panels, walk_panels


def test_starts_are_shown_below_the_best_which_is_ringed():
    scores, accuracies = torch.tensor([-3.0, -1.0, -2.0]), torch.tensor([0.7, 0.8, 0.9])
    picture = start_panels({"one": (scores, accuracies), "two": (-scores, accuracies)}, "title", "Two panels of dots.")
    one, two = picture.figure.axes
    assert np.allclose(one.lines[0].get_xydata(), [[-2, 0.7], [0, 0.8], [-1, 0.9]])
    assert np.allclose(one.lines[2].get_xydata(), [[0, 0.8]]) and np.allclose(two.lines[2].get_xydata(), [[0, 0.7]])
    assert one.lines[0].get_marker() != two.lines[0].get_marker() and picture.alt == "Two panels of dots."


def test_walks_show_a_line_and_a_row_of_images_each():
    t, rows = torch.linspace(0, 1, 5), [torch.rand(3, 4), torch.rand(3, 4)]
    picture = walk_panels(t, {"a to b": t**2, "b to c": -t}, rows, (2, 2), "title", "Two walks.")
    above, below = picture.figure.axes
    assert [np.allclose(line.get_ydata(), values) for line, values in zip(above.lines, (t**2, -t), strict=True)]
    shown = np.asarray(below.images[0].get_array())
    assert shown.shape == (5, 8)
    for i, row in enumerate(rows):
        tiles = shown[3 * i:3 * i + 2].reshape(2, -1)
        for j in range(3):
            assert np.allclose(tiles[:, 3 * j:3 * j + 2], row[j].reshape(2, 2))

"""Pictures of chapter 11."""

import torch

from gmvae_lib import figures


def test_intervals_draw_values_errors_and_the_truth():
    picture = figures.intervals({"a": 1.0, "b": (torch.tensor(2.0), 0.5)}, "t", "x", "Two marks.", truth=("line", 1.5))
    axis = picture.figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    a, b = axis.containers
    assert a.lines[0].get_xdata() == 1 and not a.lines[2]
    assert b.lines[2][0].get_segments()[0][:, 0].tolist() == [1.5, 2.5]
    assert axis.lines[-1].get_xdata() == [1.5, 1.5] and picture.png()


def test_a_score_map_writes_every_score_and_frames_the_marked_cells():
    scores = torch.tensor([[1.0, 2.0, 9.0], [0.5, 3.0, 4.0]])
    marks = {"best": (1, 0), "other": (0, 2)}
    picture = figures.score_map(scores, ["r", "s"], [1, 2, 3], "t", "A map.", "x", "y", marks)
    axis = picture.figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["1.0", "2.0", "9.0", "0.5", "3.0", "4.0"]
    marked = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines]
    assert marked == [(0, 1), (2, 0)]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["best", "other"]
    assert picture.png()

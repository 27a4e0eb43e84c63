"""Pictures of chapter 12."""

import pytest
import torch

from gmvae_lib import figures


def test_bars_have_their_lengths_numbers_and_groups():
    picture = figures.bars({"a": 1.5, "b": torch.tensor(0.25)}, "t", "s", "Two bars.", groups={"a": "old", "b": "new"})
    axis = picture.figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == [1.5, 0.25]
    assert [text.get_text() for text in axis.texts] == ["1.50 s", "0.25 s"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["old", "new"]
    assert axis.patches[0].get_hatch() != axis.patches[1].get_hatch() and picture.png()


def test_bars_without_groups_have_no_legend():
    axis = figures.bars({"a": 1.0}, "t", "x", "One bar.", digits=0, unit="nats").figure.axes[0]
    assert axis.get_legend() is None and axis.texts[0].get_text() == "1 nats"


def test_lanes_put_each_operation_in_its_time():
    rows = {"asks": [(0.0, 1e-6, "small"), (1e-6, 2e-6, "large")], "computes": [(4e-6, 1e-6, "large")]}
    picture = figures.lanes(rows, "t", "Two lanes.")
    axis = picture.figure.axes[0]
    boxes = [path.get_extents().bounds for collection in axis.collections for path in collection.get_paths()]
    assert [box[0] for box in boxes] == pytest.approx([0, 1, 4])  # in microseconds
    assert [box[2] for box in boxes] == pytest.approx([1, 2, 1])
    assert sorted(text.get_text() for text in axis.get_legend().get_texts()) == ["large", "small"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["asks", "computes"] and picture.png()


def test_a_marked_dot_is_the_one_that_was_named():
    picture = figures.best_marked(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.5, 0.6, 0.9]),
                                  {"first": 1, "second": 2}, "t", "x", "y", "Three dots.")
    dots, *rings = picture.figure.axes[0].lines
    assert dots.get_xdata().tolist() == [1, 3, 2]
    assert [(ring.get_xdata()[0], ring.get_label()) for ring in rings] == [(3, "first"), (2, "second")]
    assert [text.get_text() for text in picture.figure.axes[0].texts] == ["0", "1", "2"] and picture.png()


def test_a_dot_that_was_not_measured_is_left_out_with_its_ring_and_others_keep_their_numbers():
    picture = figures.best_marked(torch.tensor([1.0, float("nan"), 2.0]), torch.tensor([0.5, 0.6, 0.9]),
                                  {"first": 1, "second": 2}, "t", "x", "y", "Two dots.")
    dots, *rings = picture.figure.axes[0].lines
    assert dots.get_xdata().tolist() == [1, 2] and dots.get_ydata().tolist() == pytest.approx([0.5, 0.9])
    assert [(ring.get_xdata()[0], ring.get_label()) for ring in rings] == [(2, "second")]
    assert [text.get_text() for text in picture.figure.axes[0].texts] == ["0", "2"] and picture.png()


def test_panels_have_one_label_for_all_or_one_each():
    panels = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    for ylabel, seen in (("nats", ["nats", "nats"]), (["nats", "β"], ["nats", "β"])):
        axes = figures.curve_panels([0, 1], panels, "x", ylabel, "Two panels.").figure.axes
        assert [axis.get_ylabel() for axis in axes] == seen

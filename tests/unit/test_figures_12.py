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


def test_each_number_rings_the_dot_that_it_chooses():
    loss, bound = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([-2.0, -4.0, -1.0])
    picture = figures.choices({"loss": (loss, 0), "bound": (bound, 2)}, torch.tensor([0.5, 0.6, 0.9]), [5, 6, 7], "t",
                              "accuracy", "Three dots, twice.")
    axes = picture.figure.axes
    assert [axis.get_xlabel() for axis in axes] == ["loss", "bound"] and axes[0].get_ylabel() == "accuracy"
    assert [axis.get_title() for axis in axes] == ["chooses 5", "chooses 7"]
    for axis, values, ring in zip(axes, (loss, bound), ((1, 0.5), (-1, 0.9)), strict=True):
        dots, around = axis.lines
        assert dots.get_xdata().tolist() == values.tolist()
        assert (around.get_xdata()[0], around.get_ydata()[0]) == pytest.approx(ring)
        assert {text.get_text(): text.xy[0] for text in axis.texts} == dict(zip("567", values.tolist(), strict=True))
    assert picture.png()


def test_panels_have_one_label_for_all_or_one_each():
    panels = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    for ylabel, seen in (("nats", ["nats", "nats"]), (["nats", "β"], ["nats", "β"])):
        axes = figures.curve_panels([0, 1], panels, "x", ylabel, "Two panels.").figure.axes
        assert [axis.get_ylabel() for axis in axes] == seen

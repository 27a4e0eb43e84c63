"""Chapter 04's figures show what they say."""

import numpy as np
import torch

from gmvae_lib import figures


def test_slices_are_the_joints_rows_as_densities():
    z, x = torch.linspace(-4, 4, 201), torch.linspace(0, 2, 21)
    joint = torch.exp(-0.5 * (z - x[:, None])**2)
    picture = figures.joint_slices(z, x, joint, at=(0.5, 1.52), curve=z, alt="A joint density and two slices of it.")
    plane, slices = picture.figure.axes
    assert [line.get_label() for line in slices.lines] == ["$x = 0.5$", "$x = 1.52$"]
    for line, row in zip(slices.lines, (5, 15)):
        assert np.isclose(np.trapezoid(line.get_ydata(), line.get_xdata()), 1)
        assert np.allclose(line.get_ydata() / line.get_ydata().max(), joint[row] / joint[row].max(), atol=1e-6)
    assert plane.lines[0].get_xdata().shape == (201,)


def test_outlines_lie_two_standard_deviations_out_and_the_path_is_drawn():
    mean, covariance = np.array([1.0, -1.0]), np.array([[2.0, 0.5], [0.5, 1.0]])
    path = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, -1.0]])
    picture = figures.gaussian_outlines({"p": (mean, covariance)}, "t", "An ellipse and a path to its center.", path)
    outline, center, way = picture.figure.axes[0].lines
    off = np.stack(outline.get_data(), 1) - mean
    assert np.allclose(np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off), 4)
    assert np.allclose(center.get_data(), mean[:, None])
    assert np.allclose(np.stack(way.get_data(), 1), path)


def test_stacked_areas_add_up():
    x, a, b = torch.linspace(0, 1, 5), torch.rand(5), torch.rand(5)
    panels = {"one": {"a": a, "b": b}, "two": {"a": 5 + a}}
    picture = figures.stacked_panels(x, panels, "x", "y", "Two panels of areas.")
    one, two = picture.figure.axes
    assert [np.allclose(line.get_ydata(), values) for line, values in zip(one.lines, (a, a + b))] == [True, True]
    assert len(two.lines) == 1 and two.get_title() == "two"
    assert one.get_ylim() == two.get_ylim() and one.get_ylim()[0] == 0 and one.get_ylim()[1] > float((5 + a).max())
    assert [text.get_text() for text in one.get_legend().get_texts()] == ["a", "b"]


def test_a_panel_of_curves_may_hold_several_lines():
    picture = figures.curve_panels([1, 2], {"one": [1.0, 2.0], "two": {"a": [3.0, 4.0], "b": [5.0, 6.0]}}, "x", "y",
                                   "Two panels of curves.", ylim=(0, 7))
    one, two = picture.figure.axes
    assert (len(one.lines), len(two.lines), one.get_legend()) == (1, 2, None)
    assert two.get_ylim() == (0, 7)
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["a", "b"]

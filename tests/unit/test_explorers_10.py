"""Chapter 10's widget: its errors are those of sampling, and picture and caption follow both sliders."""

import itertools

import pytest
import torch

from gmvae_lib.explorers import GumbelExplorer
from gmvae_lib.figures import log_panels, simplex_panels, six_models
from gmvae_lib.figures.family import SIX, triangle

LOGITS = torch.tensor([0.5, 0.3, 0.2]).log()
CORNERS = torch.tensor([[3.0, 0.0], [1.0, 4.0], [0.0, 1.0]])


def cost(y):
    return 5 + (y @ CORNERS).square().sum(1)


@pytest.fixture(scope="module")
def panel():
    return GumbelExplorer(LOGITS, cost, ("a", "b", "c"))


def test_exact_gradient_is_autograds(panel):
    a = LOGITS.clone().requires_grad_()
    assert torch.allclose(panel.exact, torch.autograd.grad(a.softmax(0) @ cost(torch.eye(3)), a)[0], atol=1e-5)


def test_errors_agree_with_fresh_draws(panel):
    generator, q = torch.Generator().manual_seed(3), LOGITS.softmax(0)
    panel.n_draws.value = 10.0
    gumbel, plain, baseline = panel.errors()
    costs = cost(torch.eye(3))
    for b, expected in ((0.0, plain), (q @ costs, baseline)):
        c = torch.multinomial(q, 200_000, replacement=True, generator=generator)
        estimates = ((costs - b)[:, None] * (torch.eye(3) - q))[c].reshape(-1, 10, 3).mean(1)
        assert (estimates - panel.exact).square().sum(1).mean().sqrt().item() == pytest.approx(expected, rel=0.03)
    for at in (7, 13, 20):
        noise = -torch.log(-torch.log(torch.rand(200_000, 3, generator=generator).clamp(1e-7, 1 - 1e-7)))
        a = LOGITS.expand(200_000, 3).clone().requires_grad_()
        gradients, = torch.autograd.grad(cost(((a + noise) / 10.0**panel.exponents[at]).softmax(1)).sum(), a)
        estimates = gradients.reshape(-1, 10, 3).mean(1)
        found = (estimates - panel.exact).square().sum(1).mean().sqrt().item()
        assert found == pytest.approx(gumbel[at], rel=0.05)
    panel.n_draws.value = 1.0


def test_caption_and_picture_follow_every_slider(panel):
    for name, value in (("temperature", 0.1), ("n_draws", 100.0), ("temperature", 10.0), ("n_draws", 10_000.0)):
        before = panel.image.value, panel.status.value
        getattr(panel, name).value = value
        assert panel.error is None
        assert panel.image.value != before[0] and panel.status.value != before[1]
    assert "mostly by bias" in panel.status.value


def test_no_error_at_any_corner(panel):
    for temperature, n in itertools.product((panel.temperature.min, panel.temperature.max), (0, 4)):
        panel.temperature.value, panel.n_draws.value = 10.0**temperature, 10.0**n
        assert panel.error is None and "nan" not in panel.status.value


def test_six_models_are_drawn_and_named_in_words():
    picture = six_models()
    titles = [axis.get_title() for axis in picture.figure.axes]
    assert titles == list(SIX)
    assert all(name.removesuffix("'s") in picture.alt for name in SIX)
    for places, generate, *_ in SIX.values():
        assert all(letter in places for edge in generate for letter in edge)


def test_the_simplexs_corners_are_equally_far_apart():
    a, b, c = torch.tensor(triangle(torch.eye(3)))
    assert torch.allclose((a - b).norm(), (b - c).norm()) and torch.allclose((a - b).norm(), (a - c).norm())
    panels = simplex_panels({"one": torch.eye(3), "two": torch.eye(3)}, ("a", "b", "c"), "Two triangles with corners.")
    assert len(panels.figure.axes) == 2


def test_a_line_has_one_look_in_every_panel():
    x = torch.tensor([1.0, 10.0, 100.0])
    figure = log_panels({"left": ("x", "y", {"a": (x, x), "b": (x, x)}), "right": ("x", "y", {"b": (x, x)})},
                        "Two panels with lines.").figure
    left, right = figure.axes
    assert left.lines[1].get_color() == right.lines[0].get_color() != left.lines[0].get_color()
    assert left.get_xscale() == left.get_yscale() == "log"

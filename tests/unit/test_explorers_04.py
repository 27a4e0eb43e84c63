"""DivergenceExplorer shows the two divergences as they are, optimizes them, and says in words what changed."""

import math
import re

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

from gmvae_lib.explorers import DivergenceExplorer
from gmvae_lib.explorers.chapter_04 import Target

Z = torch.linspace(-30, 30, 60_001, dtype=torch.float64)


def density(target):
    weights = torch.tensor([target.share, 1 - target.share], dtype=torch.float64)
    means = torch.tensor([-target.apart, target.apart], dtype=torch.float64)
    return MixtureSameFamily(Categorical(weights), Normal(means, torch.full((2,), target.sd).double()))


def divergence(q, p):
    log_q, log_p = q.log_prob(Z), p.log_prob(Z)
    return float((log_q.exp() * (log_q - log_p)).sum() * (Z[1] - Z[0]))


@pytest.fixture(scope="module")
def made():
    return DivergenceExplorer()


@pytest.fixture
def panel(made):
    made.set_quietly(mean=2.5, sd=1.0, apart=2.0, share=0.625)
    return made


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


@pytest.mark.parametrize(("apart", "share"), [(0.0, 0.5), (1.0, 0.3), (3.5, 0.9375)])
@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (-3.0, 0.25), (1.5, 4.0)])
def test_divergences_equal_those_of_a_fine_grid(apart, share, mean, sd):
    target = Target(apart, share, 0.6)
    p, q = density(target), Normal(torch.tensor(mean).double(), sd)
    at = mean, math.log(sd)
    assert float(target.reverse(*at)) == pytest.approx(divergence(q, p), abs=2e-6)
    assert float(target.forward(*at)) == pytest.approx(divergence(p, q), abs=1e-6)


def test_the_lowest_places_are_lower_than_every_place_on_the_map(panel):
    target = Target(1.75, 0.4, 0.6)
    for function, place in ((target.reverse, target.lowest_reverse), (target.forward, target.best_forward())):
        values = function(panel.MEANS[None, ::4], panel.LOG_SDS[::4, None])
        assert float(function(*place)) <= values.min()
        assert values.shape == (14, 21)


def test_the_best_reverse_q_has_no_slope():
    target = Target(2.0, 0.6, 0.6)
    mean, log_sd = target.best_reverse(1.0, 0.0)
    for step in ((1e-4, 0), (0, 1e-4)):
        up, down = (float(target.reverse(mean + s * step[0], log_sd + s * step[1])) for s in (1, -1))
        assert abs(up - down) / 2e-4 < 1e-3


@pytest.mark.parametrize(("name", "value"), [("mean", 2.0), ("sd", 2.0), ("apart", 1.0), ("share", 0.25)])
def test_each_control_changes_picture_and_caption(panel, name, value):
    picture, said, before = panel.image.value, caption(panel), panel.divergences()
    getattr(panel, name).value = value
    assert panel.image.value != picture and caption(panel) != said
    now = panel.divergences()
    assert f"KL(q‖p) = {now[0]:.2f} nats" in caption(panel) and f"KL(p‖q) = {now[1]:.2f} nats" in caption(panel)
    for label, new, old in zip(("KL(q‖p)", "KL(p‖q)"), now, before):
        if abs(new - old) >= 0.005:
            assert f"{label} {'fell' if new < old else 'rose'} by {abs(new - old):.2f}" in caption(panel)


def test_optimizing_the_reverse_divergence_depends_on_the_start(panel):
    panel.reverse.click()
    assert panel.mean.value == pytest.approx(2.0, abs=0.1) and panel.sd.value == pytest.approx(0.6, rel=0.05)
    stuck = panel.divergences()[0]
    panel.set_quietly(mean=-2.5, sd=1.0)
    panel.reverse.click()
    assert panel.mean.value == pytest.approx(-2.0, abs=0.1)
    assert panel.divergences()[0] < stuck
    assert panel.divergences()[0] == pytest.approx(-math.log(0.625), abs=0.01)
    assert caption(panel).startswith("KL(q‖p) is now as low as it gets from where q stood")


def test_optimizing_the_forward_divergence_matches_the_moments(panel):
    panel.forward.click()
    p = density(panel._target)
    assert panel.mean.value == pytest.approx(float(p.mean), abs=1 / 32)
    assert panel.sd.value == pytest.approx(float(p.variance)**0.5, rel=0.03)
    low = float(panel._target.forward(*panel._target.best_forward()))
    assert panel.divergences()[1] == pytest.approx(low, abs=0.01)


def test_the_picture_shows_densities_cross_and_ring(panel):
    panel.set_quietly(mean=1.0, sd=2.0)
    z = torch.tensor(panel._z)
    assert np.allclose(panel._q.get_ydata(), Normal(1.0, 2.0).log_prob(z).exp())
    assert np.allclose(panel._p.get_ydata(), density(panel._target).log_prob(z).exp(), atol=1e-6)
    for cross in panel._crosses:
        assert [*cross.get_xdata(), *cross.get_ydata()] == [1.0, 1.0]
    mean, log_sd = panel._target.lowest_reverse
    assert [*panel._rings[0].get_xdata(), *panel._rings[0].get_ydata()] == pytest.approx([mean, log_sd / math.log(2)])
    exact = panel._target.reverse(panel.MEANS[None, ::4], panel.LOG_SDS[::4, None])
    shades = panel._images[0].get_array()[::4, ::4]
    assert (panel.BANDS[np.clip(shades - 1, 0, None)] <= exact + 0.05).all() and (np.ptp(shades) > 10)
    assert (np.append(panel.BANDS, np.inf)[shades] >= exact - 0.05).all()


def test_the_number_box_moves_q(panel):
    slider, box = panel.box.children[0].children[0].children
    box.value = -1.5
    assert slider.value == panel.mean.value == -1.5
    assert "q's mean went from 2.50 to −1.50" in caption(panel)


def test_every_corner_of_the_controls_can_be_drawn(panel):
    for apart in (0.0, 3.5):
        for share in (1 / 16, 15 / 16):
            panel.set_quietly(mean=-5.0, sd=2.0**-3, apart=apart, share=share)
            assert "nan" not in caption(panel) and "inf" not in caption(panel)
            panel.reverse.click()
            assert math.isfinite(panel.divergences()[0])


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")


def test_an_error_is_shown_in_the_panel(panel, monkeypatch):
    monkeypatch.setattr(panel, "divergences", lambda: 1 / 0)
    panel.mean.value = 0.5
    assert "This did not work" in panel.status.value
    monkeypatch.undo()
    panel.mean.value = 1.0
    assert panel.error is None

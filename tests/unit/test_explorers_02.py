"""EMExplorer follows its controls, says in words what they did, and shows what EM does."""

import re

import pytest
import torch

from gmvae_lib import em
from gmvae_lib.data import load
from gmvae_lib.explorers import EMExplorer

ARCH = [[-3, 3], [0, -2], [3, 3]]


@pytest.fixture
def panel():
    return EMExplorer(means=ARCH)


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


def test_the_run_is_em(panel):
    x = load("cigars", n_samples=panel.POINTS).x.double()
    steps, history = panel._run
    assert torch.equal(steps[0].means, torch.tensor(ARCH).double())
    for before, after, log_likelihood in zip(steps, steps[1:], history):
        expected, its = em.em_step(x, before, "full", 1e-4)
        assert its == pytest.approx(log_likelihood)
        assert all(torch.allclose(a, b) for a, b in zip(expected, after))
    assert all(b > a for a, b in zip(history, history[1:]))


def test_buttons_step_forward_and_back_and_stop_at_the_ends(panel):
    before = panel.image.value
    panel.back.click()
    assert panel.iteration.value == 0
    assert panel.image.value == before
    panel.on.click()
    assert panel.iteration.value == 1
    assert panel.image.value != before
    assert "Step 1 of" in caption(panel) and "rose by" in caption(panel)
    panel.back.click()
    assert panel.image.value == before
    panel.iteration.value = panel.STEPS
    assert panel.iteration.value == len(panel._run[1]) - 1
    assert "EM has converged" in caption(panel)
    panel.on.click()
    assert panel.iteration.value == len(panel._run[1]) - 1


def test_stepping_computes_nothing_again(panel, monkeypatch):
    monkeypatch.setattr(em, "em_step", None)  # would fail if it were called
    panel.iteration.value = 7
    assert "Step 7" in caption(panel)


def test_the_caption_tells_the_share_that_changed(panel):
    panel.iteration.value = 5
    weights = panel._run[0][5].weights
    k, share = map(int, re.search(r"Component (\d) now claims (\d+)%", caption(panel)).groups())
    assert share == round(100 * float(weights[k - 1]))


@pytest.mark.parametrize("family", EMExplorer.FAMILIES)
@pytest.mark.parametrize("data", EMExplorer.TOYS)
def test_every_choice_can_be_drawn(panel, data, family):
    panel.data.value, panel.family.value = data, family
    for n_components in (1, 3, 8):
        panel.k.value = n_components
        assert f"K = {n_components} on {data}" in caption(panel)
        assert panel._start.shape == (n_components, 2)
        panel.iteration.value = 20
        assert "rose by" in caption(panel)
        assert sum(name.get_visible() for name in panel._names) == n_components


def test_a_moved_start_is_a_new_run_from_there(panel):
    panel.iteration.value = 4
    before = panel.image.value
    panel.component.value = 2
    assert panel.image.value != before, "the chosen component is marked"
    assert (panel.x1.value, panel.x2.value) == (0.0, -2.0)
    assert panel.iteration.value == 4, "to choose a component changes nothing yet"
    panel.x2.value = -2.5
    assert panel._run[0][0].means[1].tolist() == [0.0, -2.5]
    assert panel.iteration.value == 0
    assert "Component 2 now starts at (0.00, −2.50)" in caption(panel)
    panel.reset.click()
    assert panel._run[0][0].means.tolist() == [[float(v) for v in row] for row in ARCH]
    assert panel.x2.value == -2.0


def test_moving_one_coordinate_leaves_the_other_exact_though_its_slider_shows_it_rounded(panel):
    panel.another.click()
    before = panel._start[0].clone()
    assert panel.x2.value != float(before[1])
    assert panel.x2.value == pytest.approx(float(before[1]), abs=0.126)
    panel.x1.value = 1.25
    assert panel._start[0].tolist() == [1.25, float(before[1])]


def test_fewer_components_bring_the_chosen_one_along(panel):
    panel.component.value = 3
    panel.k.value = 2
    assert panel.component.value == 2
    panel.component.value = 8
    assert panel.component.value == 2, "there is no component 8"


def test_another_start_differs_and_says_its_number(panel):
    first = panel._start.clone()
    panel.another.click()
    assert not torch.equal(panel._start, first)
    assert "Start number 2" in caption(panel)


def test_a_component_far_from_all_points_is_said_to_claim_nothing(panel):
    panel.set_quietly(component=1)
    panel.x1.value = -8
    panel.x2.value = -8
    panel.data.value = "moons"
    panel.family.value = "tied"
    panel.x1.value, panel.x2.value = 8, 8
    panel.on.click()
    assert "claims no point at all" in caption(panel)


def test_an_error_is_shown_in_the_panel(panel):
    panel._draw_step = None
    panel.iteration.value = 3
    assert "This did not work" in panel.status.value


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in data

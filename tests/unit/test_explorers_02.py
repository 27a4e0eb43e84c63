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


@pytest.fixture(scope="module")
def shared_panel():
    """One for all the choices: to build it takes longer than to use it."""
    return EMExplorer(means=ARCH)


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


def moved(run, t, x):
    """The mean log-likelihood and bound after round t's M-step, by torch.distributions."""
    def joint(i):
        gaussians = torch.distributions.MultivariateNormal(run.means[i], run.covariances[i])
        return run.weights[i].log() + gaussians.log_prob(x[:, None])

    resp = joint(t - 1).softmax(1)
    return joint(t).logsumexp(1).mean(), (resp * (joint(t) - resp.log())).sum(1).mean()


def test_the_run_is_em(panel):
    x = load("cigars", n_samples=panel.POINTS).x.double()
    run = panel._run
    assert torch.equal(run.means[0], torch.tensor(ARCH).double())
    for t, log_likelihood in enumerate(run.history[:-1]):
        before = em.Parameters(run.weights[t], run.means[t], run.covariances[t])
        expected, its = em.em_step(x, before, "full", 1e-4)
        assert its == pytest.approx(log_likelihood)
        found = run.weights[t + 1], run.means[t + 1], run.covariances[t + 1]
        assert all(torch.allclose(a, b) for a, b in zip(expected, found))
    assert all(b > a for a, b in zip(run.history, run.history[1:]))


@pytest.mark.parametrize("family", EMExplorer.FAMILIES)
def test_the_bound_is_a_staircase_that_touches_the_log_likelihood_after_each_e_step(panel, family):
    panel.family.value = family
    x = load("cigars", n_samples=panel.POINTS).x.double()
    run = panel._run
    assert len(run.bound) == run.last + 1
    assert run.bound[::2] == pytest.approx(run.history)
    for t in (1, 2, 5):
        log_likelihood, bound = moved(run, t, x)
        assert run.history[t] == pytest.approx(float(log_likelihood))
        assert run.bound[2 * t - 1] == pytest.approx(float(bound))
        assert bound < log_likelihood
    assert all(b > a - 1e-3 for a, b in zip(run.bound, run.bound[1:]))  # the floor costs a little


def test_buttons_step_forward_and_back_and_stop_at_the_ends(panel):
    before = panel.image.value
    panel.back.click()
    assert panel.iteration.value == 0
    assert panel.image.value == before
    panel.on.click()
    assert panel.iteration.value == 1
    assert panel.image.value != before
    assert "Round 1 of" in caption(panel) and "M-step" in caption(panel) and "rose by" in caption(panel)
    panel.on.click()
    assert "Round 1 of" in caption(panel) and "E-step" in caption(panel)
    panel.back.click()
    panel.back.click()
    assert panel.image.value == before
    panel.iteration.value = panel._run.last
    assert "EM has converged" in caption(panel)
    panel.on.click()
    assert panel.iteration.value == panel._run.last


def test_an_m_step_moves_the_outlines_and_an_e_step_the_colours(panel):
    def colours():
        return [cloud.get_facecolors().tolist() for cloud in panel._clouds[:3]]

    def places():
        return [name.get_position() for name in panel._names[:3]]

    panel.iteration.value = 4
    before = colours(), places()
    panel.on.click()
    assert colours() == before[0] and places() != before[1]
    before = colours(), places()
    panel.on.click()
    assert colours() != before[0] and places() == before[1]


def test_the_curves_show_the_run(panel):
    panel.iteration.value = 7
    run = panel._run
    assert list(panel._done.get_ydata())[1:] == pytest.approx(run.history[1:5])
    assert panel._done.get_ydata()[0] == panel._lowest > run.history[0], "a poor start is cut off"
    x, level = panel._bound.get_data()
    assert [float(v) for v in x] == [(i + 1) // 2 - 4 for i in range(8)]
    unit = (level[7] - level[5]) / (run.bound[7] - run.bound[5])  # nats, or thousandths of them
    assert unit == pytest.approx(1) or unit == pytest.approx(1000)
    assert f"{'10⁻³ ' if unit > 2 else ''}nats" in panel._close.get_ylabel()
    assert level[7] / unit == pytest.approx(run.bound[7] - run.history[4])
    assert list(panel._touched.get_ydata())[-1] == 0


def test_stepping_computes_nothing_again(panel, monkeypatch):
    monkeypatch.setattr(em, "step", None)  # would fail if it were called
    panel.iteration.value = 14
    assert "Round 7" in caption(panel)


def test_the_caption_tells_the_share_that_changed(panel):
    panel.iteration.value = 10
    weights = panel._run.weights[5]
    k, share = map(int, re.search(r"Component (\d) now claims (\d+)%", caption(panel)).groups())
    assert share == round(100 * float(weights[k - 1]))


@pytest.mark.parametrize("family", EMExplorer.FAMILIES)
@pytest.mark.parametrize("data", EMExplorer.TOYS)
def test_every_choice_can_be_drawn(shared_panel, data, family):
    panel = shared_panel
    panel.set_quietly(data=data, family=family)
    for n_components in (1, 3, 8):
        panel.k.value = n_components
        assert f"K = {n_components} on {data}" in caption(panel)
        assert panel._start.shape == (n_components, 2)
        panel.iteration.value = 20
        assert "E-step" in caption(panel)
        assert sum(name.get_visible() for name in panel._names) == n_components


def test_a_moved_start_is_a_new_run_from_there(panel):
    panel.iteration.value = 4
    before = panel.image.value
    panel.component.value = 2
    assert panel.image.value != before, "the chosen component is marked"
    assert (panel.x1.value, panel.x2.value) == (0.0, -2.0)
    assert panel.iteration.value == 4, "to choose a component changes nothing yet"
    panel.x2.value = -2.5
    assert panel._run.means[0, 1].tolist() == [0.0, -2.5]
    assert panel.iteration.value == 4, "the same step of another run, to compare"
    assert "Mean 2 now starts at (0.00, −2.50)" in caption(panel)
    panel.reset.click()
    assert panel.iteration.value == 0
    assert panel._run.means[0].tolist() == [[float(v) for v in row] for row in ARCH]
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
    assert [value for _, value in panel.component.options] == [1, 2]
    panel.k.value = 8
    panel.component.value = 8
    assert "mean 8" in caption(panel)


def test_whoever_looks_at_the_end_of_a_run_sees_the_end_of_the_next(panel):
    panel.iteration.value = panel._run.last
    for value in (-2.0, 0.0, 1.0):
        panel.x1.value = value
        assert panel.iteration.value == panel._run.last
        assert "EM has converged" in caption(panel)


def test_every_data_set_has_its_own_frame(panel):
    frames = set()
    for name in panel.TOYS:
        panel.data.value = name
        x = load(name, n_samples=panel.POINTS).x
        (left, right), (bottom, top) = panel._plane.get_xlim(), panel._plane.get_ylim()
        assert left < x[:, 0].min() and x[:, 0].max() < right
        assert bottom < x[:, 1].min() and x[:, 1].max() < top
        frames.add((left, right, bottom, top))
    assert len(frames) == len(panel.TOYS)


def test_a_kept_frame_gives_the_same_picture_as_one_drawn_anew(panel):
    panel.data.value = "moons"
    kept = panel.image.value
    panel.data.value = "cigars"
    panel.image.value = b""
    panel._toys.clear()
    panel.data.value = "moons"
    assert panel.image.value == kept


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
    panel._draw_points = None
    panel.iteration.value = 3
    assert "This did not work" in panel.status.value


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in data

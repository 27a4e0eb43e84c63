"""KExplorer follows its controls, shows the criteria as they are, and says in words what changed."""

import re

import numpy as np
import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.explorers import KExplorer
from gmvae_lib.explorers import chapter_03 as module
from gmvae_lib.mixture import GaussianMixture


class Small(KExplorer):
    """Fewer components, so that a panel is quick to make."""

    MOST, POINTS, NEW = 5, 120, 200


@pytest.fixture(scope="module")
def made():
    x = load("blobs", n_samples=120, seed=3).x.double()
    return Small({"mine": (x[:90], x[90:])}, n_components=2)


@pytest.fixture
def panel(made):
    made.set_quietly(data="mine", family="full", k=2)
    return made


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


@pytest.mark.parametrize("family", KExplorer.FAMILIES)
def test_scores_are_the_criteria_in_nats_per_point(panel, family):
    x, new = panel._data["mine"]
    fit = panel._fits["mine", family][2]
    model = GaussianMixture(3, family, n_init=2, tol=1e-3, reg_covar=1e-3 * float(x.var(0).mean())).fit(x)
    train, held, aic, bic, icl = fit.scores
    assert (train, held) == (pytest.approx(model.score(x)), pytest.approx(model.score(new)))
    assert train - aic == pytest.approx(fit.n_parameters / len(x))
    assert train - bic == pytest.approx(fit.n_parameters * np.log(len(x)) / (2 * len(x)))
    doubt = -torch.special.xlogy(resp := model.predict_proba(x), resp).sum() / len(x)
    assert bic - icl == pytest.approx(float(doubt), abs=1e-9)


def test_lines_and_rings_show_the_scores_and_their_best(panel):
    scores = np.array([fit.scores for fit in panel._fits["mine", "full"]])
    for i, (line, ring) in enumerate(zip(panel._lines, panel._rings)):
        assert np.allclose(line.get_xdata(), range(1, 6))
        assert np.allclose(line.get_ydata(), scores[:, i])
        assert ring.get_xdata()[0] == 1 + scores[:, i].argmax()
        assert ring.get_ydata()[0] == scores[:, i].max()
    named = dict(re.findall(r"(training|new points|AIC|BIC|ICL) (\d+)[,.]", caption(panel).split("Best K:")[1]))
    assert [int(named[judge]) for judge in module.JUDGES] == (1 + scores.argmax(0)).tolist()


def test_k_moves_the_mark_and_the_fit_and_the_caption_says_what_rose(panel):
    before = panel.image.value
    panel.k.value = 3
    assert panel.image.value != before
    assert list(panel._now.get_xdata()) == [3, 3]
    assert sum(name.get_visible() for name in panel._names) == 3
    x = panel._data["mine"][0]
    clouds = [np.asarray(cloud.get_offsets()) for cloud in panel._clouds[:3]]
    assert sum(map(len, clouds)) == len(x)
    said, fits = caption(panel), panel._fits["mine", "full"]
    assert "K = 3 on mine, full covariances" in said and "From K = 2 to 3" in said
    risen = re.search(r"From K = 2 to 3, (.*?) rose", said)[1].split(", ")
    assert risen == [j for j, new, old in zip(module.JUDGES, fits[2].scores, fits[1].scores) if new > old]


def test_the_box_and_the_slider_follow_each_other(panel):
    slider, box = panel.box.children[0].children[0].children
    box.value = 4
    assert slider.value == panel.k.value == 4
    assert "K = 4" in caption(panel)
    slider.value = 1
    assert box.value == 1


@pytest.mark.parametrize("data", ["mine", "cigars", "moons", "digits"])
def test_every_choice_is_drawn_without_any_fitting(panel, data, monkeypatch):
    monkeypatch.setattr(module, "GaussianMixture", None)  # would fail if it were called
    panel.data.value = data
    for family in panel.FAMILIES:
        panel.family.value = family
        for k in (1, panel.MOST):
            panel.k.value = k
            assert f"K = {k} on {data}, {family} covariances" in caption(panel)


def test_the_caption_names_what_was_exchanged(panel):
    panel.family.value = "tied"
    assert "The covariances are now tied instead of full." in caption(panel)
    panel.data.value = "moons"
    assert "The data are now moons instead of mine." in caption(panel)


def test_points_lie_within_the_frame_and_circles_look_round(panel):
    for name in panel.data.options:
        panel.data.value = name
        axis, x = panel._clouds[0].axes, panel._data[name][0].numpy()
        (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
        assert (x.min(0) > (left, bottom)).all() and (x.max(0) < (right, top)).all()
        box = axis.get_window_extent()
        assert box.width / (right - left) == pytest.approx(box.height / (top - bottom), rel=1e-6)


def test_without_own_data_a_toy_comes_first():
    class Tiny(Small):
        MOST = 2

    panel = Tiny(toys=["cigars"])
    assert panel.data.value == "cigars"
    assert "K = 2" in caption(panel), "a K beyond the largest is held there"


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_an_error_is_shown_in_the_panel():
    class Broken(Small):
        MOST = 1

        def _draw_fit(self, x, fit):
            raise RuntimeError("no colours")

    assert "This did not work" in Broken(toys=["cigars"]).status.value

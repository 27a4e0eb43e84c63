"""BugExplorer: the right program always passes, each wrong one is caught, and by the tests that the chapter names."""

import itertools
import re

import numpy as np
import pytest
import torch

from gmvae_lib.explorers import BugExplorer
from gmvae_lib.explorers.chapter_13 import PROGRAMS, TESTS

RIGHT, EARLY, INSIDE, BRACKET, LOUD = PROGRAMS


@pytest.fixture(scope="module")
def made():
    return BugExplorer()


@pytest.fixture
def panel(made):
    made.set_quietly(program=EARLY, apart=3.0, variance=1.0, weight=0.5)
    return made


def caption(panel):
    assert panel.error is None, panel.error
    return re.sub("<[^>]+>", "", panel.status.value)


def failing(panel, **values):
    panel.set_quietly(**values)
    return [name for name, (_, passed) in zip(TESTS, panel.results()[0]) if not passed]


@pytest.mark.parametrize("variance", [0.25, 1.0, 2.0, 3.0])
def test_the_right_program_passes_everywhere(panel, variance):
    for apart, weight in itertools.product((0.0, 0.5, 1.5, 2.75, 4.0), (0.125, 0.5, 0.875)):
        assert failing(panel, program=RIGHT, apart=apart, variance=variance, weight=weight) == []


def test_each_wrong_program_is_caught_by_the_tests_that_one_would_think_of(panel):
    assert failing(panel, program=EARLY) == ["Draws fall where it says"]
    assert {"It adds up to one", "Twins count as one"} <= set(failing(panel, program=INSIDE))
    assert "One component is a Gaussian" in failing(panel, program=BRACKET, variance=2.0)
    assert "Draws spread as it says" in failing(panel, program=LOUD, variance=3.0)


def test_each_of_the_hidden_cases_hides(panel):
    """The chapter asks for mixtures for which no test notices, and says that one program has none."""
    assert failing(panel, program=EARLY, apart=0.0) == []
    assert failing(panel, program=BRACKET, variance=1.0) == []
    assert failing(panel, program=LOUD, variance=1.0) == []
    for apart, variance, weight in itertools.product((0.0, 2.0, 4.0), (0.25, 1.0, 3.0), (0.125, 0.5, 0.875)):
        assert failing(panel, program=INSIDE, apart=apart, variance=variance, weight=weight)


def test_the_order_never_matters_here(panel):
    for program in PROGRAMS:
        assert "The order does not matter" not in failing(panel, program=program, variance=2.0, weight=0.25)


@pytest.mark.parametrize(("name", "value"), [("apart", 1.0), ("variance", 2.0), ("weight", 0.25), ("program", INSIDE)])
def test_each_control_changes_picture_and_caption(panel, name, value):
    picture, said = panel.image.value, caption(panel)
    getattr(panel, name).value = value
    assert panel.image.value != picture and caption(panel) != said and "now" in caption(panel)


def test_the_caption_names_the_tests_that_notice(panel):
    assert "1 of six notice: “Draws fall where it says”." in caption(panel)
    panel.apart.value = 0.0
    assert "No test notices, and yet the program is wrong" in caption(panel)
    assert "Before, 1 of the six tests failed." in caption(panel)
    panel.program.value = RIGHT
    assert "All six pass" in caption(panel)


def test_the_picture_shows_density_draws_and_verdicts(panel):
    results, log_p, z = panel.results()
    size = len(panel._axis)
    assert np.allclose(panel._image.get_array(), log_p.exp().reshape(size, size).T)
    assert np.allclose(np.stack(panel._dots.get_data(), 1), z[:panel.SHOWN])
    verdicts = [mark.get_text() for mark in panel._marks]
    assert verdicts == ["✓ passed" if passed else "✗ FAILED" for _, passed in results]
    assert len({mark.get_color() for mark in panel._marks}) == 2


def test_the_wrong_density_is_the_product_of_mixtures(panel):
    formula = PROGRAMS[EARLY][0]
    z = torch.tensor([[-3.0, 3.0]], dtype=torch.float64)
    assert float(formula(z, *panel.parameters())) == pytest.approx(-3.224, abs=1e-3)
    assert float(PROGRAMS[RIGHT][0](z, *panel.parameters())) == pytest.approx(-19.838, abs=1e-3)


def test_the_static_picture_has_the_panels_description(panel):
    data, metadata = panel._repr_mimebundle_()
    assert data["text/plain"] == panel.title == metadata["image/png"]["alt"]
    assert data["image/png"].startswith(b"\x89PNG")


def test_an_error_is_shown_in_the_panel(panel, monkeypatch):
    monkeypatch.setattr(panel, "results", lambda: 1 / 0)
    panel.apart.value = 0.5
    assert "This did not work" in panel.status.value
    monkeypatch.undo()
    panel.apart.value = 1.0
    assert panel.error is None

"""Chapter 0's exercise recognizes its solution and its mistakes."""

import pytest

from gmvae_lib.exercises import diagnose


def untouched(x):
    raise NotImplementedError


def test_the_solution_passes_and_an_untouched_stub_is_no_mistake():
    assert diagnose("0.1", lambda x: sum(x) / len(x))[0] == "right"
    assert diagnose("0.1", untouched) == ("empty", "not attempted yet.")


@pytest.mark.parametrize(("attempt", "words"), [
    (lambda x: x.sum(1) / x.shape[1], "averaged over the pixels"),
    (lambda x: float(x.sum()) / x.numel(), "averaged over everything"),
    (lambda x: sum(x), "without dividing"),
    (lambda x: x.mean(0) + 1, "values differ"),
])
def test_mistakes_are_named(attempt, words):
    verdict, sentence = diagnose("0.1", attempt)
    assert verdict == "wrong"
    assert words in sentence

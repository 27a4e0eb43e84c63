"""The engine of the exercises: right, wrong in a known way, wrong in another, and empty."""

import sys
import types

import numpy as np
import pytest
import torch

from gmvae_lib.exercises import Exercise, check, diagnose, find


@pytest.fixture(autouse=True)
def chapter(monkeypatch):
    """A chapter 97 with a few exercises."""
    module = types.ModuleType("gmvae_lib.exercises.chapter_97")
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    module.EXERCISES = {
        "97.1": Exercise(lambda: [(x,), (x - 4,)], lambda x: x.sum(1),
                         {"you summed over the points, not the dimensions.": lambda x: x.sum(0),
                          "you took the mean.": lambda x: x.mean(1)}, hint="Look at the first row."),
        "97.2": Exercise(lambda: [(x,)], lambda x: (x.sum(), x.amax(0))),
        "97.3": Exercise(lambda: [(x, np.ones(3))], lambda x, w: torch.full((2,), -torch.inf)),
        "97.4": Exercise(lambda: [(3.0,)], lambda a: a * 1e6, tolerance=1e-3),
    }
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(("name", "attempt"), [
    ("97.1", lambda x: x @ torch.ones(2)), ("97.1", lambda x: x.numpy().sum(1)), ("97.1", lambda x: x.sum(1).tolist()),
    ("97.1", lambda x: x.sum(1) + 1e-6), ("97.1", lambda x: x.double().sum(1)),
    ("97.1", lambda x: x.requires_grad_().sum(1)),
    ("97.2", lambda x: (11.0, [3.0, 5.0])), ("97.2", lambda x: [11, torch.tensor([3, 5])]),
    ("97.3", lambda x, w: torch.tensor([-torch.inf, -torch.inf])), ("97.4", lambda a: 3000001),
])
def test_a_right_answer_is_right_in_whatever_form(name, attempt):
    assert diagnose(name, attempt) == ("right", "correct.")


def stub(x):
    raise NotImplementedError


@pytest.mark.parametrize("attempt", [stub, lambda x: None, lambda x: ...])
def test_an_untouched_stub_is_not_attempted_yet(attempt, capsys):
    assert diagnose("97.1", attempt) == ("empty", "not attempted yet.")
    check("97.1", attempt)
    assert capsys.readouterr().out == "Exercise 97.1: not attempted yet.\n"


@pytest.mark.parametrize(("attempt", "sentence"), [
    (lambda x: x.sum(0), "not yet: you summed over the points, not the dimensions."),
    (lambda x: x.mean(1), "not yet: you took the mean."),
    (lambda x: x.sum(1) * 1.01, "not yet: the values differ. Look at the first row."),
    (lambda x: x, "not yet: your result has shape (2, 2), expected (2,). Look at the first row."),
    (lambda x: x.sum(1) * float("nan"), "not yet: your result holds NaN. Look at the first row."),
    (lambda x: "twelve", "not yet: expected a number or a tensor. Look at the first row."),
    (lambda x: x.sum(1) + torch.inf, "not yet: the values differ. Look at the first row."),
    (lambda x: x.no_such_thing, "your code raised AttributeError: 'Tensor' object has no attribute 'no_such_thing'"),
    (lambda: 3, "your code raised TypeError: "),
])
def test_a_wrong_answer_gets_its_own_sentence(attempt, sentence, capsys):
    verdict, said = diagnose("97.1", attempt)
    assert verdict == "wrong" and said.startswith(sentence)
    check("97.1", attempt)
    assert capsys.readouterr().out.startswith(f"Exercise 97.1: {sentence}")


def test_an_answer_right_on_the_first_case_only_is_wrong():
    assert diagnose("97.1", lambda x: x.sum(1).abs())[0] == "wrong"


@pytest.mark.parametrize("attempt", [lambda x: x.sum(), lambda x: (x.sum(),), lambda x: (x.sum(), x.amax(0), 3)])
def test_the_number_of_results_is_named(attempt):
    assert diagnose("97.2", attempt)[1].startswith("not yet: expected 2 results.")


def test_an_attempt_that_works_in_place_spoils_no_input():
    assert diagnose("97.1", lambda x: x.mul_(1).sum(1))[0] == "right"
    assert diagnose("97.1", lambda x: x.zero_().sum(1))[0] == "wrong"
    assert diagnose("97.1", lambda x: x.sum(1))[0] == "right"

    def attempt(x, w):
        assert w.sum() == 3
        w[:] = 0
        return torch.full((2,), -torch.inf)

    case = find("97.3").cases()
    object.__setattr__(find("97.3"), "cases", lambda: case)
    assert diagnose("97.3", attempt)[0] == diagnose("97.3", attempt)[0] == "right"


def test_an_unknown_exercise_is_named_with_those_there_are():
    with pytest.raises(KeyError, match="no exercise 97.9: known are 97.1, 97.2"):
        check("97.9", stub)
    for name in ("98.1", "x.1", "1234"):
        with pytest.raises(KeyError, match=f"no exercise {name}: chapter .* has none"):
            check(name, stub)


def test_stopping_a_long_attempt_stops_it():
    """Only errors are feedback: an interrupt is the reader's own wish."""
    def attempt(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnose("97.1", attempt)

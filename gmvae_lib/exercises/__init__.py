"""`check(name, attempt)`: feedback for the exercises that names the likely mistake.

Each chapter's exercises are data, in `chapter_NN.EXERCISES`: inputs, a solution, and the mistakes that readers make,
each as code with the sentence that names it.
"""

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    cases: a function that returns the list of argument tuples on which an attempt is tried.
    solution: the right function of those arguments.
    mistakes: from the sentence that names a mistake to the function that makes it.
    tolerance: the largest difference allowed, relative to the answer's largest magnitude.
    hint: what to say where no known mistake fits.
    """

    cases: Callable[[], list]
    solution: Callable
    mistakes: dict[str, Callable] = field(default_factory=dict)
    tolerance: float = 1e-5
    hint: str = "Print your result beside the formula's, for one point."


def check(name, attempt):
    """Tries `attempt`, a function, on the exercise's cases and prints what it found. KeyError if there is none."""
    print(f"Exercise {name}: {diagnose(name, attempt)[1]}")


def diagnose(name, attempt):
    """Returns (verdict, sentence), where the verdict is "empty", "right" or "wrong"."""
    exercise = find(name)
    cases = exercise.cases()
    for passed, arguments in enumerate(cases):
        try:
            answer = attempt(*_copies(arguments))
        except NotImplementedError:
            return "empty", "not attempted yet."
        except Exception as error:  # whatever a reader's code raises is feedback for the reader
            return "wrong", f"your code raised {type(error).__name__}: {error}"
        if answer is None or answer is Ellipsis:
            return "empty", "not attempted yet."
        truth = exercise.solution(*_copies(arguments))
        problem = _difference(answer, truth, exercise.tolerance)
        if problem is None:
            continue
        for sentence, mistake in exercise.mistakes.items():
            if _difference(answer, mistake(*_copies(arguments)), exercise.tolerance) is None:
                return "wrong", f"not yet: {sentence}"
        where = f"right in {passed} of {len(cases)} cases, but then " if passed else ""
        return "wrong", f"not yet: {where}{problem} {exercise.hint}"
    return "right", "correct."


def find(name):
    """The `Exercise` named "chapter.number"; KeyError, naming those there are, if there is none."""
    chapter = str(name).split(".")[0]
    try:
        known = importlib.import_module(f"gmvae_lib.exercises.chapter_{chapter:0>2}").EXERCISES
    except ModuleNotFoundError:
        raise KeyError(f"There is no exercise {name}: chapter {chapter} has none.") from None
    if name not in known:
        raise KeyError(f"There is no exercise {name}: known are {', '.join(known)}.")
    return known[name]


def _copies(arguments):
    """So that an attempt that works in place spoils nobody else's input."""
    mutable = (np.ndarray, list, dict)
    return [value.clone() if isinstance(value, torch.Tensor) else copy.copy(value) if isinstance(value, mutable)
            else value for value in arguments]


def _difference(answer, truth, tolerance):
    """What distinguishes two answers, as a sentence, or None. Tuples are compared part by part."""
    if isinstance(truth, tuple):
        if not isinstance(answer, (tuple, list)) or len(answer) != len(truth):
            return f"expected {len(truth)} results."
        problems = (_difference(a, t, tolerance) for a, t in zip(answer, truth, strict=True))
        return next((problem for problem in problems if problem), None)
    answer, truth = _tensor(answer), _tensor(truth)
    if answer is None:
        return "expected a number or a tensor."
    if answer.shape != truth.shape:
        return f"your result has shape {tuple(answer.shape)}, expected {tuple(truth.shape)}."
    if answer.isnan().any() and not truth.isnan().any():
        return "your result holds NaN."
    scale = max(1e-12, float(truth[truth.isfinite()].abs().max())) if truth.isfinite().any() else 1.0
    if not torch.allclose(answer, truth, rtol=0, atol=tolerance * scale, equal_nan=True):
        return "the values differ."
    return None


def _tensor(value: Any):
    try:
        return torch.as_tensor(value).detach().to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None

"""What holds for every chapter's exercises. The files beside this one add independent solutions to it."""

import importlib
import pkgutil

import pytest

from gmvae_lib import exercises
from gmvae_lib.exercises import diagnose, find

NAMES = [name for module in pkgutil.iter_modules(exercises.__path__)
         for name in importlib.import_module(f"gmvae_lib.exercises.{module.name}").EXERCISES]


@pytest.mark.parametrize("name", NAMES)
def test_solution_is_right(name):
    assert diagnose(name, find(name).solution) == ("right", "correct.")


@pytest.mark.parametrize(("name", "sentence"), [(n, s) for n in NAMES for s in find(n).mistakes])
def test_planted_mistake_is_named(name, sentence):
    assert diagnose(name, find(name).mistakes[sentence]) == ("wrong", f"not yet: {sentence}")


@pytest.mark.parametrize("name", NAMES)
def test_untouched_stub_is_not_attempted(name):
    def stub(*_):
        raise NotImplementedError

    assert diagnose(name, stub) == ("empty", "not attempted yet.")

"""Every notebook has the structure that readers, screen readers, lecturers and GitHub rely on."""

import pytest
from build import ROOT, difference, machine_paths, pairs

from tests.notebooks.structure import CHECKS, Page

PAIRS = pairs()
NOTEBOOKS = [notebook for _, notebook in PAIRS]


def name(path):
    return path.relative_to(ROOT / "notebooks").as_posix()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_structure(path, check):
    problems = list(check(Page.read(path)))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(("source", "notebook"), PAIRS, ids=[name(notebook) for notebook in NOTEBOOKS])
def test_notebook_is_in_step_with_its_source(source, notebook):
    assert notebook.exists(), "never built: make notebooks"
    assert difference(source, notebook) is None, f"make notebooks\n{difference(source, notebook)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_outputs_name_no_path_of_the_building_machine(path):
    assert machine_paths(Page.read(path).notebook) == []


def test_every_notebook_has_a_source():
    written = {p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert written == set(NOTEBOOKS)


def test_there_is_a_first_chapter():
    assert ROOT / "notebooks" / "00_start_here.ipynb" in NOTEBOOKS

"""The builder executes what changed, and a failure leaves the notebook that was there."""

import sys

import build
import nbformat
import pytest

SOURCE = "# %% [markdown]\n# # Toy\n\n# %%\n{}\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    course = tmp_path_factory.mktemp("course")
    (course / "notebooks" / "src").mkdir(parents=True)
    (course / "gmvae_lib").mkdir()
    write(course, "1 + 1")
    return course


@pytest.fixture
def run(course, monkeypatch, capsys):
    """Call the builder; returns what it prints and, if it fails, why."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["build.py", "--root", str(course), *arguments])
        try:
            build.main()
        except SystemExit as stop:
            return "".join(capsys.readouterr()) + str(stop)
        return "".join(capsys.readouterr())

    return run


def write(course, code):
    (course / "notebooks" / "src" / "02_toy.py").write_text(SOURCE.format(code))


def result(course):
    cells = nbformat.read(course / "notebooks" / "02_toy.ipynb", as_version=4).cells
    return cells[1].outputs[0].data["text/plain"]


def test_a_notebook_is_built_when_source_or_library_changed(course, run):
    said = run()
    assert "02_toy: new, running" in said
    assert " s, peak " in said
    assert result(course) == "2"
    assert "up to date" in run()
    (course / "gmvae_lib" / "data.py").touch()
    assert "library changed" in run("02")
    write(course, "1 + 2")
    assert "source changed" in run()
    assert result(course) == "3"


@pytest.mark.parametrize(
    ("code", "message"),
    [("missing_name", "NameError"), ("print('/home/ada/course')", "/home/ada")],
)
def test_a_failure_is_loud_and_leaves_the_notebook_as_it_was(course, run, code, message):
    path = course / "notebooks" / "02_toy.ipynb"
    path.write_text("as it was")
    write(course, code)
    said = run("--all")
    assert "02_toy: FAILED" in said
    assert "failed: 02_toy" in said
    assert message in said
    assert path.read_text() == "as it was"


def test_an_unknown_name_is_refused(run):
    assert "no source begins with 03; there are 02_toy" in run("03")

"""The Makefile installs once, says what it needs, and takes its variables."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def installed(tmp_path):
    """A folder in which everything seems to be installed, by its stamps."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    stamps = [tmp_path / ".venv" / name for name in ("bin/python", "torch-.stamp", "lab-.stamp", "test-.stamp")]
    for n, path in enumerate(stamps):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (time.time() + n, time.time() + n))
    return tmp_path


@pytest.mark.parametrize("target", ["lab", "test"])
def test_nothing_is_installed_twice(installed, target):
    said = make(installed, "-n", target)
    assert said.returncode == 0
    assert "pip" not in said.stdout


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_change_of_the_requirements_installs_again(installed, changed):
    os.utime(installed / changed, (time.time() + 60, time.time() + 60))
    assert "pip" in make(installed, "-n", "test").stdout


def test_torch_comes_from_pytorchs_index_where_asked_for(installed):
    said = make(installed, "-n", "lab", "TORCH=cu130").stdout
    assert "--index-url https://download.pytorch.org/whl/cu130 torch" in said
    assert "download.pytorch.org" not in make(installed, "-n", "lab").stdout


def test_variables_reach_jupyterlab_and_pytest(installed):
    assert "--port 9000" in make(installed, "-n", "lab", "LAB_ARGS=--port 9000").stdout
    assert "-k em -x" in make(installed, "-n", "test", "ARGS=-k em -x").stdout


def test_an_old_python_is_named_and_the_way_out_too(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    said = make(tmp_path, ".venv/bin/python", f"PYTHON={old}")
    assert said.returncode != 0
    for words in ("needs Python 3.11 or newer", "Python 3.9.2", "make lab PYTHON=python3.12"):
        assert words in said.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_python_without_venv_is_told_what_to_install(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    bare.chmod(0o755)
    said = make(tmp_path, ".venv/bin/python", f"PYTHON={bare}")
    assert said.returncode != 0
    assert "apt install python3-venv" in said.stderr

"""`make lint`, as part of `make test`."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", [("ruff", "check", "."), ("codespell",)], ids=["ruff", "codespell"])
def test_lint_is_clean(command):
    tool = Path(sys.executable).parent / command[0]
    found = subprocess.run([tool, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr

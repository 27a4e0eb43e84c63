"""What only time shows: `make soak`, about a quarter of an hour of processor time; `make test` does a little of each.

Two thousand random moves in each widget are, at one a second, more than seven hours of readers who never rest.
"""

import gc
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.faults import restless
from tests.faults.kills import kill_often

MOVES = 2000  # in each widget
WARM = 1200  # of these before memory counts: by then caches are full, and the allocator has what it needs
ROUNDS = 25  # how often a widget's cell is run again
ROOT = Path(__file__).parents[2]
CHAPTERS = {f"{path.parent.name}-{path.stem[:2]}": path for path in (ROOT / "notebooks" / "src").rglob("*.py")}
FLAT = 8.0  # MB by which memory may differ, of some 500: what the allocator itself comes and goes by


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(restless.exported()))
def test_thousands_of_random_moves_leave_memory_flat(name, record_property):
    """The median of the last quarter's readings after the warm-up, against that of the first quarter's."""
    readings = []
    panel = restless.play(name, MOVES, each=lambda n: readings.append(restless.memory())
                          if n >= WARM and n % 40 == 0 else None)
    quarter = len(readings) // 4
    growth = statistics.median(readings[-quarter:]) - statistics.median(readings[:quarter])
    record_property(f"{name}, {MOVES} moves: memory", f"{growth:+.1f} MB, of {readings[-1]:.0f}")
    assert growth < FLAT, readings
    gc.collect()
    assert panel() is None


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(restless.exported()))
def test_a_cell_run_again_and_again_leaves_nothing(name, record_property):
    """Panels that are closed, one after the other: their memory is used again."""
    readings = []
    for seed in range(ROUNDS):
        restless.play(name, 5, seed)
        readings.append(restless.memory())
    growth = statistics.median(readings[-5:]) - statistics.median(readings[5:10])
    record_property(f"{name}, built and closed {ROUNDS} times: memory", f"{growth:+.1f} MB, of {readings[-1]:.0f}")
    assert growth < FLAT, readings


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_two_hundred_kills_leave_the_training_that_it_would_have_been(tmp_path, record_property):
    cut, between, epochs = kill_often(tmp_path / "model.safetensors", 200, seed=1, timeout=3000)
    assert cut + between >= 200
    assert os.listdir(tmp_path) == ["model.safetensors"]
    record_property("kills", f"{cut} within a save, {between} elsewhere, in {epochs} epochs")


@pytest.mark.timeout(3600)
@pytest.mark.skipif(torch.__version__ < "2.13", reason="devices in Python, which make the fake one, need PyTorch 2.13")
@pytest.mark.parametrize("name", sorted(CHAPTERS))
def test_a_chapter_runs_unchanged_where_the_best_device_mixes_with_no_other(name):
    """As on a GPU for games, on which EM computes in float32: all the chapter's assertions hold."""
    command = [sys.executable, "-m", "tests.unit.fake_device", str(CHAPTERS[name])]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200,
                         env={**os.environ, "MPLBACKEND": "agg"})
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert "The best device was asked for" in run.stdout

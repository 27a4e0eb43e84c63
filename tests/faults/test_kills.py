"""A training that is killed outright, a few times; `make soak` does it two hundred times."""

import os
import time

import pytest

from gmvae_lib.training import save_checkpoint
from gmvae_lib.vae import VAE
from tests.faults.kills import kill_often


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_training_killed_again_and_again_is_that_without_a_break(tmp_path, record_property):
    cut, between, epochs = kill_often(tmp_path / "model.safetensors", 10)
    assert cut + between >= 10 and cut and between
    assert os.listdir(tmp_path) == ["model.safetensors"]
    record_property("kills", f"{cut} within a save, {between} elsewhere, in {epochs} epochs")


def test_what_killed_savings_left_is_cleared_away_after_an_hour(tmp_path):
    """Not at once: another process, or one on another machine that shares the folder, may still be writing it."""
    kept = {name: tmp_path / name for name in ("m.safetensors.1.part", "n.safetensors.2.part", "[m].safetensors")}
    old = tmp_path / "m.safetensors.3.part"
    for path in (*kept.values(), old):
        path.write_bytes(b"half")
    for path in (kept["n.safetensors.2.part"], old):
        os.utime(path, (time.time() - 3700,) * 2)
    save_checkpoint(tmp_path / "m.safetensors", VAE.build(4, 2, (3,)))
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "m.safetensors"])

"""Chapter 12's times: measured by loops that train, and kept by machine."""

import json

import pytest
import torch

from gmvae_lib.pretrained import speed


def test_the_loops_are_the_same_training(monkeypatch):
    monkeypatch.setattr(speed, "BATCH", 8)
    x, losses = 255.0 * torch.ones(8, 784), []
    for loop in (speed.plain_loop, speed.resident_loop):  # one batch: no order to differ in
        torch.manual_seed(0)
        model = speed.build()
        torch.manual_seed(1)
        losses.append(loop(model, x, 3))
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_what_is_measured_is_seconds_for_an_epoch(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(speed.time, "process_time", lambda: float(next(ticks)))
    monkeypatch.setattr(speed, "runs", lambda device, x, on_device: {name: lambda n: None for name in speed.LOOPS[:3]})
    rows = speed.measure("this", "cpu", steps=2, repeats=1)
    assert [row["loop"] for row in rows] == list(speed.LOOPS[:3])
    assert all(row == {"machine": "this", "loop": row["loop"], "seconds": 235 / 2} for row in rows)


def test_a_machine_s_rows_replace_its_own_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "FOLDER", tmp_path)
    a, b, c = ({"machine": m, "loop": "fit", "seconds": s} for m, s in (("α", 1.0), ("other", 2.0), ("α", 3.0)))
    speed.write([a])
    speed.write([b])
    speed.write([c])
    assert speed.load_speed() == [b, c]
    assert "α" in (tmp_path / "speed.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "speed.json").read_text(encoding="utf-8")) == [b, c]


def test_shipped_rows_are_of_known_loops_and_have_a_gpu_with_all_that_the_chapter_asks_for():
    rows = speed.load_speed()
    assert all(row["machine"] and (row["loop"] in speed.LOOPS or {"cpu", "gpu"} <= row.keys()) for row in rows)
    machines = {row["machine"] for row in rows}
    assert len({(row["machine"], row["loop"]) for row in rows}) == len(rows)
    gpus = [machine for machine in machines if "GPU" in machine]
    assert len(gpus) == 1
    loops = {row["loop"] for row in rows if row["machine"] == gpus[0] and row.get("seconds", 0) > 0}
    assert {speed.LOOPS[i] for i in (0, 2, 4, 5)} <= loops

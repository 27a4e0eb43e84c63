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
    found = {"a": iter([9.0, 1.0, 5.0, 2.0]), "b": iter([9.0, 4.0, 4.0, 4.0])}  # the first run is a warm-up
    monkeypatch.setattr(speed, "loops", lambda *_: {name: lambda n, times=times: next(times)
                                                    for name, times in found.items()} | {speed.LOOPS[2]: lambda n: n})
    threads = torch.get_num_threads()
    rows = speed.measure("this", "cpu", steps=5, repeats=3)
    assert [(row["loop"], row["seconds"]) for row in rows] == [("a", 2 * 47), ("b", 4 * 47), (speed.LOOPS[2], 5 * 47)]
    assert {row["machine"] for row in rows} == {"this"} and torch.get_num_threads() == threads


def test_every_loop_trains_the_steps_that_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(speed, "BATCH", 4)
    monkeypatch.setattr(speed.shutil, "which", lambda name: None)  # compiling takes long
    x, device = 255.0 * torch.randint(0, 2, (8, 784)).float(), torch.device("cpu")
    functions = speed.loops(device, x, x)
    assert list(functions) == [name for name in speed.LOOPS if name not in (speed.LOOPS[1], speed.LOOPS[3])]
    assert all(run(2) > 0 for run in functions.values())


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
    for machine in gpus:
        loops = {row["loop"] for row in rows if row["machine"] == machine and row.get("seconds", 0) > 0}
        assert {speed.LOOPS[i] for i in (0, 2, 4, 5)} <= loops
    assert gpus

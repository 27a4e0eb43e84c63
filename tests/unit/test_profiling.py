"""Records of where time goes: complete, in order, and without a word on standard error."""

import subprocess
import sys
import time

import torch

from gmvae_lib.profiling import Operation, record, totals


def test_every_product_is_recorded_and_the_times_add_up():
    a = torch.randn(300, 300)

    def run():
        for _ in range(5):
            a.mm(a).relu()

    began = time.perf_counter()
    found = record(run, warm_up=2)
    elapsed = time.perf_counter() - began
    names = [operation.name for operation in found]
    assert names.count("mm") == 5 and names.count("relu") == 5
    assert [operation.start for operation in found] == sorted(operation.start for operation in found)
    assert found[0].start == 0 and {operation.on for operation in found} == {"cpu"}
    assert 0 < sum(operation.seconds for operation in found) < elapsed


def test_what_an_operation_calls_is_not_counted_twice():
    x, layer = torch.randn(1500, 1500), torch.nn.Linear(1500, 1500)  # long beside what a busy machine adds to the call
    found = totals(record(lambda: layer(x)))
    assert found["addmm"][0] > found["linear"][0] and found["addmm"][1] == 1


def test_totals_are_sums_by_name_the_longest_first():
    rows = [Operation("a", 0.0, 1.0, "cpu"), Operation("b", 1.0, 3.0, "cpu"), Operation("a", 4.0, 1.5, "cpu"),
            Operation("k", 0.5, 9.0, "gpu")]
    assert list(totals(rows).items()) == [("b", (3.0, 1)), ("a", (2.5, 2))]
    assert totals(rows, "gpu") == {"k": (9.0, 1)}


def test_the_profiler_writes_nothing_and_python_s_errors_still_show():
    code = ("import sys, torch; from gmvae_lib.profiling import record; record(lambda: torch.ones(3) + 1); "
            "print('after', file=sys.stderr)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (run.stdout, run.stderr) == ("", "after\n")

"""Where a program's time goes: PyTorch's profiler, with its record as plain numbers for a picture."""

import os
import sys
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


class Operation(NamedTuple):
    """One operation of PyTorch: when it began and how long it took, in seconds since the record began, and on what:
    "cpu", or "gpu" for the work that the processor had asked a GPU for. The time of what it calls is not in it."""

    name: str
    start: float
    seconds: float
    on: str


def record(run, warm_up=1):
    """The `Operation`s of one call of `run`, in their order, after `warm_up` calls that are not recorded."""
    for _ in range(warm_up):
        run()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
    with _quiet_stderr(), profile(activities=activities) as profiler:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.time_range.end > event.time_range.start]
    began = min((event.time_range.start for event in events), default=0)
    found = []
    for event in sorted(events, key=lambda event: event.time_range.start):
        on_cpu = event.device_type == torch.autograd.DeviceType.CPU
        spent = event.self_cpu_time_total if on_cpu else event.time_range.end - event.time_range.start
        name = event.name.removeprefix("aten::")
        found.append(Operation(name, 1e-6 * (event.time_range.start - began), 1e-6 * spent, "cpu" if on_cpu else "gpu"))
    return found


def totals(operations, on="cpu"):
    """From each operation's name to (seconds, number of calls), the longest first."""
    sums = {}
    for operation in operations:
        if operation.on == on:
            seconds, calls = sums.get(operation.name, (0.0, 0))
            sums[operation.name] = seconds + operation.seconds, calls + 1
    return dict(sorted(sums.items(), key=lambda item: -item[1][0]))


def finish_times(asked, work):
    """When each of n operations ends that a GPU computes one after the other: (n,).

    Arguments:
        asked: when the processor has asked for each, (n,), not falling.
        work: how long the GPU computes it, (n,), in the same unit. Eqs. (12.6) and (12.7).
    """
    asked, done = np.asarray(asked, float), np.cumsum(work)
    return done + np.maximum.accumulate(asked - done + work)


@contextmanager
def _quiet_stderr():
    """Inside, what the profiler's own C++ code writes to the process's standard error is dropped; Python's is not."""
    sys.stderr.flush()
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(null)
        os.close(kept)

"""Alternating repetitions, medians and tables."""

import statistics
import time


def alternate(*functions, repeats=5, clock=time.perf_counter):
    """The median seconds of each function, the repetitions taken in turn so that a busy machine is busy for all."""
    seconds = [[] for _ in functions]
    for function in functions:  # the first call compiles, allocates and warms caches
        function()
    for _ in range(repeats):
        for function, times in zip(functions, seconds, strict=True):
            began = clock()
            function()
            times.append(clock() - began)
    return [statistics.median(times) for times in seconds]


def line(*cells):
    """One row of a table; the first cell is wide."""
    print(f"{cells[0]:<34}" + "".join(f"{cell:>14}" for cell in cells[1:]), flush=True)

"""What a machine is fastest with: how many threads for how much work, and whether half precision pays."""

import time
from contextlib import contextmanager

import torch


@contextmanager
def at_most_threads(n):
    """Inside, PyTorch uses at most n threads, and no more than before; afterwards what it used before.

    Small work is slower on several: handing it over takes longer than doing it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(min(before, n))))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def faster_precision(run, device, repeats=3, gain=1.2):
    """"bfloat16" if `run("bfloat16")` is at least `gain` times as fast here as `run("float32")`, else "float32".

    Each runs once to warm up, then `repeats` times in turn; the shortest times are compared.
    """
    seconds = {"float32": [], "bfloat16": []}
    for _ in range(repeats + 1):
        for precision, times in seconds.items():
            began = time.perf_counter()
            run(precision)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
    float32, bfloat16 = (min(times[1:]) for times in seconds.values())
    return "bfloat16" if bfloat16 * gain <= float32 else "float32"

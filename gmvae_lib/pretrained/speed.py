"""Chapter 12's times: one epoch of MNIST's size, written in several ways, on the machine that runs this.

    python -m gmvae_lib.pretrained.speed --machine "two cores of a server"

replaces that machine's rows in speed.json, beside this file, and leaves those of other machines. Images are random
bits of MNIST's shape: what they show makes no difference to the time. On a processor one thread is used and its own
time is counted, which other programs disturb less; on a GPU, the time on the wall. A number of steps is timed, and an
epoch is 235 of them.
"""

import argparse
import json
import os
import shutil
import statistics
import time

import torch
from torch.utils.data import DataLoader, TensorDataset

from gmvae_lib.data import pick_device, random_affine, views
from gmvae_lib.likelihood import DynamicBernoulli
from gmvae_lib.pretrained import FOLDER
from gmvae_lib.prior import MixturePrior
from gmvae_lib.profiling import record, totals
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

BATCH, IMAGES, DIM = 256, 60_000, 10
STEPS = -(-IMAGES // BATCH)  # of an epoch
LOOPS = ("DataLoader, Adam, loss.item()", "the same, 8 workers", "data on the device, fused Adam",
         "the same, compiled", "the same, bfloat16", "fit", "fit, bfloat16", "fit, GMVAE, full covariances",
         "fit, GMVAE, two views")


def build(mixture=False):
    """Chapter 12's network, 784-500-500-10, untrained."""
    torch.manual_seed(0)
    prior = MixturePrior(10, DIM, "full") if mixture else None
    return VAE.build(784, DIM, (500, 500), DynamicBernoulli(), prior)


def plain_loop(model, x, steps, workers=0):
    """What one would write first: a DataLoader, Adam, and a look at the loss in every step."""
    loader = DataLoader(TensorDataset(x), BATCH, shuffle=True, num_workers=workers, pin_memory=workers > 0)
    optimizer, total, done = torch.optim.Adam(model.parameters(), lr=1e-3), 0.0, 0
    while True:
        for batch, in loader:
            optimizer.zero_grad()
            loss = -model.elbo(batch.to(model.device), validate=False).value.mean()
            loss.backward()
            optimizer.step()
            total += loss.item()
            done += 1
            if done == steps:
                return total


def resident_loop(model, x, steps, precision="float32", loss_of=None):
    """Images that lie on the device and are shuffled there, a fused optimizer, and no look at anything on the way."""
    loss_of = loss_of or (lambda batch: -model.elbo(batch, validate=False).value.mean())
    optimizer, total = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), torch.zeros((), device=x.device)
    for step in range(steps):
        if step % STEPS == 0:
            order = torch.randperm(len(x), device=x.device).split(BATCH)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = loss_of(x.index_select(0, order[step % len(order)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total)


def loops(device, x, on_device):
    """From a loop's name to a function that runs n steps of it and returns how many seconds they took."""
    plain, workers, resident, half, compiled = (build().to(device) for _ in range(5))

    def clocked(loop, *arguments, **settings):
        return lambda n: seconds_of(lambda: loop(*arguments, n, **settings), device)

    def library(model, **settings):
        settings |= {"batch_size": BATCH, "device": device, "progress": False}
        if device.type != "cuda":
            return lambda n: seconds_of(lambda: fit(model, on_device[:n * BATCH], epochs=1, **settings), device)
        # The first epoch also records the step; the others are what a training consists of.
        return lambda n: min(fit(model, on_device[:n * BATCH], epochs=4, **settings).seconds[1:])

    found = {LOOPS[0]: clocked(plain_loop, plain, x)}
    if device.type == "cuda":
        found[LOOPS[1]] = clocked(plain_loop, workers, x, workers=8)
    found[LOOPS[2]] = clocked(resident_loop, resident, on_device)
    if device.type == "cuda" or shutil.which("c++"):
        loss = torch.compile(lambda batch: -compiled.elbo(batch, validate=False).value.mean())
        found[LOOPS[3]] = clocked(resident_loop, compiled, on_device, loss_of=loss)
    found[LOOPS[4]] = clocked(resident_loop, half, on_device, precision="bfloat16")
    return found | {LOOPS[5]: library(build()), LOOPS[6]: library(build(), precision="bfloat16"),
                    LOOPS[7]: library(build(mixture=True)),
                    LOOPS[8]: library(build(mixture=True), transform=views(random_affine((28, 28)), 2))}


def measure(machine, device=None, steps=STEPS, repeats=3):
    """This machine's rows: of each loop the median of `repeats` runs of `steps` steps, in seconds for an epoch."""
    device = pick_device(device)
    x = 255.0 * torch.randint(0, 2, (steps * BATCH, 784), generator=torch.Generator().manual_seed(0))
    functions = loops(device, x, x.to(device))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads if device.type == "cuda" else 1)
    try:
        for run in functions.values():
            run(min(steps, 8))  # the first steps compile, allocate and warm up
        seconds = {name: [] for name in functions}
        for _ in range(repeats):  # in turn, so that a busy machine is busy for all
            for name, run in functions.items():
                seconds[name].append(run(steps))
        return [{"machine": machine, "loop": name, "seconds": round(statistics.median(times) * STEPS / steps, 4)}
                for name, times in seconds.items()] + profiled(machine, functions[LOOPS[2]], device)
    finally:
        torch.set_num_threads(threads)


def seconds_of(run, device):
    """Seconds that a call takes: of the processor, or with a GPU on the wall."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def profiled(machine, run, device, steps=100):
    """On a GPU a row with the time of 100 steps of the loop on each side, as the profiler sees it; else none."""
    if device.type != "cuda":
        return []
    cpu, gpu = (sum(seconds for seconds, _ in totals(found, on).values())
                for found in [record(lambda: run(steps))] for on in ("cpu", "gpu"))
    return [{"machine": machine, "loop": f"profile of 100 steps: {LOOPS[2]}", "cpu": round(cpu, 4),
             "gpu": round(gpu, 4)}]


def load_speed():
    """The rows as shipped: dicts with "machine" and "loop", and "seconds" for an epoch or, of a profile, "cpu" and
    "gpu" seconds for 100 steps."""
    return json.loads((FOLDER / "speed.json").read_text(encoding="utf-8"))


def write(rows):
    """Puts this machine's rows in the place of those there are, and keeps other machines'."""
    path = FOLDER / "speed.json"
    others = [row for row in (load_speed() if path.exists() else []) if row["machine"] != rows[0]["machine"]]
    lines = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in others + rows)
    part = path.with_suffix(".part")
    part.write_text(f"[{lines}]\n", encoding="utf-8")
    os.replace(part, path)


def main():
    """Measures, prints and writes this machine's rows."""
    parser = argparse.ArgumentParser(prog="python -m gmvae_lib.pretrained.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--machine", required=True, help="what the table is to call it: name its processor or GPU")
    parser.add_argument("--device", help="cuda or cpu; the best at hand by default")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps that are timed, of 235 in an epoch")
    options = parser.parse_args()
    rows = measure(options.machine, options.device, options.steps)
    for row in rows:
        print(row, flush=True)
    write(rows)


if __name__ == "__main__":
    main()

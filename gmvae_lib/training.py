"""One training loop for every model: it maximizes E[-(distortion + beta * rate)] with Adam.

The data live on the device from the start and are shuffled there, which is what makes it faster than a DataLoader; on
an NVIDIA GPU a step is recorded once and replayed (`replay`).
Several processes can share the work: `python -m gmvae_lib.train` shows how.
"""

import math
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from tqdm.auto import tqdm

from gmvae_lib.checkpoint import (
    History,
    load_checkpoint,
    part,
    read,
    require_writable,
    restore,
    save_checkpoint,
    snapshot,
)
from gmvae_lib.data import Dataset, pick_device
from gmvae_lib.processes import Processes, ProcessLost
from gmvae_lib.replay import Replayed
from gmvae_lib.schedules import cyclic, decay, log_uniform, one_cycle, warm_up
from gmvae_lib.speed import at_most_threads, faster_precision

__all__ = ["History", "cyclic", "decay", "fit", "load_checkpoint", "log_uniform", "one_cycle", "save_checkpoint",
           "warm_up"]

SAVE_EVERY = 10  # seconds between two checkpoints, at least
THREAD_OPERATIONS = 250e6  # in one step's matrix products: what a further thread needs to be worth waiting for


def fit(model, data, epochs=100, beta=1.0, batch_size=128, lr=1e-3, method="collapsed", prior_update="gradient",
        free_bits=0.0, transform=None, validation=None, patience=None, checkpoint=None, resume=False, on_epoch=None,
        seed=0, device=None, precision="float32", progress=None, distributed=False):
    """Trains `model` in place and returns its `History`.

    Arguments:
        model: a `VAE`.
        data: a `Dataset`, or points x (N, D). Labels are never looked at.
        beta: the rate's weight, or a schedule: a function from progress in [0, 1] to beta, such as `warm_up()`. For a
            gated network also (low, high) or (low, high, tilt): each point of a batch then has a beta of its own,
            log-uniform, or for a tilt below 1 (log beta goes with u**tilt, u uniform) more of them high than low.
        lr: Adam's step, or a schedule, such as `decay()`.
        method: how a `MixturePrior` measures the rate: "collapsed", "exact" or "joint".
        prior_update: "gradient" learns the prior with the networks; "em" sets it by its M-step after each epoch;
            "fixed" leaves it alone.
        free_bits: nats of rate that each latent dimension (with a mixture prior, all of them together) has for
            nothing; the history's rate never falls below them. Kingma et al. (2016).
        transform: a function (x, generator) -> x applied to each batch, for augmentation. It may return groups
            (n, V, D), such as `data.views`'s: V views of each point then share a component (chapter 9), and the
            history is in nats per view.
        validation: held-out points; with `patience`, training stops after that many epochs without improvement, and
            the best model is kept.
        checkpoint: a file, written after the first epoch, about every ten seconds, and at the end; with `resume`,
            training goes on from it if it exists, to the same model as without the break.
        on_epoch: a function (epoch, history), called after each epoch; returning True stops the training.
        seed: an integer; the same seed, device and thread count give the same model. Small networks use one thread.
        device: "cuda", "mps" or "cpu"; the best by default.
        precision: "float32"; "bfloat16", in which the networks compute by autocast; or "auto", which measures both on
            the first batch and takes bfloat16 where it is faster by a fifth (see `History.precision`).
        progress: whether to show a bar; by default where somebody is watching.
        distributed: whether each process of `torch.distributed` gives its own share of `data` and `validation`, on its
            own device, and all train one model: the first process's. Gradients, the M-step and the history are those
            of all shares, and `batch_size` is the number of points that all take in one step. `free_bits` counts in
            each process's part of a batch. Only the first process reads and writes the checkpoint. Training stops for
            all where `on_epoch` asks in one of them, or where one is interrupted, after the epoch.
    Raises ValueError for unusable data or settings; FloatingPointError if the loss is no longer finite, with the model
    as it was before that epoch; and `ProcessLost` where another process has died, with the model (and the checkpoint)
    as after the last whole epoch. Interrupting (Ctrl-C, or Jupyter's stop button) ends the training and keeps the
    model as it was after the last whole epoch. A network gated by beta is trained with
    (distortion + beta * rate) / (1 + beta) where one beta serves a whole batch, and without that divisor where each
    point has its own; it is validated at beta = 1.
    """
    device = pick_device(device)
    processes = Processes(distributed, device)
    first = processes.rank == 0
    if not first:
        checkpoint, progress = None, False

    def prepare():
        _check_settings(model, epochs, beta, batch_size, prior_update, precision, validation, patience, checkpoint)
        model.to(device)
        return [None if given is None else model.check(_points(given)) for given in (data, validation)]

    x, held_out = processes.everywhere(prepare)
    processes.require_same(epochs=epochs, batch_size=batch_size, method=method, prior_update=prior_update,
                           precision=precision, patience=patience, validation=held_out is not None)
    schedule, step = (value if callable(value) else lambda progress, value=value: value for value in (beta, lr))
    apart = [] if prior_update == "gradient" else [p for p in model.prior.parameters() if p.requires_grad]
    trained = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in apart)]
    replayed = device.type == "cuda" and not distributed
    first_lr = torch.tensor(step(0.0), device=device) if replayed else step(0.0)  # recorded, it must stay in its place
    optimizer = torch.optim.Adam(trained, lr=first_lr, fused=device.type in ("cpu", "cuda"), capturable=replayed)
    generator = torch.Generator(device).manual_seed(seed)
    state = (model, optimizer, generator)
    operations = 6 * batch_size * sum(p.numel() for p in trained)  # forward two a weight and point, backward four

    def begin():
        if resume and checkpoint is not None and Path(checkpoint).exists():
            return read(checkpoint, model, optimizer)
        return {name: value.cpu() for name, value in snapshot(*state).items()}, History()

    tensors, history = processes.from_first(begin)
    best = part(tensors, "model.")
    restore(tensors, *state)
    good = snapshot(*state)
    history.interrupted = False
    history.stopped_early = patience is not None and history.epochs_since_best() >= patience

    def save():
        try:
            save_checkpoint(checkpoint, *state, history, best if patience is not None else None)
        except (OSError, SafetensorError) as error:  # a full disk costs the checkpoint, not the training
            warnings.warn(f"The checkpoint {checkpoint} could not be written, an older one is kept ({error}).",
                          RuntimeWarning, stacklevel=3)

    left = range(epochs if history.stopped_early else len(history), epochs)
    bar = tqdm(left, initial=len(history), total=epochs, unit="epoch", disable=not _watched(progress))
    saved_at = -math.inf
    try:
        with at_most_threads(operations / processes.size / THREAD_OPERATIONS), processes.waiting_to_interrupt():
            model.train()
            for parameter in apart:
                parameter.requires_grad_(False)
            if precision == "auto":
                precision = processes.from_first(lambda: history.precision if len(history) else
                                                 _faster(model, x[:batch_size], method))
            history.precision = precision
            take_step = _stepper(*state, x, method, free_bits, transform, precision, processes)
            take_step = Replayed(take_step, generator) if replayed else take_step
            for epoch in bar:
                processes.reseed(generator, seed, epoch)
                began = time.perf_counter()
                settings = ((lambda share, e=epoch, f=f: f((e + share) / epochs)) for f in (schedule, step))
                distortion, rate, weight = _epoch(take_step, generator, len(x), *settings, batch_size, processes)
                if not (math.isfinite(distortion + rate) and _finite(trained)):  # the last step may be the fatal one
                    restore(good, *state)
                    raise FloatingPointError(
                        f"The loss was no longer finite in epoch {epoch + 1} (distortion {distortion}, rate {rate}). "
                        f"The model is as it was before it: lower lr (now {step(epoch / epochs):g}).")
                if prior_update == "em":
                    with torch.no_grad():  # on what the encoder was trained on: its latents of anything else may drift
                        seen = (rows if transform is None else transform(rows, generator) for rows in x.split(10_000))
                        latents = [model.encode(rows, 1.0 if model.gated else None) for rows in seen]
                        model.prior.update(*(torch.cat(values) for values in zip(*latents, strict=True)),
                                           distributed=distributed)
                news = {"distortion": distortion, "rate": rate, "beta": weight, "seconds": time.perf_counter() - began}
                if held_out is not None:
                    final = 1.0 if model.gated else schedule(1.0)
                    with torch.no_grad():
                        elbo = model.elbo(held_out, final, method, generator, validate=False)
                    news["validation"], = processes.mean([-float(elbo.value.mean())], len(held_out))
                good = snapshot(*state)
                history.append(**news)
                best = part(good, "model.") if history.epochs_since_best() == 0 else best
                history.stopped_early = patience is not None and history.epochs_since_best() >= patience
                bar.set_postfix(distortion=f"{distortion:.1f}", rate=f"{rate:.1f}", refresh=False)
                if checkpoint is not None and time.monotonic() - saved_at > SAVE_EVERY:
                    save()
                    saved_at = time.monotonic()
                if processes.stops((on_epoch is not None and on_epoch(epoch, history)) or history.stopped_early):
                    break
    except KeyboardInterrupt:
        history.interrupted = True
        restore(good, *state)
        if first:
            print(f"Interrupted after {len(history)} of {epochs} epochs: the model is kept.", file=sys.stderr)
    except ProcessLost as error:
        restore(good, *state)
        if checkpoint is not None:
            save()
        raise ProcessLost(f"{error} Training ended in epoch {len(history) + 1} of {epochs}: start all processes again, "
                          "with resume=True to go on from the checkpoint.") from error
    finally:
        bar.close()
        for parameter in apart:
            parameter.requires_grad_(True)
        model.eval()
    if checkpoint is not None:
        save()
    if patience is not None:
        model.load_state_dict(best)
    return history


def _epoch(take_step, generator, n, beta_at, lr_at, batch_size, processes):
    """One pass over n points: the means of distortion and rate, in nats per point, and the last beta (of a pair, its
    geometric mean).

    take_step: a `_stepper`'s function.
    beta_at, lr_at: functions from the share of the epoch that is done, in [0, 1), to beta and to Adam's step.
    """
    parts = []
    steps = processes.batches(torch.randperm(n, generator=generator, device=generator.device), batch_size)
    for i, index in enumerate(steps):
        given = beta_at(i / len(steps))
        each = isinstance(given, tuple)
        beta = _spread(len(index), generator, *given) if each else given
        parts.append(take_step(index, beta, lr_at(i / len(steps)), i))
    means = torch.stack([torch.cat(part).mean() for part in zip(*parts, strict=True)]).tolist()  # once an epoch: fast
    return *processes.mean(means, n), math.sqrt(given[0] * given[1]) if each else float(beta)


def _stepper(model, optimizer, generator, x, method, free_bits, transform, precision, processes):
    """A function (index, beta, lr, number) that takes the epoch's `number`-th step, on the points x[index], and returns
    their distortions and rates."""
    group = optimizer.param_groups[0]

    def take_step(index, beta, lr, number):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].copy_(lr)
        else:
            group["lr"] = lr
        batch = x.index_select(0, index)  # several times faster than x[index]
        batch = batch if transform is None else transform(batch, generator)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            elbo = model.elbo(batch, beta, method=method, generator=generator, validate=False,
                              free_bits=free_bits)
        optimizer.zero_grad(set_to_none=True)
        each = isinstance(beta, torch.Tensor) and beta.ndim == 2
        loss = -elbo.value.mean()
        (loss / (1 + beta) if model.gated and not each else loss).backward()
        processes.average_gradients(group["params"], number)
        optimizer.step()
        return elbo.distortion.detach(), elbo.rate.detach()

    return take_step


def _spread(n, generator, low, high, tilt=1.0):
    """n values of beta (n, 1), log-uniform in [low, high] but for the tilt: one from each of n equal parts, in random
    order. Eq. (6.17)."""
    device = generator.device
    part = torch.randperm(n, generator=generator, device=device) + torch.rand(n, generator=generator, device=device)
    return (math.log(low) + (part / n) ** tilt * math.log(high / low)).exp().unsqueeze(1)


def _faster(model, x, method):
    """The precision in which loss and gradients of a batch x take less time here."""
    generator = torch.Generator(x.device).manual_seed(0)

    def run(precision):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            elbo = model.elbo(x, method=method, generator=generator, validate=False)
        elbo.value.mean().backward()
        model.zero_grad(set_to_none=True)

    return faster_precision(run, x.device)


def _check_settings(model, epochs, beta, batch_size, prior_update, precision, validation, patience, checkpoint):
    if prior_update not in ("gradient", "em", "fixed"):
        raise ValueError(f"prior_update is {prior_update!r}: choose 'gradient', 'em' or 'fixed'.")
    if isinstance(beta, tuple) and not (model.gated and len(beta) in (2, 3) and 0 < beta[0] < beta[1]):
        raise ValueError(f"beta is {beta}: a pair must be 0 < low < high, and needs a network gated by beta.")
    if precision not in ("float32", "bfloat16", "auto"):
        raise ValueError(f"precision is {precision!r}: choose 'float32', 'bfloat16' or 'auto'.")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: give validation=...")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs is {epochs} and batch_size {batch_size}: both must be at least 1.")
    if prior_update == "em" and not hasattr(model.prior, "update"):
        raise ValueError(f"prior_update='em' needs a MixturePrior: {type(model.prior).__name__} has no M-step.")
    if checkpoint is not None:
        require_writable(Path(checkpoint))


def _finite(parameters):
    return bool(torch.stack([p.detach().sum() for p in parameters]).isfinite().all())


def _points(data):
    return data.x if isinstance(data, Dataset) else data


def _watched(progress):
    """Whether to show a bar: as asked for, or unless GMVAE_PROGRESS=0 or nobody is at a terminal or notebook."""
    if progress is not None:
        return progress
    return os.environ.get("GMVAE_PROGRESS") != "0" and (sys.stderr.isatty() or "ipykernel" in sys.modules)

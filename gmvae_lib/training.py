"""One training loop for every model: it maximizes E[-(distortion + beta * rate)] with Adam.

The data live on the device from the start and are shuffled there, which is what makes it faster than a DataLoader.
"""

import json
import math
import os
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from gmvae_lib.data import Dataset, pick_device

SAVE_EVERY = 10  # seconds between two checkpoints, at least


@dataclass
class History:
    """What happened in each epoch: means over the training data, in nats per point."""

    distortion: list = field(default_factory=list)
    rate: list = field(default_factory=list)
    beta: list = field(default_factory=list)
    validation: list = field(default_factory=list)  # -ELBO with the final beta on held-out data, where given
    seconds: list = field(default_factory=list)
    interrupted: bool = False
    stopped_early: bool = False

    def __len__(self):
        return len(self.distortion)

    def append(self, **values):
        """Adds one epoch."""
        for name, value in values.items():
            getattr(self, name).append(value)

    def epochs_since_best(self):
        """Epochs since the lowest validation loss; 0 before there is one."""
        return len(self.validation) - 1 - self.validation.index(min(self.validation)) if self.validation else 0


def warm_up(beta=1.0, share=0.2):
    """A schedule that raises beta linearly from 0 during the first `share` of the training."""
    return lambda progress: beta * min(1.0, progress / share)


def log_uniform(low=0.01, high=100.0, seed=0):
    """A schedule for gated networks: for each batch, a beta drawn uniformly on a log scale. Bae et al. (2023).

    The draw depends on `seed` and progress alone, so that a resumed training draws what an uninterrupted one would.
    """
    return lambda progress: math.exp(Random(f"{seed} {progress}").uniform(math.log(low), math.log(high)))


def fit(model, data, epochs=100, beta=1.0, batch_size=128, lr=1e-3, method="collapsed", prior_update="gradient",
        transform=None, validation=None, patience=None, checkpoint=None, resume=False, on_epoch=None, seed=0,
        device=None, precision="float32", progress=None):
    """Trains `model` in place and returns its `History`.

    Arguments:
        model: a `VAE`.
        data: a `Dataset`, or points x (N, D). Labels are never looked at.
        beta: the rate's weight, or a schedule: a function from progress in [0, 1] to beta, such as `warm_up()`.
        method: how a `MixturePrior` measures the rate: "collapsed", "exact" or "joint".
        prior_update: "gradient" learns the prior with the networks; "em" sets it by its M-step after each epoch;
            "fixed" leaves it alone.
        transform: a function (x, generator) -> x applied to each batch, for augmentation.
        validation: held-out points; with `patience`, training stops after that many epochs without improvement, and
            the best model is kept.
        checkpoint: a file, written at the end and about every ten seconds; with `resume`, training goes on from it if
            it exists, to the same model as without the break.
        on_epoch: a function (epoch, history), called after each epoch; returning True stops the training.
        seed: an integer; the same seed, device and thread count give the same model.
        device, precision: where ("cuda", "mps", "cpu"; the best by default), and "float32" or "bfloat16" (autocast).
        progress: whether to show a bar; by default where somebody is watching.
    Raises ValueError for unusable data or settings, and FloatingPointError if the loss is no longer finite, with the
    model as it was before that epoch. Interrupting (Ctrl-C, or Jupyter's stop button) ends the training and keeps
    the model as it was after the last whole epoch. A network gated by beta is trained with
    (distortion + beta * rate) / (1 + beta), validated at beta = 1.
    """
    if prior_update not in ("gradient", "em", "fixed"):
        raise ValueError(f"prior_update is {prior_update!r}: choose 'gradient', 'em' or 'fixed'.")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}: choose 'float32' or 'bfloat16'.")
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: give validation=...")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs is {epochs} and batch_size {batch_size}: both must be at least 1.")
    if prior_update == "em" and not hasattr(model.prior, "update"):
        raise ValueError(f"prior_update='em' needs a MixturePrior: {type(model.prior).__name__} has no M-step.")
    if checkpoint is not None:
        _require_writable(Path(checkpoint))
    device = pick_device(device)
    model.to(device)
    x = model.check(_points(data))
    held_out = None if validation is None else model.check(_points(validation))
    schedule = beta if callable(beta) else lambda progress: beta
    apart = [] if prior_update == "gradient" else [p for p in model.prior.parameters() if p.requires_grad]
    trained = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in apart)]
    optimizer = torch.optim.Adam(trained, lr=lr, fused=device.type in ("cpu", "cuda"))
    generator = torch.Generator(device).manual_seed(seed)
    history, best, saved_at = History(), None, time.monotonic()
    if resume and checkpoint is not None and Path(checkpoint).exists():
        tensors, history = _read(checkpoint, model, optimizer)
        best = _part(tensors, "model.")
        _restore(tensors, model, optimizer, generator)
    good = _snapshot(model, optimizer, generator)
    best = _part(good, "model.") if best is None else best
    history.interrupted, history.stopped_early = False, patience is not None and history.epochs_since_best() >= patience

    def save():
        try:
            save_checkpoint(checkpoint, model, optimizer, generator, history, best if patience is not None else None)
        except (OSError, SafetensorError) as error:  # a full disk costs the checkpoint, not the training
            warnings.warn(f"The checkpoint {checkpoint} could not be written, an older one is kept ({error}).",
                          RuntimeWarning, stacklevel=3)

    bar = tqdm(range(epochs if history.stopped_early else len(history), epochs), initial=len(history), total=epochs,
               unit="epoch", disable=not _watched(progress))
    try:
        model.train()
        for parameter in apart:
            parameter.requires_grad_(False)
        for epoch in bar:
            began = time.perf_counter()
            steps = torch.randperm(len(x), generator=generator, device=device).split(batch_size)
            sums = torch.zeros(2, device=device)
            for i, index in enumerate(steps):
                weight = schedule((epoch + i / len(steps)) / epochs)
                batch = x[index] if transform is None else transform(x[index], generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    elbo = model.elbo(batch, weight, method=method, generator=generator, validate=False)
                optimizer.zero_grad(set_to_none=True)
                loss = -elbo.value.mean()
                (loss / (1 + weight) if model.gated else loss).backward()
                optimizer.step()
                sums += torch.stack([elbo.distortion.detach().sum(), elbo.rate.detach().sum()])
            distortion, rate = (sums / len(x)).tolist()
            if not (math.isfinite(distortion + rate) and _finite(trained)):  # the last step may have been the fatal one
                _restore(good, model, optimizer, generator)
                raise FloatingPointError(
                    f"The loss was no longer finite in epoch {epoch + 1} (distortion {distortion}, rate {rate}). The "
                    f"model is as it was before it: lower lr (now {lr:g}).")
            if prior_update == "em":
                with torch.no_grad():  # on what the encoder was trained on: its latents of anything else may drift away
                    seen = x if transform is None else transform(x, generator)
                    model.prior.update(*model.encode(seen, 1.0 if model.gated else None))
            news = {"distortion": distortion, "rate": rate, "beta": float(weight)}
            news["seconds"] = time.perf_counter() - began
            if held_out is not None:
                final = 1.0 if model.gated else schedule(1.0)
                with torch.no_grad():
                    elbo = model.elbo(held_out, final, method, generator, validate=False)
                news["validation"] = -float(elbo.value.mean())
            good = _snapshot(model, optimizer, generator)
            history.append(**news)
            best = _part(good, "model.") if history.epochs_since_best() == 0 else best
            history.stopped_early = patience is not None and history.epochs_since_best() >= patience
            bar.set_postfix(distortion=f"{distortion:.1f}", rate=f"{rate:.1f}", refresh=False)
            if checkpoint is not None and time.monotonic() - saved_at > SAVE_EVERY:
                save()
                saved_at = time.monotonic()
            if (on_epoch is not None and on_epoch(epoch, history)) or history.stopped_early:
                break
    except KeyboardInterrupt:
        history.interrupted = True
        _restore(good, model, optimizer, generator)
        print(f"Interrupted after {len(history)} of {epochs} epochs: the model is kept.", file=sys.stderr)
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


def save_checkpoint(path, model, optimizer=None, generator=None, history=None, best=None):
    """Writes the model, and what a resumed training needs, to `path` (safetensors), whole or not at all.

    Where `best`, a state of the model, is given, that is what `load_checkpoint` will give to whoever does not resume.
    """
    tensors = _snapshot(model, optimizer, generator)
    if best is not None:
        tensors |= {f"last.{name}": value for name, value in _part(tensors, "model.").items()}
        tensors |= {f"model.{name}": value for name, value in best.items()}
    metadata = {} if history is None else {"history": json.dumps(asdict(history))}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # the usual one; safetensors makes files that nobody else may read
        save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path, model, optimizer=None, generator=None):
    """Reads what `save_checkpoint` wrote into `model` (and `optimizer`, `generator`); returns the `History`.

    Raises FileNotFoundError, or ValueError where the file is damaged or belongs to another model; the model is then
    unchanged.
    """
    tensors, history = _read(path, model, optimizer)
    _restore(tensors, model, optimizer, generator)
    return history


def _read(path, model, optimizer):
    """The tensors and the history in a checkpoint, if they fit the model and the optimizer."""
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:  # cloned: the file itself stays free to be replaced
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
            metadata = file.metadata() or {}
        history = History(**json.loads(metadata.get("history", "{}")))
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}): delete it and train again.") from error
    for part in ("model.", "last."):
        state = _part(tensors, part)
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if differing and (state or part == "model."):
            raise ValueError(f"{path} belongs to another model: {', '.join(differing[:4])} differ(s) in name or shape. "
                             "Build the model with the sizes it was trained with.")
    parameters = [] if optimizer is None else optimizer.param_groups[0]["params"]
    moments = {name: value.shape for name, value in _part(tensors, "optimizer.").items() if not name.endswith(".step")}
    fits = [name.split(".")[0].isdigit() and int(name.split(".")[0]) < len(parameters)
            and shape == parameters[int(name.split(".")[0])].shape for name, shape in moments.items()]
    if optimizer is not None and not all(fits):
        raise ValueError(f"{path} was trained with other settings (prior_update): resume with the same ones.")
    return tensors, history


def _snapshot(model, optimizer=None, generator=None):
    """Copies of all that determines how training goes on, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    if generator is not None:
        tensors["generator"] = generator.get_state()
    return {name: value.detach().clone() for name, value in tensors.items()}


def _restore(tensors, model, optimizer=None, generator=None):
    """Puts a snapshot back. With an optimizer it is the last model that is wanted, else the best."""
    last = _part(tensors, "last.") if optimizer is not None else {}
    model.load_state_dict(last or _part(tensors, "model."))
    if optimizer is not None:
        saved = optimizer.state_dict() | {"state": {}}
        for name, value in _part(tensors, "optimizer.").items():
            index, entry = name.split(".")
            saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    if generator is not None and "generator" in tensors:
        if tensors["generator"].shape == generator.get_state().shape:  # else it comes from another kind of device
            generator.set_state(tensors["generator"])


def _finite(parameters):
    return bool(torch.stack([p.detach().sum() for p in parameters]).isfinite().all())


def _part(tensors, prefix):
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _require_writable(path):
    """Raises ValueError before the training, not after it, if its checkpoint cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"checkpoint={str(path)!r} cannot be written ({error}): name a file in a folder that you may "
                         "write to.") from error


def _points(data):
    return data.x if isinstance(data, Dataset) else data


def _watched(progress):
    """Whether to show a bar: as asked for, or unless GMVAE_PROGRESS=0 or nobody is at a terminal or notebook."""
    if progress is not None:
        return progress
    return os.environ.get("GMVAE_PROGRESS") != "0" and (sys.stderr.isatty() or "ipykernel" in sys.modules)

"""A training's state, in memory and in a file: the model, the optimizer's moments, the random generator, the history.

Files are safetensors, which hold numbers and no code, and are written whole or not at all.
"""

import contextlib
import glob
import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

HEADER_LIMIT = 2**24  # bytes beyond the tensors: room for the history of some hundred thousand epochs


@dataclass
class History:
    """What happened in each epoch: means over the training data, in nats per point."""

    distortion: list = field(default_factory=list)
    rate: list = field(default_factory=list)
    beta: list = field(default_factory=list)
    validation: list = field(default_factory=list)  # -ELBO with the final beta on held-out data, where given
    seconds: list = field(default_factory=list)
    precision: str = "float32"  # of the networks: what was asked for, or with "auto" what was found faster
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


def save_checkpoint(path, model, optimizer=None, generator=None, history=None, best=None):
    """Writes the model, and what a resumed training needs, to `path` (safetensors), whole or not at all.

    Where `best`, a state of the model, is given, that is what `load_checkpoint` will give to whoever does not resume.
    """
    tensors = snapshot(model, optimizer, generator)
    if best is not None:
        tensors |= {f"last.{name}": value for name, value in part(tensors, "model.").items()}
        tensors |= {f"model.{name}": value for name, value in best.items()}
    metadata = {} if history is None else {"history": json.dumps(asdict(history))}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):  # by a process that was killed while it wrote
        with contextlib.suppress(FileNotFoundError):  # another process may tidy up too
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        # Not safetensors' save_file: killed, it leaves a file behind whose name says nothing.
        with open(temporary, "wb") as file:
            file.write(save({name: value.cpu().contiguous() for name, value in tensors.items()}, metadata))
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with the bytes still unwritten
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path, model, optimizer=None, generator=None):
    """Reads what `save_checkpoint` wrote into `model` (and `optimizer`, `generator`); returns the `History`.

    Raises FileNotFoundError, or ValueError where the file is damaged or belongs to another model; the model is then
    unchanged.
    """
    tensors, history = read(path, model, optimizer)
    restore(tensors, model, optimizer, generator)
    return history


class Misfit(ValueError):
    """The file is whole, but belongs to another model or to other settings."""


def read(path, model, optimizer):
    """The tensors and the history in a checkpoint, if they fit the model and the optimizer.

    It is opened once and read whole: safetensors' safe_open opens it a second time, by name, and would mix two
    checkpoints where another process saves a new one in between.
    """
    path, limit = Path(path), HEADER_LIMIT + 8 * sum(value.nbytes for value in model.state_dict().values())
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint at {path}.")
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise OSError("it is no file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Misfit(f"{path} belongs to another model: it is larger than any checkpoint of this one. Build the "
                         "model with the sizes it was trained with.")
        tensors = load(content)
        header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
        history = parse_history(header.get("__metadata__", {}).get("history", "{}"))
        require_fit(path, tensors, model, optimizer)
        if "generator" in tensors and tensors["generator"].shape == torch.Generator().get_state().shape:
            torch.Generator().set_state(tensors["generator"])  # an error now, before the model is changed
    except Misfit:
        raise
    except (SafetensorError, OSError, TypeError, ValueError, LookupError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}): delete it and train again.") from error
    return tensors, history


def parse_history(text):
    """The `History` in a checkpoint's metadata; raises ValueError, TypeError, RecursionError or OverflowError if the
    text is not one that training writes."""
    history = History(**json.loads(text))
    for name in ("distortion", "rate", "beta", "validation", "seconds"):
        values = getattr(history, name)
        if not (isinstance(values, list) and all(type(value) in (int, float) for value in values)):
            raise ValueError(f"its history's {name} is not a list of numbers")
        if len(values) > len(history):
            raise ValueError(f"its history's {name} has more epochs than its distortion")
        if name != "validation" and not all(map(math.isfinite, values)):  # held-out data may overflow
            raise ValueError(f"its history's {name} is not finite")
    if type(history.interrupted) is not bool or type(history.stopped_early) is not bool:
        raise ValueError("its history does not say how it ended")
    if history.precision not in ("float32", "bfloat16", "auto"):
        raise ValueError("its history's precision is unknown")
    return history


def require_fit(path, tensors, model, optimizer):
    """Raises `Misfit` unless a checkpoint's tensors are the model's and the optimizer's, by name, shape and kind."""

    def kinds(tensors):
        return {name: (value.is_floating_point(), value.shape) for name, value in tensors.items()}

    expected = kinds(model.state_dict())
    for prefix in ("model.", "last."):
        found = kinds(part(tensors, prefix))
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if differing and (found or prefix == "model."):
            raise Misfit(f"{path} belongs to another model: {', '.join(differing[:4])} differ(s) in name or shape. "
                         "Build the model with the sizes it was trained with.")
    if optimizer is not None:
        found = {}
        for name, kind in kinds(part(tensors, "optimizer.")).items():
            index, _, entry = name.partition(".")
            found.setdefault(index, {})[entry] = kind
        parameters = {str(index): (True, p.shape) for index, p in enumerate(optimizer.param_groups[0]["params"])}
        if any(state != {"step": (True, ()), "exp_avg": parameters.get(index), "exp_avg_sq": parameters.get(index)}
               for index, state in found.items()):
            raise Misfit(f"{path} was trained with other settings (prior_update): resume with the same ones.")


def snapshot(model, optimizer=None, generator=None):
    """Copies of all that determines how training goes on, by name."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    if generator is not None:
        tensors["generator"] = generator.get_state()
    return {name: value.detach().clone() for name, value in tensors.items()}


def restore(tensors, model, optimizer=None, generator=None):
    """Puts a snapshot back. With an optimizer it is the last model that is wanted, else the best."""
    last = part(tensors, "last.") if optimizer is not None else {}
    model.load_state_dict(last or part(tensors, "model."))
    if optimizer is not None:
        saved = optimizer.state_dict() | {"state": {}}
        for name, value in part(tensors, "optimizer.").items():
            index, entry = name.split(".")
            saved["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(saved)
    if generator is not None and "generator" in tensors:
        if tensors["generator"].shape == generator.get_state().shape:  # else it comes from another kind of device
            generator.set_state(tensors["generator"])


def part(tensors, prefix):
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def require_writable(path):
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

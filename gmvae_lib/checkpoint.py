"""A training's state, in memory and in a file: the model, the optimizer's moments, the random generator, the history.

Files are safetensors, which hold numbers and no code, and are written whole or not at all.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


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
    tensors, history = read(path, model, optimizer)
    restore(tensors, model, optimizer, generator)
    return history


def read(path, model, optimizer):
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
    for prefix in ("model.", "last."):
        state = part(tensors, prefix)
        expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if differing and (state or prefix == "model."):
            raise ValueError(f"{path} belongs to another model: {', '.join(differing[:4])} differ(s) in name or shape. "
                             "Build the model with the sizes it was trained with.")
    parameters = [] if optimizer is None else optimizer.param_groups[0]["params"]
    moments = {name: value.shape for name, value in part(tensors, "optimizer.").items() if not name.endswith(".step")}
    fits = [name.split(".")[0].isdigit() and int(name.split(".")[0]) < len(parameters)
            and shape == parameters[int(name.split(".")[0])].shape for name, shape in moments.items()]
    if optimizer is not None and not all(fits):
        raise ValueError(f"{path} was trained with other settings (prior_update): resume with the same ones.")
    return tensors, history


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

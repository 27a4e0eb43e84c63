"""A device made of the CPU that mixes with tensors and generators of no other: where a real one would fail, it does.

As a plugin for pytest it adds a device "fake" without float64, like Apple's; with GMVAE_FAKE_FLOAT64=1 it has it, as
NVIDIA's do:
    GMVAE_TEST_DEVICES=fake python -m pytest -p tests.unit.fake_device tests/unit/test_devices.py
As a program it runs another one, a chapter say, with a fake device that has float64 as the best at hand, on which EM
computes in float32, as on NVIDIA's GPUs for games:
    python -m tests.unit.fake_device notebooks/src/02_expectation_maximization.py
PyTorch's own means for backends written in Python make it; they are young, so that it lives in a process of its own
(`test_devices` starts it).
"""

import os
import runpy
import sys
import traceback

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from gmvae_lib import data

NAME = "fake"
FLOAT64 = __name__ == "__main__" or "GMVAE_FAKE_FLOAT64" in os.environ
BETWEEN_DEVICES = ("aten::_to_copy", "aten::copy_")
INDEXING = ("aten::index", "aten::index_put_")  # which real devices do by indices on the CPU, too
KEPT = []  # what PyTorch would forget with the last who holds it


class FakeTensor(torch.Tensor):
    """A tensor on the fake device, whose numbers lie in `raw`, a tensor on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw):
        if raw.dtype == torch.float64 and not FLOAT64:
            raise TypeError(f"The device {NAME!r} has no float64.")
        tensor = torch.Tensor._make_wrapper_subclass(cls, raw.size(), raw.stride(), raw.storage_offset(),
                                                     dtype=raw.dtype, device=torch.device(NAME, 0))
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, *args, **(kwargs or {}))

    def tolist(self):
        return self.raw.tolist()

    def numpy(self, force=False):
        if not force:
            raise TypeError(f"A tensor on the device {NAME!r} becomes no array, but with force=True.")
        return self.raw.numpy(force=True)

    def __format__(self, how):
        return format(self.raw, how)


def compute(operation, *args, **kwargs):
    """The operation, done on the CPU; its result is on the fake device if its arguments are, or if it is asked to."""
    name = operation._schema.name
    tensors = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    inside = [isinstance(value, FakeTensor) for value in tensors]
    outside = any(value.ndim for value, fake in zip(tensors, inside, strict=True) if not fake)
    if outside and any(inside) and name not in BETWEEN_DEVICES and not (name in INDEXING and inside[0]):
        raise RuntimeError(f"{name}: tensors on {[str(value.device) for value in tensors]}, more than one device.")
    if name == "aten::copy_":
        _raw(args[0]).copy_(_raw(args[1]))
        return args[0]
    asked = kwargs.get("device")
    here = any(inside) if asked is None else torch.device(asked).type == NAME
    known = {id(value.raw): value for value in tensors if isinstance(value, FakeTensor)}  # for results in place
    args, kwargs = pytree.tree_map(_raw, (args, kwargs))
    return pytree.tree_map(lambda value: value if not (here and isinstance(value, torch.Tensor)) else
                           known.get(id(value)) if id(value) in known else FakeTensor(value),
                           operation(*args, **kwargs))


def _raw(value):
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.raw if isinstance(value, FakeTensor) else value


class Generator(torch.Generator):
    """A random generator that says it is on a device, where it is checked that its numbers go there."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls, "cpu")
        generator.place = torch.device(device)
        return generator

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        return self.place


class CheckGenerators(TorchFunctionMode):
    """Refuses numbers for one device from another's generator."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        generator = kwargs.get("generator")
        here = any(isinstance(value, FakeTensor) for value in args) or NAME in str(kwargs.get("device"))
        if generator is not None and (generator.device.type == NAME) != here:
            raise RuntimeError(f"{function.__name__}: the generator is on {generator.device}.")
        return function(*args, **kwargs)


def on_the_cpu_first(create):
    """torch.tensor or torch.as_tensor, which PyTorch cannot do on a device written in Python."""
    def created(*args, device=None, **kwargs):
        return create(*args, **kwargs) if device is None else create(*args, **kwargs).to(device)
    return created


def install():
    """Adds the device to PyTorch."""
    _setup_privateuseone_for_python_backend(NAME)
    getattr(torch, NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.__future__.set_swap_module_params_on_conversion(True)
    for function, key in ((compute, "PrivateUse1"), (torch.library.fallthrough_kernel, "AutocastPrivateUse1")):
        KEPT.append(torch.library.Library("_", "IMPL"))
        KEPT[-1].fallback(function, key)
    torch.Generator, torch.tensor, torch.as_tensor = Generator, *map(on_the_cpu_first, (torch.tensor, torch.as_tensor))
    CheckGenerators().__enter__()
    if not FLOAT64:
        data.WITHOUT_FLOAT64.add(NAME)


def leave(status):
    """Ends the process: PyTorch's thread for the device's gradients would not end in peace."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def pytest_configure(config):
    install()


def pytest_unconfigure(config):
    leave(config.exit_status)


def pytest_sessionfinish(session, exitstatus):
    session.config.exit_status = int(exitstatus)


def run(path):
    """Runs the program at `path` with the fake device as the best at hand, and says how often that was asked for."""
    install()
    pick, asked = data.pick_device, 0

    def pick_device(device=None, float64=False):
        nonlocal asked
        asked += device is None
        return pick(NAME if device is None else device, float64)

    data.pick_device = pick_device  # before other modules take it from there
    data.pick_dtype = lambda device: torch.float32 if device.type == NAME else torch.float64
    runpy.run_path(path, run_name="__main__")
    print(f"The best device was asked for {asked} times.")


if __name__ == "__main__":
    try:
        run(sys.argv[1])
    except BaseException:
        traceback.print_exc()
        leave(1)
    leave(0)

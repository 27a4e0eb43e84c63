"""`Processes`: the processes that train one model together, each on its share of the data, and all that they agree on.

Sums over processes are all that data-parallel training needs: of gradients, of the M-step's statistics, of losses, and
of votes to stop. One process is the usual case, where each of these leaves things as they are.
"""

import signal
import threading
from contextlib import contextmanager
from random import Random

import torch
import torch.distributed as dist


class ProcessLost(RuntimeError):
    """Another process has died, or has not answered within the process group's timeout."""


def require_process_group():
    """Raises ValueError unless `torch.distributed` has been told of the other processes."""
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("distributed=True needs torch.distributed.init_process_group() first; start the script with "
                         "torchrun.")


def total(*tensors):
    """Their sums over all processes, in float64, by one message. Raises `ProcessLost`."""
    flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
    with _answered():
        dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return tuple(part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


class Processes:
    """This process and the others: `rank` is its number, 0 the first's; `size` says how many there are.

    Arguments:
        distributed: whether all processes of `torch.distributed`'s default group take part, or this one is alone.
        device: where gradients are, and numbers are exchanged.
    All must call the same methods in the same order.
    """

    def __init__(self, distributed, device):
        if distributed:
            require_process_group()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        self.device, self.sizes, self.interrupted = device, None, False

    def everywhere(self, prepare):
        """prepare() in each; where one fails (ValueError, OSError), all raise a ValueError: none waits in vain."""
        if self.size == 1:
            return prepare()
        result, problem = None, None
        try:
            result = prepare()
        except (ValueError, OSError) as error:
            problem = error
        problems = self._gather(None if problem is None else str(problem))
        for rank, found in enumerate(problems):
            if found is not None:
                raise ValueError(f"In process {rank}: {found}") from problem
        return result

    def from_first(self, prepare):
        """prepare() of the first process, given to all: numbers, text and tensors on the CPU."""
        if self.size == 1:
            return prepare()
        found = [self.everywhere(lambda: prepare() if self.rank == 0 else None)]
        with _answered():
            dist.broadcast_object_list(found, 0)
        return found[0]

    def require_same(self, **settings):
        """Raises ValueError, in all processes, where settings differ among them."""
        if self.size > 1:
            found = self._gather(settings)
            for name, value in found[0].items():
                if any(other[name] != value for other in found):
                    raise ValueError(f"{name} differs among the processes ({[other[name] for other in found]}): give "
                                     "all of them the same.")

    def batches(self, order, batch_size):
        """This process's share (n,) of points in `order`, in parts: one for each step, of which all processes have the
        same number, and which together are `batch_size` points at most."""
        if self.size == 1:
            return order.split(batch_size)
        sizes = self.sizes = self.sizes or self._gather(len(order))
        n_steps = -(-sum(sizes) // batch_size)
        if min(sizes) < n_steps:
            raise ValueError(f"The processes hold {sizes} points, and an epoch has {n_steps} steps, for each of which "
                             "every process needs a point: share the data more evenly, or raise batch_size.")
        per_step = [sum(n // n_steps + (step < n % n_steps) for n in sizes) for step in range(n_steps)]
        parts = order.tensor_split(n_steps)
        self.shares = [len(part) / n for part, n in zip(parts, per_step, strict=True)]
        return parts

    def average_gradients(self, parameters, step):
        """The gradients of the mean loss over the points that all processes have in this step of the epoch.

        `DistributedDataParallel` would not do: it wraps a model's `forward`, and training calls `elbo`. One message
        after the backward pass is as simple as can be, and at these networks' sizes nearly as fast.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) * self.shares[step]
        with _answered():
            dist.all_reduce(flat)
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.reshape(gradient.shape))

    def mean(self, values, n):
        """The means over all points of `values`, floats that are means over this process's n points."""
        if self.size == 1:
            return values
        *sums, count = total(n * torch.tensor([*values, 1.0], dtype=torch.float64, device=self.device))[0].tolist()
        return [value / count for value in sums]

    def stops(self, stop):
        """Whether any process asks to stop; raises KeyboardInterrupt, in all, if any has been interrupted."""
        if self.size == 1:
            return stop
        votes = total(torch.tensor([stop, self.interrupted], dtype=torch.float64, device=self.device))[0]
        if votes[1]:
            raise KeyboardInterrupt
        return bool(votes[0])

    def reseed(self, generator, seed, epoch):
        """Gives all processes but the first random numbers of their own for an epoch, the same after a break."""
        if self.rank > 0:
            generator.manual_seed(Random(f"{seed} {self.rank} {epoch}").getrandbits(32))

    @contextmanager
    def waiting_to_interrupt(self):
        """Inside, Ctrl-C waits for `stops`: where one process broke off by itself, the others would wait for it."""
        if self.size == 1 or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, lambda *_: setattr(self, "interrupted", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _gather(self, value):
        found = [None] * self.size
        with _answered():
            dist.all_gather_object(found, value)
        return found


@contextmanager
def _answered():
    """Inside, an error of `torch.distributed` is a `ProcessLost`: its kind and its text depend on the means."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ProcessLost(f"Another process has died, or does not answer ({reason}).") from error

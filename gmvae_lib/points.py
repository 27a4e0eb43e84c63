"""`Points`: data as expectation–maximization (EM) sweeps over them, wherever they lie.

In memory, in batches that are read anew for each sweep, or spread over the processes of `torch.distributed`: EM sees
centered, scaled chunks of a size that fits the cache, and sums. Memory does not grow with the number of points.
A point may be a group: V views of one thing, which share its component (chapter 9). One view is the usual case.
"""

import math

import torch
import torch.distributed as dist

from gmvae_lib.data import blocks, check_columns, near_float64, pick_device, pick_dtype
from gmvae_lib.processes import total

CHUNK_BYTES = 2**23  # one chunk's numbers: small enough for the cache, large enough to share among cores (measured)
DEVICE_CHUNK_BYTES = 2**28  # the same on a GPU, where larger products pay
SMALL = 2**15  # numbers: a GPU takes longer to be asked for a step of EM, 80 operations, than a CPU to do it


class Points:
    """N points of D features: `n` of them, of total weight `weight`, centered at `center`, in units of `scale`.

    Each has `views` views: one, or V where x has a third axis.

    Arguments:
        x: a tensor (N, D) or (N, V, D); or a function that returns a fresh iterator over such tensors, the batches.
        weights: the points' weights (N,), for data in memory; all one by default.
        device, dtype: where and in which precision sweeps compute: by default, the best device at hand, which for
            fewer than `SMALL` numbers is the CPU, and float32 only where float64 is slow (`pick_dtype`).
        distributed: whether each process of the default process group of `torch.distributed` holds a share of the data.
        center (D,), scale: the frame, if known. Otherwise the data are read once, for their mean and their range.
            float32, whose range is short, is given numbers of ordinary size: `scale` is a power of two, so that
            dividing by it costs no digit. In float64 it would change nothing, and is 1.
    Raises ValueError where a column is constant or its range has no square in float64.
    """

    def __init__(self, x, weights=None, device=None, dtype=None, distributed=False, center=None, scale=1.0):
        if device is None and isinstance(x, torch.Tensor) and x.numel() < SMALL and not distributed:
            device = "cpu"  # processes, whose shares may differ in size, must agree
        self.device = pick_device(device, float64=True)
        self.dtype = pick_dtype(self.device) if dtype is None else dtype
        self.distributed = distributed
        self.weights = None if weights is None else weights.to(self.device)
        self.kept = {}  # what sweeps keep for the next one
        if isinstance(x, torch.Tensor):
            x = near_float64(x.detach())
            if self.device.type == "cuda" and 2 * x.nbytes < torch.cuda.mem_get_info(self.device)[0]:
                x = x.to(self.device)
        read = (lambda: [x]) if isinstance(x, torch.Tensor) else x

        def batches():
            for batch in map(near_float64, read()):
                yield batch.unsqueeze(1) if batch.ndim == 2 else batch  # (n, V, D)

        self.batches = batches
        if center is None:
            center, scale = self._survey()
        else:
            self.views = 1 if x.ndim == 2 else x.shape[1]
            self._count(len(x))
        self.dim, self.center = len(center), center.to(self.device, torch.float64)
        self.scale = scale if self.dtype == torch.float32 else 1.0
        self.log_volume = self.dim * math.log(self.scale)  # log p(x) = log p(x in units of scale) - log_volume

    def _survey(self):
        """Reads the data once, for their number, their mean and their scale."""
        n, total, low, high = 0, 0.0, math.inf, -math.inf
        for batch in self.batches():
            self.views, n = batch.shape[1], n + len(batch)
            for part in blocks(batch):
                part = part.flatten(0, 1)
                total = total + part.sum(0, dtype=torch.float64)
                low, high = part.amin(0).clamp(max=low), part.amax(0).clamp(min=high)
        if n == 0:
            raise ValueError("There are no batches: give at least one array (n, D).")
        self._count(n)
        if self.n * self.views == 1:
            raise ValueError("x has 1 sample: a covariance needs more.")
        total, = self.total(total)
        if self.distributed:
            low, high = (edge.to(self.device, torch.float64) for edge in (low, high))
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)
        return total / (self.n * self.views), check_columns(low, high)

    def _count(self, n):
        """Sets the number and the weight of all points, and the number of the first that this process holds."""
        rank, n_ranks = (dist.get_rank(), dist.get_world_size()) if self.distributed else (0, 1)
        shares = torch.zeros(n_ranks, dtype=torch.float64)
        shares[rank] = n
        weight = shares.sum() if self.weights is None else self.weights.sum(dtype=torch.float64)
        shares, weight = self.total(shares, weight)
        self.first, self.n, self.weight = int(shares[:rank].sum()), int(shares.sum()), float(weight)

    def chunks(self, n_features, dtype=torch.float64):
        """Yields (chunk (D, n), its weights (n,) or None), one column a point: as many as leave room in the cache for
        `n_features` numbers each. A chunk is overwritten by the next.

        With V views, a chunk is (D, V n): all points' first views, then all second ones, and so on."""
        budget = CHUNK_BYTES if self.device.type == "cpu" else DEVICE_CHUNK_BYTES
        size = max(1, max(256, budget // (dtype.itemsize * n_features)) // self.views)
        center, first, buffer = self.center[:, None], 0, None
        for batch in self.batches():
            for part in batch.split(size):
                if buffer is None:
                    width = min(size, self.n) * self.views
                    buffer = torch.empty(self.dim, width, dtype=torch.float64, device=self.device)
                chunk = buffer[:, :len(part) * self.views]
                columns = part[:, 0].T if self.views == 1 else part.permute(2, 1, 0).flatten(1)
                torch.sub(columns.to(self.device, torch.float64), center, out=chunk)
                if self.scale != 1:
                    chunk /= self.scale
                weights = None
                if self.weights is not None:
                    weights = self.weights[first:first + len(part)].to(self.device, dtype)
                first += len(part)
                yield chunk.to(dtype), weights

    def sum_views(self, values):
        """Values (..., V n) of a chunk's columns, summed over the views of each point: (..., n)."""
        return values if self.views == 1 else values.unflatten(-1, (self.views, -1)).sum(-2)

    def to_views(self, values):
        """Values (..., n) of a chunk's points, given to each of their views: (..., V n)."""
        return values if self.views == 1 else torch.cat([values] * self.views, -1)

    def rows(self, order):
        """The points of these numbers (n,), (n, D) in the frame, and their weights (n,): the same in every process.
        A point with several views lies at their mean."""
        found = torch.zeros(len(order), self.dim + 1, dtype=torch.float64, device=self.device)
        order, place = order.sort()  # a file is read from its beginning to its end
        first = self.first
        for batch in self.batches():
            here = (order >= first) & (order < first + len(batch))
            inside = order[here] - first
            chosen, here = batch[inside.to(batch.device)], here.to(self.device)
            found[here, :-1] = (chosen.to(self.device, torch.float64).mean(1) - self.center) / self.scale
            if self.weights is None:
                found[here, -1] = 1
            else:
                found[here, -1] = self.weights[inside.to(self.device)].double()
            first += len(batch)
        found, = self.total(found[place.argsort().to(self.device)])
        return found[:, :-1], found[:, -1]

    def total(self, *tensors):
        """Their sums over all processes that share the data; where there is one, the tensors themselves."""
        if not self.distributed:
            return tensors
        return total(*(tensor.to(self.device) for tensor in tensors))

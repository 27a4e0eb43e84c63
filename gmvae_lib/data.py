"""Data sets, and the checks that every model makes of its input.

`load(name, split)` returns a `Dataset`. The 2-D toys are drawn from known mixtures, and the digits (8 x 8, pixels
0..16) come with scikit-learn: both work offline. MNIST and Fashion-MNIST (28 x 28, pixels 0..255) are files, see
`downloads`.
"""

import difflib
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from gmvae_lib import downloads

# scikit-learn is imported by the functions that need it: with it a process takes nearly twice as long to start.


@dataclass(frozen=True)
class Dataset:
    """Data x (N, D) float32, labels y (N,) int64 (for scoring only), and the shape of one image or None."""

    x: torch.Tensor
    y: torch.Tensor
    image_shape: tuple[int, int] | None
    name: str

    def __len__(self):
        return len(self.x)


def load(name, split="train", n_samples=600, seed=0, download=True):
    """Loads a data set by name.

    Arguments:
        name: "digits" (1,437 train and 360 test images, 64 pixels of 0..16), "mnist" or "fashion-mnist" (60,000 and
            10,000 images, 784 pixels of 0..255), or a 2-D toy: "blobs", "cigars", "rings", "moons", "unequal".
        split: "train", "test" or "all"; a toy's test set is a second, independent draw.
        n_samples, seed: for the toys: how many points, and which draw.
        download: whether files of MNIST and Fashion-MNIST that are not in the folder of data sets (the environment
            variable GMVAE_DATA's) may be fetched into it.
    Raises ValueError for an unknown name (naming the nearest known one) or split and for a damaged file, and
    FileNotFoundError where a file is neither there nor to be had.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"split is {split!r}: choose 'train', 'test' or 'all'.")
    if name == "digits":
        return _digits(split)
    if name in downloads.NAMES:
        return _idx_images(name, ("train", "test") if split == "all" else (split,), download)
    if name in TOYS:
        # The two splits never share a random stream, so that held-out points are new points.
        streams = {"train": [2 * seed], "test": [2 * seed + 1], "all": [2 * seed, 2 * seed + 1]}[split]
        parts = [TOYS[name](n_samples, np.random.default_rng(stream)) for stream in streams]
        x, y = (np.concatenate(values) for values in zip(*parts, strict=True))
        return Dataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y), None, name)
    known = ["digits", *downloads.NAMES, *TOYS]
    nearest = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"There is no data set named {name!r}.{hint} Known are: {', '.join(known)}.")


def _digits(split):
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))  # the course's fixed split
    chosen = {"train": order[360:], "test": order[:360], "all": order}[split]
    return Dataset(x[chosen], y[chosen], (8, 8), "digits")


def _idx_images(name, splits, download):
    parts = [downloads.read_split(name, split, download) for split in splits]
    x = torch.empty(sum(len(images) for images, _ in parts), 28 * 28)
    # Each part is converted into its place: as floats, images take four times their bytes.
    for rows, (images, _) in zip(x.split([len(images) for images, _ in parts]), parts):
        rows.copy_(torch.from_numpy(images).flatten(1))
    return Dataset(x, torch.from_numpy(np.concatenate([labels for _, labels in parts])).long(), (28, 28), name)


def _mixture(weights, means, factors):
    """A sampler of the mixture with these weights, means (K, 2) and Cholesky factors (K, 2, 2)."""
    weights, means, factors = map(np.asarray, (weights, means, factors))

    def draw(n_samples, rng):
        y = rng.choice(len(weights), size=n_samples, p=weights)
        return means[y] + np.einsum("nij,nj->ni", factors[y], rng.standard_normal((n_samples, 2))), y

    return draw


def _rings(n_samples, rng):
    y = rng.integers(2, size=n_samples)
    angle, radius = rng.uniform(0, 2 * np.pi, n_samples), 1.0 + 2.0 * y + 0.12 * rng.standard_normal(n_samples)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), y


def _moons(n_samples, rng):
    from sklearn.datasets import make_moons

    return make_moons(n_samples, noise=0.08, random_state=int(rng.integers(2**31)))


_EYE = np.eye(2)
TOYS = {
    "blobs": _mixture([0.5, 0.3, 0.2], [[-2.5, -1.0], [2.0, -1.5], [0.5, 2.5]], [0.8 * _EYE, 0.6 * _EYE, 0.7 * _EYE]),
    "cigars": _mixture([0.4, 0.35, 0.25], [[-2.0, 0.0], [2.0, 0.5], [0.0, 3.5]],
                       [[[0.5, 0.0], [1.1, 0.45]], [[0.5, 0.0], [-1.2, 0.4]], [[1.5, 0.0], [0.3, 0.35]]]),
    "unequal": _mixture([0.9, 0.07, 0.03], [[0.0, 0.0], [4.5, 0.0], [4.5, 2.5]],
                        [1.3 * _EYE, 0.35 * _EYE, 0.25 * _EYE]),
    "rings": _rings,
    "moons": _moons,
}


WITHOUT_FLOAT64 = {"mps"}  # kinds of device; what needs that type is computed on the CPU instead


def pick_device(device=None, float64=False):
    """The device to compute on: the one asked for, or the best at hand: "cuda", then "mps", then "cpu".

    With `float64`, a device without that type (Apple's "mps") gives way to the CPU.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cpu" if float64 and device in WITHOUT_FLOAT64 else device)
    try:
        device = torch.empty(0, dtype=torch.float32, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch raises either, by the device's kind
        reason = str(error).splitlines()[0]
        raise ValueError(f"device is {device!r}: choose 'cuda', 'mps' or 'cpu', one that this machine has, or leave it "
                         f"out ({reason}).") from error
    return torch.device("cpu") if float64 and device.type in WITHOUT_FLOAT64 else device


def near_float64(x):
    """x where float64 can be had: where it is, or on the CPU if its device has no such type."""
    return x.to(pick_device(x.device, float64=True))


def pick_dtype(device):
    """The precision for EM on this device: float64, or float32 on GPUs with few float64 units.

    Among NVIDIA's, those for data centers have many; their compute capability ends in 0: 6.0, 7.0, 8.0, 9.0, 10.0.
    """
    if device.type != "cuda":
        return torch.float64
    major, minor = torch.cuda.get_device_capability(device)
    return torch.float64 if minor == 0 and 6 <= major <= 10 else torch.float32


def check_array(x, n_features=None, name="x", views=False):
    """Returns x (N, D), a tensor or an array of numbers, as a tensor of float32 or float64, or raises ValueError.

    `n_features` is the D that is required, if any; with `views`, x may be (N, V, D) too. An array of floats is not
    copied, even if it is memory-mapped.
    """
    try:
        if not isinstance(x, torch.Tensor):
            x = np.asarray(x)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of read-only arrays: nothing here writes to them
                x = torch.from_numpy(x if min(x.strides, default=0) >= 0 else x.copy())  # torch takes no other strides
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is not an array of numbers: {error}") from error
    if x.ndim != 2 and not (views and x.ndim == 3):
        groups = " (or (N, V, D), V views of each)" if views else ""
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (N, D), one row a point{groups}. For one "
                         f"feature, use {name}.reshape(-1, 1).")
    if x.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: it is empty.")
    if x.is_complex():
        raise ValueError(f"{name} is complex: give real numbers.")
    if not x.is_floating_point() or x.dtype in (torch.float16, torch.bfloat16):
        x = near_float64(x).double() if x.dtype in (torch.int32, torch.int64) else x.float()
    if x.ndim == 3 and n_features is not None and x.shape[2] != n_features:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: expected (N, {n_features}), one row a point, or groups "
                         f"(N, V, {n_features}). Images are rows too: {name}.flatten(1).")
    if n_features is not None and x.shape[-1] != n_features:
        raise ValueError(f"{name} has {x.shape[-1]} features: expected {n_features}, as in fit.")
    if not all(torch.isfinite(part.sum()) for part in blocks(x)):  # the rows are looked for only if this fails
        bad = torch.cat([~part.isfinite().flatten(1).all(1) for part in blocks(x)]).nonzero().ravel().tolist()
        if bad:
            raise ValueError(f"{name} has NaN or infinite values in {len(bad)} row(s), the first are {bad[:5]}: drop "
                             "these rows, or fill the gaps in.")
    return x


def blocks(x):
    """x (N, ...) in blocks of rows of 32 MiB: so a file is read once, where a sum over all rows reads it D times."""
    return x.split(max(1, 2**25 // (x.element_size() * x[0].numel())))


def check_weights(weights, n):
    """Returns weights (n,) of n points as a float64 tensor; ValueError unless finite, non-negative and not all 0."""
    weights = near_float64(torch.as_tensor(weights if isinstance(weights, torch.Tensor) else np.asarray(weights)))
    weights = weights.double()
    if tuple(weights.shape) != (n,):
        raise ValueError(f"sample_weight has shape {tuple(weights.shape)}: expected {(n,)}, one weight a point.")
    if not weights.isfinite().all() or (weights < 0).any() or not weights.any():
        raise ValueError("sample_weight must be finite and non-negative, and not zero everywhere.")
    return weights


def check_columns(low, high):
    """The size of data whose columns run from `low` to `high` (D,), as the next power of two; ValueError where a column
    is constant or squares leave float64's range."""
    constant = (low == high).nonzero().ravel().tolist()
    if constant:
        raise ValueError(f"Column(s) {constant[:8]} of x are constant, so no Gaussian has a density there: drop them "
                         "with x[:, x.std(0) > 0], or project with PCA first.")
    size = float((high.double() - low.double()).amax())
    exponent = math.frexp(size)[1]
    if abs(exponent) > 500 or not math.isfinite(size):
        raise ValueError("The squares of x leave float64's range: divide x by its largest absolute value first.")
    return math.ldexp(1.0, exponent)


def views(transform, n):
    """A transform (x, generator) -> groups (N, n, D) for `training.fit`: n independently transformed views of each
    point of x (N, D)."""
    return lambda x, generator=None: transform(x.repeat_interleave(n, 0), generator).unflatten(0, (len(x), n))


def random_affine(image_shape, rotation=0.12, scale=0.08, shift=0.08, shear=0.0):
    """A transform (x, generator) -> x for `training.fit`: a small random rotation, zoom, shift and slant of each image.

    Arguments (standard deviations): rotation in radians; scale as a logarithm; shift as a share of half the image;
    shear as the slant's tangent.
    Pixels are whole numbers again afterwards, so that counts stay counts. x: (N, D) with D = height * width.
    """

    def transform(x, generator=None):
        noise = torch.randn(5 if shear else 4, len(x), generator=generator, device=x.device)
        angle, zoom = rotation * noise[0], (scale * noise[1]).exp()
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        slant = shear * noise[-1]
        theta = torch.stack([cos, slant * cos - sin, shift * noise[2], sin, slant * sin + cos, shift * noise[3]], 1)
        theta = theta.reshape(-1, 2, 3)
        images = x.reshape(-1, 1, *image_shape)
        grid = F.affine_grid(theta, images.shape, align_corners=False)
        return F.grid_sample(images, grid, align_corners=False).round().reshape(len(x), -1)

    return transform

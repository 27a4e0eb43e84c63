"""Small files in MNIST's format, for tests."""

import gzip

import numpy as np
import torch


def idx(array, packed=True):
    """The idx file of an array of unsigned bytes."""
    raw = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()
    return gzip.compress(raw, 1, mtime=0) if packed else raw


def write(folder, seed=0, sizes=(7, 5), packed=True, dot=False):
    """Writes MNIST's four files with few random images; returns their images (N, 784) and labels (N,), by split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, truth = np.random.default_rng(seed), {}
    for split, prefix, n in zip(("train", "test"), ("train", "t10k"), sizes, strict=True):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{prefix}-{kind}-ubyte".replace("-idx", ".idx" if dot else "-idx")
            (folder / (name + ".gz" * packed)).write_bytes(idx(array, packed))
        truth[split] = torch.tensor(images.reshape(n, 784)), torch.tensor(labels)
    return truth

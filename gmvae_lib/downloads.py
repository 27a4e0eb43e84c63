"""The idx files of MNIST and Fashion-MNIST: finds them, or fetches them, and reads them.

They lie in the folder that the environment variable GMVAE_DATA names, gzipped or not, in one subfolder for each data
set (MNIST's may lie in the folder itself). Files that are there are used as they are, and nothing is written.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

VARIABLE = "GMVAE_DATA"
NAMES = ("mnist", "fashion-mnist")
LIMIT = 2**26  # bytes that an array may claim: the largest of these files, unpacked, holds 47,040,000


def data_folder():
    """The folder of data sets: GMVAE_DATA's, or "gmvae" among the user's caches."""
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    import pooch

    return pooch.os_cache("gmvae")


def read_split(name, split, download=True):
    """The images (N, 28, 28) and labels (N,) of "mnist" or "fashion-mnist", both uint8; split is "train" or "test".

    A file that is not there is fetched, unless `download` is False. Raises FileNotFoundError where there is none to be
    had, which says what to put where, and ValueError for a file that does not hold what it should.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    paths = [_locate(name, f"{prefix}-{kind}-ubyte.gz", download) for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(path, ndim) for path, ndim in zip(paths, (3, 1), strict=True))
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{paths[0]} holds images of {images.shape[1]} x {images.shape[2]} pixels: expected 28 x 28.")
    if len(images) != len(labels):
        raise ValueError(f"{paths[0]} holds {len(images):,} images, but {paths[1]} holds {len(labels):,} labels.")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{paths[1]} holds the label {labels.max()}: expected 0 to 9.")
    return images, labels


def _locate(name, file, download):
    path = find(name, file)
    if path is None:
        raise FileNotFoundError(f"{file} is not in {data_folder() / name}: put it there, or set {VARIABLE} to the "
                                "folder that holds it.")
    return path


def find(name, file):
    """The path of the data set's file, named as "train-images-idx3-ubyte.gz", if it is there: else None."""
    names = [file, file.replace("-idx", ".idx")]  # MNIST is passed on with either
    names += [known.removesuffix(".gz") for known in names]
    folders = [data_folder() / name] + ([data_folder()] if name == "mnist" else [])
    return next((path for folder in folders for known in names if (path := folder / known).is_file()), None)


def read_idx(path, ndim):
    """The array of unsigned bytes, with `ndim` axes, of an idx file, gzipped or not; ValueError where it is none.

    Whatever the file claims, no more is unpacked than the largest of MNIST's files holds, and a bit.
    """
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return _parse(gzip.GzipFile(fileobj=file) if packed else file, ndim)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged, or no idx file: {error} Delete it, so that it is fetched again, or put "
                         "the right one in its place.") from error


def _parse(file, ndim):
    header = file.read(4 + 4 * ndim)
    zeros, kind, axes = struct.unpack(">HBB", header[:4].ljust(4, b"\xff"))
    if zeros:
        raise ValueError("it does not begin with two zero bytes.")
    if (kind, axes) != (8, ndim):
        raise ValueError(f"it holds an array of type 0x{kind:02x} with {axes} axes, expected unsigned bytes (0x08) "
                         f"with {ndim}.")
    if len(header) < 4 + 4 * ndim:
        raise ValueError("it ends within its header.")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    if size > LIMIT:
        raise ValueError(f"it claims {size:,} bytes, more than any of MNIST's files holds.")
    values = np.empty(size, np.uint8)
    filled = 0
    while chunk := file.read(min(2**20, size - filled)):
        values[filled:filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if filled < size:
        raise ValueError(f"it claims {size:,} bytes after its header and holds {filled:,}.")
    if file.read(1):  # which makes gzip compare its checksum too
        raise ValueError(f"it claims {size:,} bytes after its header and holds more.")
    return values.reshape(shape)

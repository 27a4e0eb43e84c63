"""The idx files of MNIST and Fashion-MNIST: finds them, or fetches them, and reads them.

They lie in the folder that the environment variable GMVAE_DATA names, gzipped or not, in one subfolder for each data
set (MNIST's may lie in the folder itself). Files that are there are used as they are, and nothing is written.
"""

import gzip
import math
import os
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

VARIABLE = "GMVAE_DATA"
MIRRORS = {  # tried in this order
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/",
              "https://storage.googleapis.com/cvdf-datasets/mnist/",
              "https://raw.githubusercontent.com/fgnt/mnist/master/"),
    "fashion-mnist": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                      "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                      "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"),
}
FILES = {  # bytes and SHA-256 of each, as TensorFlow Datasets and others publish them
    "mnist": {
        "train-images-idx3-ubyte.gz": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        "train-labels-idx1-ubyte.gz": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images-idx3-ubyte.gz": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        "t10k-labels-idx1-ubyte.gz": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
}
NAMES = tuple(FILES)
TIMEOUT = 20.0  # seconds that a mirror may be silent
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
    if path is None and not download:
        raise FileNotFoundError(f"{file} is not in {data_folder() / name}. {_advice(name)}")
    return path or fetch(name, file)


def _advice(name):
    return (f"Put {', '.join(FILES[name])}, gzipped or not, into {data_folder() / name}, or set the environment "
            f"variable {VARIABLE} to a folder that holds them in its subfolder {name}.")


def at_hand(name):
    """Whether all files of "mnist" or "fashion-mnist" are there, so that loading them fetches nothing."""
    return all(find(name, file) for file in FILES[name])


def size(name):
    """The bytes of the data set's files as they are fetched, gzipped."""
    return sum(packed for packed, _ in FILES[name].values())


def find(name, file):
    """The path of the data set's file, named as "train-images-idx3-ubyte.gz", if it is there: else None."""
    names = [file, file.replace("-idx", ".idx")]  # MNIST is passed on with either
    names += [known.removesuffix(".gz") for known in names]
    folders = [data_folder() / name] + ([data_folder()] if name == "mnist" else [])
    return next((path for folder in folders for known in names if (path := folder / known).is_file()), None)


def fetch(name, file):
    """Fetches the data set's file into the folder of data sets, from the first mirror that sends the right bytes.

    Returns its path. Raises FileNotFoundError, with what was tried and what to do instead, where no mirror does or the
    file cannot be written. The file appears there whole or not at all; what a killed process leaves behind is a hidden
    folder named .fetching-…, which may be deleted.
    """
    import pooch
    from requests import RequestException
    from tqdm.auto import tqdm

    def get(url, path, _):
        with open(path, "wb") as opened, tqdm(total=size, desc=file, unit="B", unit_scale=True, disable=silent) as bar:
            pooch.HTTPDownloader(timeout=TIMEOUT)(url, _Metered(opened, size, bar), None)

    outer = sys.exception()
    folder, (size, sha256), failures = data_folder() / name, FILES[name][file], []
    silent = os.environ.get("GMVAE_PROGRESS") == "0"
    pooch.get_logger().setLevel("WARNING")  # the bar says the same
    for url in (mirror + file for mirror in MIRRORS[name]):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as staging:
                path = Path(pooch.retrieve(url, sha256, file, staging, downloader=get))
                path.chmod(0o666 & folder.stat().st_mode)  # whoever may read the folder may read the file
                return path.replace(folder / file)
        except (RequestException, ValueError) as error:  # ValueError: the bytes are others
            while error.__context__ not in (None, outer):  # requests and urllib3 wrap what happened several times
                error = error.__context__
            failures.append(f"\n  {url}: {error}")
        except OSError as error:
            raise FileNotFoundError(f"{file} cannot be written to {folder} ({error}). {_advice(name)}") from error
    raise FileNotFoundError(f"No mirror gave {file} of {name}:{''.join(failures)}\n{_advice(name)}")


class _Metered:
    """The open file that a download is written to: moves the bar, and ends a download that is longer than it should."""

    def __init__(self, file, size, bar):
        self.file, self.left, self.bar = file, size, bar

    def write(self, chunk):
        self.left -= len(chunk)
        if self.left < 0:
            raise ValueError(f"it sends more than the {self.bar.total:,} bytes of the file.")
        self.file.write(chunk)
        self.bar.update(len(chunk))

    def flush(self):
        self.file.flush()


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

"""Files that are not what they say: the reader of idx files gives the array, or a ValueError, in little memory."""

import gzip
import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmvae_lib.data import load
from gmvae_lib.downloads import LIMIT, read_idx
from tests.unit.idx_files import idx, write

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
RAW = idx(IMAGES, packed=False)


def header(*numbers):
    return np.array(numbers, ">u4").tobytes()


def flip(raw, at):
    return raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1:]


HOSTILE = {
    "empty": (b"", "does not begin with two zero bytes"),
    "one byte": (b"\0", "does not begin with two zero bytes|expected unsigned bytes"),
    "a page": (b"<html>Please log in</html>", "does not begin with two zero bytes"),
    "a pickle": (b"\x80\x04\x95\x1a\x00\x00\x00", "does not begin with two zero bytes"),
    "little-endian": (np.array([2051, 2, 3, 4], "<u4").tobytes() + IMAGES.tobytes(), "two zero bytes"),
    "labels in place of images": (idx(np.zeros(9, np.uint8), False), "0x08 with 1 axes, expected .* with 3"),
    "floats": (header(0xD03, 2, 3, 4) + bytes(96), r"type 0x0d with 3 axes, expected unsigned bytes \(0x08\)"),
    "a header cut short": (RAW[:11], "ends within its header"),
    "a body cut short": (RAW[:-1], "claims 24 bytes after its header and holds 23"),
    "a byte too many": (RAW + b"\0", "claims 24 bytes after its header and holds more"),
    "2^31 images": (header(2051, 2**31, 28, 28) + bytes(100), r"claims 1,683,627,180,032 bytes, more than any"),
    "sizes whose product overflows": (header(2051, *[2**32 - 1] * 3), "more than any of MNIST's files"),
    "sizes whose product is zero": (header(2051, 0, 2**32 - 1, 2**32 - 1) + b"\0", "holds more"),
    "gzip, cut short": (idx(IMAGES)[:-9], "ended before the end-of-stream|holds"),
    "gzip, its header only": (idx(IMAGES)[:5], "ended before the end-of-stream"),
    "gzip, its checksum flipped": (flip(idx(IMAGES), -6), "CRC check failed"),
    "gzip, its length flipped": (flip(idx(IMAGES), -2), "Incorrect length"),
    "gzip, then something else": (idx(IMAGES) + b"more", "Not a gzipped file"),
    "gzip in gzip": (gzip.compress(idx(IMAGES)), "does not begin with two zero bytes"),
    "gzip of another method": (b"\x1f\x8b\x07" + bytes(20), "Unknown compression method"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_another_file_is_refused_with_its_name_and_the_reason(tmp_path, case):
    raw, words = HOSTILE[case]
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(ValueError, match=rf"{tmp_path / 'file'} is damaged, or no idx file: .*(?:{words})"):
        read_idx(tmp_path / "file", 3)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("array", [IMAGES, IMAGES[:0], np.zeros((2, 0, 3), np.uint8)])
def test_every_array_of_bytes_comes_back(tmp_path, array, packed):
    (tmp_path / "file").write_bytes(idx(array, packed))
    read = read_idx(tmp_path / "file", 3)
    assert read.dtype == np.uint8 and read.shape == array.shape and (read == array).all()


ZEROS = gzip.compress(bytes(2**24))  # 16 MiB in 16 kB


def bomb(begin, mebibytes):
    """A small gzip file that unpacks to these bytes and then to zeros."""
    return gzip.compress(begin) + ZEROS * (mebibytes // 16)


@pytest.mark.parametrize(("begin", "limit"), [
    (b"", 2**20), (header(2051, 2**31, 28, 28), 2**20), (RAW, 2**20), (header(2051, LIMIT + 1, 1, 1), 2**20),
    (header(2051, LIMIT, 1, 1), LIMIT + 2**23)],
    ids=["no header", "lying header", "an array before it", "just over the limit", "the limit"])
def test_a_bomb_is_refused_without_unpacking_it(tmp_path, begin, limit):
    (tmp_path / "file.gz").write_bytes(bomb(begin, 4096))  # 4 GiB, which would take 10 s
    assert (tmp_path / "file.gz").stat().st_size < 2**23
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(ValueError, match="is damaged, or no idx file"):
            read_idx(tmp_path / "file.gz", 3)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("images", "labels", "words"), [
    (np.zeros((3, 28, 28), np.uint8), [1, 2], "holds 3 images, but .*train-labels.* holds 2 labels"),
    (np.zeros((2, 28, 28), np.uint8), [1, 10], "train-labels.* holds the label 10: expected 0 to 9"),
    (np.zeros((2, 28, 27), np.uint8), [1, 2], "images of 28 x 27 pixels: expected 28 x 28"),
], ids=["counts", "labels", "size"])
def test_files_that_do_not_fit_together_are_refused(tmp_path, monkeypatch, images, labels, words):
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.array(labels, np.uint8)))
    monkeypatch.setenv("GMVAE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=words):
        load("mnist")
    assert len(load("mnist", "test")) == 5


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


def check(path, raw):
    """The file is refused, or read as its header says."""
    path.write_bytes(raw)
    for ndim in (1, 3):
        try:
            array = read_idx(path, ndim)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
            shape = np.frombuffer(plain, ">u4", ndim, offset=4)
            assert plain[:4] == bytes([0, 0, 8, ndim]) and array.shape == tuple(shape)
            assert array.tobytes() == plain[4 + 4 * ndim:] and array.size == math.prod(map(int, shape))


@given(st.binary(max_size=64), st.sampled_from([b"", RAW[:4], RAW[:16], RAW[:20], header(2049, 5), b"\x1f\x8b\x08"]))
def test_any_bytes_are_read_as_they_say_or_refused(path, raw, begin):
    check(path, begin + raw)


@given(st.data(), st.booleans(), st.booleans())
def test_a_changed_file_is_read_as_it_says_or_refused(path, data, packed, images):
    raw = bytearray(idx(IMAGES if images else np.arange(10, dtype=np.uint8), packed))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "drop", "double"]))
        if change == "set":
            raw[at] = data.draw(st.integers(0, 255))
        elif change == "cut" and at:
            del raw[at:]
        elif change == "drop" and len(raw) > 1:
            del raw[at]
        elif change == "double":
            raw[at:at] = raw[at:]
    check(path, bytes(raw))


@given(st.tuples(*[st.sampled_from([0, 1, 2, 3, 4, 2**16, LIMIT, 2**31, 2**32 - 1])] * 3), st.booleans())
def test_any_claimed_shape_is_the_bodys_or_refused(path, shape, packed):
    raw = header(2051, *shape) + IMAGES.tobytes()
    check(path, gzip.compress(raw) if packed else raw)

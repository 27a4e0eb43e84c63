"""MNIST's and Fashion-MNIST's files: found in any usual place and spelling, and read as they are."""

import os

import numpy as np
import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.downloads import FILES, at_hand, read_idx, size
from tests.unit.idx_files import idx, write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GMVAE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dot", [True, False])
@pytest.mark.parametrize("place", [".", "mnist"])
def test_mnist_is_read_from_every_usual_place_and_spelling(folder, place, packed, dot):
    truth = write(folder / place, packed=packed, dot=dot)
    for split in ("train", "test"):
        data = load("mnist", split)
        assert data.x.equal(truth[split][0].float()) and data.y.equal(truth[split][1].long())
        assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
        assert (data.image_shape, data.name) == ((28, 28), "mnist")


def test_all_is_the_training_images_and_then_the_test_images(folder):
    truth = write(folder)
    data = load("mnist", "all")
    assert data.x.equal(torch.cat([truth["train"][0], truth["test"][0]]).float())
    assert data.y.equal(torch.cat([truth["train"][1], truth["test"][1]]).long())


def test_each_data_set_has_its_own_subfolder(folder):
    digits, clothes = write(folder / "mnist", seed=1), write(folder / "fashion-mnist", seed=2)
    assert load("mnist").x.equal(digits["train"][0].float())
    assert load("fashion-mnist").x.equal(clothes["train"][0].float()) and load("fashion-mnist").name == "fashion-mnist"


def test_digits_in_the_folder_itself_are_never_taken_for_clothes(folder):
    write(folder)
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.gz"):
        load("fashion-mnist", download=False)


def test_a_folder_that_holds_the_files_is_only_read(folder):
    write(folder)
    before = {path: path.stat() for path in [folder, *folder.iterdir()]}
    load("mnist", "all")
    after = {path: path.stat() for path in [folder, *folder.iterdir()]}
    assert {path: (s.st_mtime_ns, s.st_size) for path, s in before.items()} == {
        path: (s.st_mtime_ns, s.st_size) for path, s in after.items()}


def test_the_variable_is_looked_up_at_each_call_and_may_begin_with_a_tilde(tmp_path, monkeypatch):
    first, second = write(tmp_path / "a", seed=1), write(tmp_path / "b", seed=2)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, truth in (("a", first), ("b", second)):
        monkeypatch.setenv("GMVAE_DATA", f"~/{name}")
        assert load("mnist", "test").x.equal(truth["test"][0].float())


def test_a_packed_file_without_the_ending_is_known_by_its_first_bytes(folder):
    (folder / "file").write_bytes(idx(np.arange(6, dtype=np.uint8).reshape(3, 2)))
    assert read_idx(folder / "file", 2).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_mnist_itself():
    try:
        parts = [load("mnist", split, download=False) for split in ("train", "test")]
    except FileNotFoundError:
        pytest.skip(f"MNIST is not in the folder that GMVAE_DATA names ({os.environ.get('GMVAE_DATA')})")
    assert [len(part) for part in parts] == [60_000, 10_000]
    assert parts[0].y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert parts[0].y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    # The mean grey value and its spread that every recipe for MNIST quotes.
    assert parts[0].x.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert parts[0].x.double().std() / 255 == pytest.approx(0.3081, abs=1e-4)


def test_a_data_set_is_at_hand_when_all_of_its_files_are(folder):
    assert not at_hand("mnist")
    write(folder / "mnist")
    assert at_hand("mnist") and not at_hand("fashion-mnist")
    next((folder / "mnist").glob("t10k-labels*")).unlink()
    assert not at_hand("mnist")


def test_the_size_of_a_data_set_is_that_of_its_four_files():
    assert size("mnist") == 11_594_722 and len(FILES["fashion-mnist"]) == 4

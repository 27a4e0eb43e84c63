"""Data sets, devices and the checks of input."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gmvae_lib import data
from gmvae_lib.data import TOYS, check_array, check_columns, check_weights, load, pick_device, pick_dtype, random_affine


def test_digits_are_scikit_learns_split_without_overlap():
    train, test, everything = (load("digits", split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1437, 360, 1797)
    assert train.image_shape == (8, 8) and train.x.dtype == torch.float32 and train.y.dtype == torch.int64
    rows = {(tuple(x.tolist()), int(y)) for x, y in zip(everything.x, everything.y, strict=True)}
    truth = load_digits()
    assert rows == {(tuple(x.tolist()), int(y)) for x, y in zip(truth.data, truth.target, strict=True)}
    both = torch.cat([test.x, train.x])
    assert both.sort(0).values.equal(everything.x.sort(0).values)
    assert train.x.min() == 0 and train.x.max() == 16


def test_digits_split_is_the_same_each_time_and_holds_every_class():
    assert load("digits").x.equal(load("digits").x)
    assert set(load("digits", "test").y.tolist()) == set(range(10))


@pytest.mark.parametrize("name", list(TOYS))
def test_toys_repeat_with_their_seed_and_their_splits_differ(name):
    first, again, other = load(name, seed=3), load(name, seed=3), load(name, seed=4)
    assert first.x.equal(again.x) and first.y.equal(again.y) and not first.x.equal(other.x)
    test, everything = load(name, "test", seed=3), load(name, "all", seed=3)
    assert everything.x.equal(torch.cat([first.x, test.x]))
    assert not {tuple(row) for row in first.x.tolist()} & {tuple(row) for row in test.x.tolist()}
    assert first.x.shape == (600, 2) and first.x.isfinite().all() and first.image_shape is None


def test_no_two_seeds_share_a_stream():
    """Training points of one seed must never be the test points of another."""
    draws = [load("blobs", split, seed=seed).x for seed in range(4) for split in ("train", "test")]
    assert len({tuple(x[0].tolist()) for x in draws}) == 8


def test_a_toy_has_the_moments_of_its_mixture():
    x = load("blobs", n_samples=200_000).x.double()
    weights, means = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[-2.5, -1.0], [2.0, -1.5], [0.5, 2.5]])
    assert torch.allclose(x.mean(0), (weights @ means).double(), atol=0.02)
    spread = weights @ torch.tensor([0.64, 0.36, 0.49])
    expected = (weights[:, None] * means).T @ means - torch.outer(weights @ means, weights @ means)
    assert torch.allclose(x.T.cov(), (expected + spread * torch.eye(2)).double(), atol=0.04)


@pytest.mark.parametrize(("name", "nearest"), [("digit", "'digits'"), ("Moons", "'moons'"), ("blob", "'blobs'")])
def test_an_unknown_name_gets_the_nearest_known_one(name, nearest):
    with pytest.raises(ValueError, match=f"Did you mean {nearest}.*Known are: digits, mnist, fashion-mnist, blobs"):
        load(name)


def test_a_hopeless_name_gets_the_list_and_a_wrong_split_the_choices():
    with pytest.raises(ValueError, match=r"named 'qqqq'\. Known are: digits"):
        load("qqqq")
    with pytest.raises(ValueError, match="split is 'valid': choose 'train', 'test' or 'all'"):
        load("digits", "valid")


# Devices


def test_the_best_device_is_cuda_then_mps_then_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device().type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device().type == "mps"
    assert pick_device(float64=True).type == "cpu"  # Apple's device has no float64
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda" and pick_device(float64=True).type == "cuda"


def test_a_device_asked_for_is_the_one_given():
    assert pick_device("cpu").type == "cpu" and pick_device(torch.device("cpu")).type == "cpu"


@pytest.mark.parametrize("name", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_an_error_at_once(name):
    with pytest.raises(ValueError, match=f"device is '{name}': choose 'cuda', 'mps' or 'cpu', one that this machine"):
        pick_device(name)


# Checks


@pytest.mark.parametrize(("given", "dtype"), [
    (np.zeros((2, 3), np.float32), torch.float32), (np.zeros((2, 3)), torch.float64),
    (np.zeros((2, 3), np.uint8), torch.float32), (np.zeros((2, 3), bool), torch.float32),
    (np.zeros((2, 3), np.int64), torch.float64), ([[1, 2, 3], [4, 5, 6]], torch.float64),
    ([[1.0, 2, 3], [4, 5, 6]], torch.float64), (torch.zeros(2, 3, dtype=torch.bfloat16), torch.float32),
    (torch.zeros(2, 3), torch.float32), (np.zeros((2, 3))[::-1], torch.float64), (np.zeros((3, 2)).T, torch.float64)])
def test_whatever_holds_real_numbers_becomes_a_float_tensor(given, dtype):
    x = check_array(given)
    assert x.shape == (2, 3) and x.dtype == dtype


def test_arrays_that_are_reversed_or_read_only_are_taken_without_a_warning(recwarn):
    x = np.arange(6.0).reshape(3, 2)
    x.setflags(write=False)
    assert check_array(x).tolist() == x.tolist()
    assert check_array(x[::-1]).tolist() == x[::-1].tolist()
    assert not recwarn.list


BAD = {
    "one axis": (np.zeros(5), r"x has shape \(5,\): expected \(N, D\).*x.reshape\(-1, 1\)"),
    "three axes": (np.zeros((2, 8, 8)), r"expected \(N, D\)"),
    "a scalar": (3.0, r"expected \(N, D\)"),
    "words": ([["a", "b"]], "x is not an array of numbers"),
    "ragged": ([[1, 2], [3]], "x is not an array of numbers"),
    "objects": (np.array([[None, 1]]), "x is not an array of numbers"),
    "complex": (np.zeros((2, 2), complex), "x is complex: give real numbers"),
    "no points": (np.zeros((0, 3)), "it is empty"),
    "no features": (np.zeros((3, 0)), "it is empty"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_holds_no_points_is_refused(what):
    given, message = BAD[what]
    with pytest.raises(ValueError, match=message):
        check_array(given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_with_nan_or_infinity_are_named(value):
    x = np.zeros((50, 3))
    x[[7, 41], 1] = value
    with pytest.raises(ValueError, match=r"in 2 row\(s\), the first are \[7, 41\]: drop these rows, or fill"):
        check_array(x)


def test_infinities_that_cancel_are_found_and_large_numbers_are_none():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        check_array([[np.inf], [-np.inf]])
    assert check_array(np.full((4, 1), 3e38, np.float32)).max() > 1e38  # whose sum overflows


def test_another_number_of_features_is_named():
    with pytest.raises(ValueError, match="x has 4 features: expected 3"):
        check_array(np.zeros((5, 4)), n_features=3)


def test_columns_without_a_spread_are_named_and_the_others_give_a_power_of_two():
    with pytest.raises(ValueError, match=r"Column\(s\) \[1, 3\] of x are constant.*drop them.*PCA"):
        check_columns(torch.tensor([0.0, 2.0, 0.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, 2.0]))
    assert check_columns(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 4.5])) == 8
    with pytest.raises(ValueError, match="leave float64's range: divide x by"):
        check_columns(torch.tensor([-1e308]).double(), torch.tensor([1e308]).double())


def test_a_read_only_array_is_taken_as_it_is():
    x = np.arange(6.0).reshape(3, 2)
    x.setflags(write=False)
    assert check_array(x).data_ptr() == x.ctypes.data


@pytest.mark.parametrize(("weights", "message"), [
    ([1, 2], r"shape \(2,\): expected \(3,\), one weight a point"), ([1, -1, 1], "non-negative"),
    ([0, 0, 0], "not zero everywhere"), ([1, np.nan, 1], "finite")])
def test_unusable_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights, 3)


def test_gpus_with_few_float64_units_compute_in_float32(monkeypatch):
    assert pick_dtype(torch.device("cpu")) == torch.float64
    for capability, expected in [((8, 0), torch.float64), ((9, 0), torch.float64), ((8, 6), torch.float32),
                                 ((8, 9), torch.float32), ((12, 0), torch.float32), ((10, 3), torch.float32)]:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert pick_dtype(torch.device("cuda")) == expected


# Augmentation


def test_random_affine_keeps_counts_and_repeats_with_its_generator():
    x = load("digits").x[:50]
    move = random_affine((8, 8))
    moved, again = (move(x, torch.Generator().manual_seed(1)) for _ in range(2))
    assert moved.equal(again) and not moved.equal(x) and moved.shape == x.shape
    assert moved.equal(moved.round()) and moved.min() >= 0 and moved.max() <= 16


def test_random_affine_without_spread_changes_nothing():
    x = load("digits").x[:20]
    assert random_affine((8, 8), 0.0, 0.0, 0.0)(x).equal(x)


def test_a_slant_moves_each_row_by_its_distance_from_the_middle(monkeypatch):
    image = torch.zeros(1, 9, 9)
    image[0, [2, 4, 6], 4] = 16
    noise = torch.zeros(5, 1)
    noise[4] = 1.0
    monkeypatch.setattr(data.torch, "randn", lambda *size, **kw: noise)
    moved = random_affine((9, 9), 0.0, 0.0, 0.0, shear=0.5)(image.reshape(1, 81)).reshape(9, 9)
    assert (moved == 16).nonzero().tolist() == [[2, 5], [4, 4], [6, 3]]


def test_a_shift_moves_the_picture_by_that_share_of_half_its_width(monkeypatch):
    image = torch.zeros(1, 9, 9)
    image[0, 4, 4] = 16
    noise = torch.zeros(4, 1)
    noise[2] = 1.0
    monkeypatch.setattr(data.torch, "randn", lambda *size, **kw: noise)
    moved = random_affine((9, 9), 0.0, 0.0, shift=2 / 4.5)(image.reshape(1, 81)).reshape(9, 9)
    assert (moved > 0).nonzero().tolist() == [[4, 2]]  # sampling to the right moves the picture to the left

"""The comparison of priors on MNIST (tests/benchmarks/nll.py), on a few small images."""

import gzip

import numpy as np
import pytest
import torch

from gmvae_lib.prior import MixturePrior, VampPrior
from tests.benchmarks.nll import binarized, build, compare, read_images


def idx(images):
    return np.array([2051, *images.shape], ">i4").tobytes() + images.tobytes()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("t10k", 20)):
        grey = rng.choice(np.array([0, 128, 255], np.uint8), (n, 5, 4))
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(grey)))
    return tmp_path


def test_images_are_read_gzipped_or_not(folder, tmp_path):
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    (tmp_path / "plain").write_bytes(idx(images))
    assert (read_images(tmp_path / "plain") == images.reshape(1, 12)).all()
    assert read_images(folder / "t10k-images-idx3-ubyte.gz").shape == (20, 20)


@pytest.mark.parametrize("raw", [b"", b"PK", idx(np.zeros((2, 3, 3), np.uint8))[:-1]])
def test_other_files_are_refused(tmp_path, raw):
    (tmp_path / "file").write_bytes(raw)
    with pytest.raises(ValueError, match="not an idx file"):
        read_images(tmp_path / "file")


def test_a_folder_without_the_files_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="t10k"):
        binarized(tmp_path, "test")


def test_pixels_become_black_or_white_with_their_grey_value_as_probability(folder):
    grey = read_images(folder / "train-images-idx3-ubyte.gz")
    bits = binarized(folder, "train").numpy()
    assert set(np.unique(bits)) == {0, 1} and (bits == binarized(folder, "train").numpy()).all()
    assert (bits[grey == 0] == 0).all() and (bits[grey == 255] == 1).all()
    assert bits[grey == 128].mean() == pytest.approx(0.5, abs=0.1)


def test_all_priors_start_from_the_same_network(folder):
    x = binarized(folder, "train")
    models = {prior: build(prior, x, 2, (8,), 5) for prior in ("standard", "VampPrior", "mixture")}
    weights = [model.encoder.mlp.layers[0].weight for model in models.values()]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    assert isinstance(models["VampPrior"].prior, VampPrior) and isinstance(models["mixture"].prior, MixturePrior)


def test_the_comparison_measures_every_prior(folder):
    train, test = (binarized(folder, split) for split in ("train", "test"))
    lines = []
    found = compare(train, test, epochs=2, components=5, samples=200, batch_size=20, show=lines.append, latent_dim=2,
                    hidden=(8,))
    assert list(found) == ["standard", "VampPrior", "mixture"] and len(lines) == 3
    for elbo, bound in found.values():
        assert bound.shape == (20,) and bound.mean() < elbo.mean() + 0.05 and bound.isfinite().all()
    assert "better than standard by 0.00 ± 0.00" in lines[0]

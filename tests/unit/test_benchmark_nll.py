"""The comparison of priors on MNIST (tests/benchmarks/nll.py), on a few small images."""

import numpy as np
import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.prior import MixturePrior, VampPrior
from tests.benchmarks.nll import binarized, build, compare
from tests.unit.idx_files import idx


@pytest.fixture(autouse=True)
def mnist(tmp_path, monkeypatch):
    """A few images in place of MNIST's, of three grey values."""
    monkeypatch.setenv("GMVAE_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    for name, n in (("train", 60), ("t10k", 20)):
        grey = rng.choice(np.array([0, 128, 255], np.uint8), (n, 28, 28))
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(grey))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(n, np.uint8)))


def test_pixels_become_black_or_white_with_their_grey_value_as_probability():
    grey = load("mnist", "train").x.numpy()
    bits = binarized("train").numpy()
    assert set(np.unique(bits)) == {0, 1} and (bits == binarized("train").numpy()).all()
    assert (bits[grey == 0] == 0).all() and (bits[grey == 255] == 1).all()
    assert bits[grey == 128].mean() == pytest.approx(0.5, abs=0.01)


def test_all_priors_start_from_the_same_network():
    x = binarized("train")
    models = {prior: build(prior, x, 2, (8,), 5) for prior in ("standard", "VampPrior", "mixture")}
    weights = [model.encoder.mlp.layers[0].weight for model in models.values()]
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    assert isinstance(models["VampPrior"].prior, VampPrior) and isinstance(models["mixture"].prior, MixturePrior)


def test_the_comparison_measures_every_prior():
    train, test = (binarized(split) for split in ("train", "test"))
    lines = []
    found = compare(train, test, epochs=2, components=5, samples=50, batch_size=20, show=lines.append, latent_dim=2,
                    hidden=(8,))
    assert list(found) == ["standard", "VampPrior", "mixture"] and len(lines) == 3
    for elbo, bound in found.values():
        assert bound.shape == (20,) and bound.mean() < elbo.mean() + 0.05 and bound.isfinite().all()
    assert "better than standard by 0.00 ± 0.00" in lines[0]

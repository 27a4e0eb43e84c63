"""The shipped model: intact, what its chapter says it is, and made by a command that works."""

import pytest

from gmvae_lib import pretrained
from gmvae_lib.data import load
from gmvae_lib.evaluation import clustering_accuracy, mean_elbo
from gmvae_lib.pretrained.__main__ import build_digits


@pytest.fixture(scope="module")
def shipped():
    return pretrained.load_digits_gmvae()


def test_the_shipped_model_clusters_and_reconstructs_held_out_digits(shipped):
    model, partitions = shipped
    test = load("digits", "test")
    assert clustering_accuracy(test.y, model.predict(test.x, beta=0.3)) > 0.75
    low, high = mean_elbo(model, test.x, beta=0.1), mean_elbo(model, test.x, beta=10.0)
    assert low[0] < high[0] - 20
    assert low[1] > high[1] + 10
    assert partitions.shape == (pretrained.MAX_COMPONENTS, len(load("digits")))
    assert [int(row.unique().numel()) for row in partitions] == list(range(1, pretrained.MAX_COMPONENTS + 1))


def test_a_damaged_file_is_named_and_not_loaded(tmp_path, monkeypatch):
    for name in ("digits.safetensors", "checksums.json"):
        (tmp_path / name).write_bytes((pretrained.FOLDER / name).read_bytes())
    with open(tmp_path / "digits.safetensors", "r+b") as file:
        file.seek(5000)
        file.write(b"\x00\x01")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="damaged: restore it"):
        pretrained.load_digits_gmvae()


def test_the_recipe_runs(monkeypatch):
    monkeypatch.setattr("gmvae_lib.pretrained.__main__.MAX_COMPONENTS", 2)
    monkeypatch.setattr("gmvae_lib.pretrained.__main__.N_COMPONENTS", 2)
    monkeypatch.setattr("gmvae_lib.pretrained.N_COMPONENTS", 2)
    model, partitions = build_digits(epochs=1, n_init=1)
    assert partitions.shape == (2, 1437)
    assert model.prior.n_components == 2

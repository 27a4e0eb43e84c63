"""The shipped model: intact, what its chapter says it is, and made by a command that works."""

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch

from gmvae_lib import pretrained
from gmvae_lib.data import load, random_affine, views
from gmvae_lib.evaluation import clustering_accuracy, mean_elbo
from gmvae_lib.pretrained.__main__ import build_digits, refine


@pytest.fixture(scope="module")
def shipped():
    return pretrained.load_digits_gmvae()


def test_the_shipped_model_clusters_and_reconstructs_held_out_digits(shipped):
    model, partitions = shipped
    test = load("digits", "test")
    for beta in (0.01, 1.0, 100.0):
        assert clustering_accuracy(test.y, model.predict(test.x, beta=beta)) > 0.92
    low, high = mean_elbo(model, test.x, beta=0.1), mean_elbo(model, test.x, beta=10.0)
    assert low[0] < high[0] - 20
    assert low[1] > high[1] + 10
    assert partitions.shape == (pretrained.MAX_COMPONENTS, len(load("digits")))
    assert [int(row.unique().numel()) for row in partitions] == list(range(1, pretrained.MAX_COMPONENTS + 1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of what is shipped, that a test may damage."""
    shutil.copytree(pretrained.FOLDER, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "copy")
    return tmp_path / "copy"


SHIPPED = sorted(path.name for path in pretrained.FOLDER.glob("*.safetensors"))


def test_every_shipped_file_has_a_checksum():
    assert sorted(json.loads((pretrained.FOLDER / "checksums.json").read_text())) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_damaged_or_missing_file_is_named_and_not_loaded(folder, name):
    assert all(isinstance(value, torch.Tensor) for value in pretrained.read_shipped(name).values())
    content = bytearray((folder / name).read_bytes())
    content[5000] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged: restore it"):
        pretrained.read_shipped(name)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        pretrained.read_shipped(name)


def test_an_unknown_name_gets_the_known_ones():
    with pytest.raises(ValueError, match="there are clustering.safetensors, digits.safetensors"):
        pretrained.read_shipped("digit.safetensors")


def test_what_is_written_can_be_read_by_all_and_leaves_the_other_checksums(folder):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, requires_grad=True)}
    pretrained.write_shipped(tensors, "new.safetensors")
    read = pretrained.read_shipped("new.safetensors")
    assert read.keys() == tensors.keys() and all(torch.equal(read[key], tensors[key]) for key in tensors)
    assert (folder / "new.safetensors").stat().st_mode & 0o777 == 0o644
    pretrained.read_shipped("digits.safetensors")


def test_refining_puts_back_what_was_put_into_a_wrong_cluster(shipped):
    model, partitions = shipped
    data, generator = load("digits"), torch.Generator().manual_seed(0)
    grouped = views(random_affine(data.image_shape), 2)(data.x, generator)
    wrong = torch.rand(len(data), generator=generator) < 0.2
    mixed = torch.where(wrong, torch.randint(5, (len(data),), generator=generator), partitions[4])
    assert (mixed == partitions[4]).float().mean() < 0.9
    refined = refine(mixed, 5, model, grouped, 1e-2, steps=5)
    assert (refined == partitions[4]).float().mean() > 0.95


def test_the_recipe_runs(monkeypatch):
    for place in ("gmvae_lib.pretrained", "gmvae_lib.pretrained.__main__"):
        monkeypatch.setattr(f"{place}.N_COMPONENTS", 2)
    monkeypatch.setattr("gmvae_lib.pretrained.__main__.MAX_COMPONENTS", 3)
    short = replace(pretrained.RECIPE, hidden=(16, 16), autoencoder_epochs=2, starts=2, mixture_views=3, n_views=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # two epochs leave a mixture nothing to find
        model, partitions = build_digits(short, epochs=1)
    assert partitions.shape == (3, 1437) and model.prior.n_components == 2
    assert [int(row.max()) < k for k, row in enumerate(partitions, 1)] == [True] * 3

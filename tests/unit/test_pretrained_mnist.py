"""MNIST's rows: how one is made, on little data; as they are shipped; and the choice among them."""

import warnings
from dataclasses import replace

import pytest
from torch.nn import functional as F

from gmvae_lib.data import Dataset, load
from gmvae_lib.pretrained import mnist
from gmvae_lib.pretrained.mnist import RECIPES, SEEDS, chosen, load_mnist_results


def test_the_highest_measured_bound_is_chosen():
    rows = [{"seed": seed, "bound": bound} for seed, bound in enumerate((-3.0, None, -1.0, -2.0))]
    assert chosen(rows) is rows[2]
    assert chosen(rows[:2]) is rows[0]


def test_without_a_measured_bound_nothing_is_chosen():
    with pytest.raises(ValueError, match="None of the 1 rows has a measured bound"):
        chosen([{"seed": 0, "bound": None}])


def test_the_shipped_rows_are_five_seeds_of_each_recipe_with_scores_and_curves():
    results = load_mnist_results()
    assert list(results) == list(RECIPES)
    for name, rows in results.items():
        assert [row["seed"] for row in rows] == list(SEEDS)
        assert all(len(row["curve"]) == RECIPES[name].epochs for row in rows)
        assert all(0 < score <= 1 for row in rows for scores in row["scores"].values() for score in scores)
        assert chosen(rows)["bound"] < 0


def test_a_run_gives_a_whole_row_and_looks_at_no_label(monkeypatch):
    digits = load("digits")
    x = F.interpolate(digits.x[:120].reshape(-1, 1, 8, 8), (28, 28)).flatten(1) * (255 / 16)
    train = Dataset(x.round(), digits.y[:120], (28, 28), "digits")
    shuffled = replace(train, y=train.y.flip(0))
    small = replace(mnist.SHORT, hidden=(16,), latent_dim=3, precision="float32", autoencoder_epochs=1, starts=2,
                    mixture_views=2, epochs=1, warm_up_epochs=1)
    monkeypatch.setattr(mnist, "baselines", lambda *_: {})
    monkeypatch.setattr(mnist, "NLL_IMAGES", 20)
    monkeypatch.setattr(mnist, "NLL_DRAWS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # with one epoch, some of ten components own no image
        (row, model), (other, _) = (mnist.run(0, data, train, small, "cpu", False) for data in (train, shuffled))
    assert set(row) == set(load_mnist_results()["short"][0])
    assert all(row[key] == other[key] for key in ("loss", "bound", "curve", "NLL"))
    assert len(row["curve"]) == 1 and len(row["starts"]) == 2 and model.prior.n_components == 10

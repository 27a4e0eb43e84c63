"""MNIST's rows: how one is made, on little data; as they are shipped; and the choice among them."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn import Linear
from torch.nn import functional as F

from gmvae_lib.data import Dataset, load
from gmvae_lib.pretrained import mnist
from gmvae_lib.pretrained.mnist import RECIPES, SEEDS, chosen, load_mnist_results


def test_the_views_that_agree_most_choose_or_what_one_asks_for():
    rows = [{"seed": seed, "bound": bound, "agreement": nats}
            for seed, (bound, nats) in enumerate(((-3.0, 15.1), (-1.0, 15.0), (-2.0, 15.2)))]
    assert chosen(rows) is rows[2] and chosen(rows, "bound") is rows[1]


def test_the_shipped_rows_are_the_seeds_of_each_recipe_with_scores_and_curves():
    results = load_mnist_results()
    assert list(results) == list(RECIPES)
    for name, rows in results.items():
        assert [row["seed"] for row in rows] == list(SEEDS[name])
        assert all(len(row["curve"]) == RECIPES[name].epochs for row in rows)
        assert all(0 < score <= 1 for row in rows for scores in row["scores"].values() for score in scores)
        assert all(row["bound"] < 0 < row["agreement"] for row in rows)


def test_added_rows_take_their_seed_s_place():
    results = {"short": [{"seed": 0, "new": False}, {"seed": 2, "new": False}]}
    for seed in (2, 1):
        results = mnist.added(results, "short", {"seed": seed, "new": True})
    results = mnist.added(results, "long", {"seed": 4, "new": True})
    assert [(row["seed"], row["new"]) for row in results["short"]] == [(0, False), (1, True), (2, True)]
    assert [row["seed"] for row in results["long"]] == [4]


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command, on rows that cost nothing: returns a function of its arguments, which gives the rows it left and
    the seed whose model it shipped."""
    shipped = []
    start = {name: [{"seed": seed, "agreement": 15.0 + seed / 10, "bound": -100.0, "old": True} for seed in (0, 1)]
             for name in RECIPES}
    (tmp_path / "mnist.json").write_text(json.dumps(start))

    def run(seed, *_):
        model = Linear(1, 1)
        model.seed = seed
        monkeypatch.setattr(model, "state_dict", lambda: {"seed": torch.tensor(seed)})
        return {"seed": seed, "agreement": 15.0 + (seed % 4) / 10, "bound": -99.0, "scores": {}, "seconds": {}}, model

    monkeypatch.setattr(mnist, "FOLDER", tmp_path)
    monkeypatch.setattr(mnist, "SEEDS", {"short": range(2), "long": range(3)})
    monkeypatch.setattr(mnist, "load", lambda *_: None)
    monkeypatch.setattr(mnist, "run", run)
    monkeypatch.setattr(mnist, "write_shipped", lambda state, name: shipped.append(int(state["seed"])))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["mnist", *arguments])
        mnist.main()
        return json.loads((tmp_path / "mnist.json").read_text()), shipped

    return call


def test_the_whole_command_starts_afresh_and_ships_the_long_recipe_s_best(command):
    results, shipped = command()
    assert {name: [row["seed"] for row in rows] for name, rows in results.items()} == {"short": [0, 1],
                                                                                       "long": [0, 1, 2]}
    assert not any("old" in row for rows in results.values() for row in rows)
    assert shipped == [0, 1, 2]  # each was the best so far


def test_some_seeds_are_run_beside_the_others_rows(command):
    results, shipped = command("--recipe", "long", "--seeds", "3", "4")
    assert [(row["seed"], "old" in row) for row in results["long"]] == [(0, True), (1, True), (3, False), (4, False)]
    assert all("old" in row for row in results["short"]) and shipped == [3]


def test_the_shipped_seed_is_not_run_by_itself(command, capsys):
    with pytest.raises(SystemExit):
        command("--seeds", "1")
    assert "leave --seeds out" in capsys.readouterr().err


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
    assert all(row[key] == other[key] for key in ("loss", "bound", "agreement", "curve", "NLL"))
    assert len(row["curve"]) == 1 and len(row["starts"]) == 2 and model.prior.n_components == 10

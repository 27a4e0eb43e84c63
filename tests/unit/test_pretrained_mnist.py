"""MNIST's rows as shipped, and the choice among them."""

import pytest

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

"""The shipped comparison of chapter 6: what its text says of it, and made by a command that works."""

import pytest

from gmvae_lib.pretrained import rate_distortion as shipped


def objectives(kind, beta):
    """On held-out digits, one for each seed."""
    rows = [row for row in shipped.load_comparison() if row[0] == kind and row[2] == beta]
    assert sorted(row[1] for row in rows) == list(shipped.SEEDS)
    return [row[5] + beta * row[6] for row in rows]


@pytest.mark.parametrize("beta", shipped.BETAS)
def test_one_network_is_within_three_percent_of_those_trained_for_one_beta(beta):
    gated, single = objectives("gated", beta), objectives("single", beta)
    assert sum(gated) / sum(single) < 1.03


def test_the_range_widens_from_one():
    assert shipped.widening(0.0)[:2] == (0.01, 1.0)
    assert shipped.widening(1.0)[:2] == shipped.widening(0.5)[:2] == (0.01, 80.0)


def test_the_recipe_runs(monkeypatch):
    monkeypatch.setattr(shipped, "SEEDS", (0,))
    monkeypatch.setattr(shipped, "BETAS", (1.0,))
    monkeypatch.setattr(shipped.train_gated, "__defaults__", (0, 1))
    monkeypatch.setattr(shipped.train_single, "__defaults__", (0, 1))
    single, gated = shipped.comparison()
    assert single[:3] == ["single", 0, 1.0] and gated[:3] == ["gated", 0, 1.0]
    assert len(single) == len(gated) == 8

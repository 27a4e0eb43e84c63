"""The shipped clusters of chapter 9 are what their file says they are."""

import pytest
import torch

from gmvae_lib.clustering import agreement
from gmvae_lib.data import load
from gmvae_lib.evaluation import ari, clustering_accuracy, mean_elbo, nmi
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.pretrained.clustering import codes, load_clustering


@pytest.fixture(scope="module")
def shipped():
    return load_clustering()


def test_the_models_are_those_of_the_run_with_the_lowest_loss(shipped):
    rows, _, gmvae = shipped
    chosen, test = min(rows, key=lambda row: row["loss"]), load("digits", "test")
    found = gmvae.predict(test.x)
    scores = [score(test.y, found) for score in (clustering_accuracy, nmi, ari)]
    assert scores == pytest.approx(chosen["scores"]["GMVAE, by agreement"], abs=0.02)  # stored in half precision
    assert -sum(mean_elbo(gmvae, test.x)) == pytest.approx(chosen["held-out bound"], abs=0.2)


def test_the_autoencoder_s_starts_are_the_recorded_ones(shipped):
    rows, autoencoder, _ = shipped
    starts = min(rows, key=lambda row: row["loss"])["starts"]["groups"]
    _, group = codes(autoencoder, load("digits").x)
    run = GaussianMixture(10, max_iter=300, reg_covar=1e-2, seed=0, device="cpu").fit(group)
    assert run.lower_bound_ == pytest.approx(starts[0][0], abs=0.5)
    assert agreement(run, group) == pytest.approx(starts[0][2], abs=0.3)


def test_every_row_has_forty_starts_and_scores_between_zero_and_one(shipped):
    rows = shipped[0]
    assert [row["seed"] for row in rows] == list(range(5))
    for row in rows:
        assert {kind: len(found) for kind, found in row["starts"].items()} == dict.fromkeys(
            ("single", "apart", "groups"), 40)
        values = torch.tensor([*row["scores"].values()])
        assert values.shape == (10, 3) and (values > 0.4).all() and (values < 1).all()


def test_agreement_is_what_a_group_adds_to_its_views():
    torch.manual_seed(0)
    group = torch.randn(50, 3, 2, dtype=torch.float64) + 4 * torch.randint(2, (50, 1, 1))
    mixture = GaussianMixture(2, device="cpu").fit(group)
    resp = mixture.predict_proba(group.flatten(0, 1)).reshape(50, 3, 2)
    expected = (mixture.weights_ * (resp / mixture.weights_).prod(1)).sum(1).log().mean()
    assert agreement(mixture, group) == pytest.approx(float(expected))

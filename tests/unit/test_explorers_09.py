"""The widget of chapter 9: K and beta, with what the clusters are worth."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from gmvae_lib.data import load
from gmvae_lib.evaluation import clustering_accuracy, mean_elbo
from gmvae_lib.explorers import ClusterExplorer
from gmvae_lib.pretrained import load_digits_gmvae


@pytest.fixture(scope="module")
def panel():
    return ClusterExplorer(*load_digits_gmvae(), load("digits"), load("digits", "test"))


def labels(panel):
    with torch.no_grad():
        prior = panel.prior(panel.k.value, panel.beta.value)
        return prior.responsibilities(*panel.model.encode(panel.test_x, panel.beta.value)).argmax(1)


@pytest.mark.parametrize(("control", "values"), [("k", (3, 12)), ("beta", (0.1, 10.0))])
def test_each_slider_changes_picture_words_and_scores(panel, control, values):
    found = []
    for value in values:
        getattr(panel, control).value = value
        assert panel.error is None
        found.append((panel.image.value, panel.status.value, tuple(panel.scores.values())))
    assert all(a != b for a, b in zip(*found, strict=True))


def test_every_setting_works(panel):
    for n_components in (1, 2, 20):
        for beta in (0.01, 1.0, 100.0):
            panel.set_quietly(k=n_components, beta=beta)
            assert panel.error is None


def test_the_table_and_the_scores_are_those_of_the_clusters(panel):
    for k in (7, 10, 14):
        panel.set_quietly(k=k, beta=1.0)
        y, c = panel.test.y.numpy(), labels(panel).numpy()
        shares = np.asarray(panel._table.get_array())
        assert shares.shape == (10, k) and np.allclose(shares.sum(1), 1)
        counts = metrics.cluster.contingency_matrix(y, c)
        shown = shares * np.bincount(y)[:, None]
        assert np.allclose(sorted(shown.T[shown.any(0)].tolist()), sorted(counts.T.tolist()), atol=1e-4)
        expected = {"accuracy": clustering_accuracy(y, c), "NMI": metrics.normalized_mutual_info_score(y, c),
                    "ARI": metrics.adjusted_rand_score(y, c), "purity": counts.max(0).sum() / len(y),
                    "homogeneity": metrics.homogeneity_score(y, c)}
        assert panel.scores == pytest.approx(expected)
        assert [bar.get_width() for bar in panel._bars] == pytest.approx(list(expected.values()))


def test_the_bound_of_each_k_is_the_model_s(panel):
    for k in (2, 10):
        prior, panel.model.prior = panel.model.prior, panel.prior(k, 1.0)
        try:
            assert panel.bounds[k] == pytest.approx(-sum(mean_elbo(panel.model, panel.test_x)), abs=0.3)
        finally:
            panel.model.prior = prior
    panel.set_quietly(k=6, beta=0.2)
    assert panel._here.get_xydata().tolist() == [[6, panel.bounds[6]]]
    assert f"{panel.bounds[6]:.1f} nats for this K" in panel.status.value


def test_the_words_warn_of_purity(panel):
    panel.set_quietly(k=20, beta=1.0)
    assert "are no accuracies" in panel.status.value
    assert panel._repr_mimebundle_()[0]["text/plain"].startswith("A widget: clusters of handwritten digits.")

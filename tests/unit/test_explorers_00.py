"""The widget of chapters 0 and 9: what its sliders do to the picture, to the words, and to the scores."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from gmvae_lib.data import load
from gmvae_lib.evaluation import clustering_accuracy, mean_elbo
from gmvae_lib.explorers import GMVAEExplorer
from gmvae_lib.pretrained import load_digits_gmvae


@pytest.fixture(scope="module")
def panel():
    return GMVAEExplorer(*load_digits_gmvae(), load("digits"), load("digits", "test"))


def scores(panel):
    return panel.clusters(panel.k.value, panel.beta.value).scores


@pytest.mark.parametrize(("control", "values"), [("k", (3, 12)), ("beta", (0.1, 10.0))])
def test_each_slider_changes_picture_words_and_scores(panel, control, values):
    found = []
    for value in values:
        getattr(panel, control).value = value
        assert panel.error is None
        found.append((panel.image.value, panel.status.value, tuple(scores(panel).values())))
    assert all(a != b for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("n_components", [1, 2, 10, 20])
@pytest.mark.parametrize("beta", [0.01, 1.0, 100.0])
def test_every_setting_works_and_no_component_is_lost(panel, n_components, beta):
    panel.set_quietly(k=n_components, beta=beta)
    assert panel.error is None
    assert f"K = {n_components}, β = {beta:.3g}." in panel.status.value
    prior = panel.clusters(n_components, beta).prior
    assert (prior.weights > 0.2 / n_components).all()
    assert len(panel._names.texts) == len(panel._heads.texts) == len(panel._columns.texts) == n_components
    assert len(panel._outlines.get_segments()) == n_components


def test_ten_components_are_the_digits(panel):
    """What chapters 0 and 9 say of this model; chapter 9's recipe alone has 0.95."""
    for beta in (0.01, 0.1, 1.0, 10.0):
        assert panel.clusters(10, beta).scores["accuracy"] > 0.92
    accuracy = [panel.clusters(k, 1.0).scores["accuracy"] for k in range(1, 21)]
    assert 9 <= 1 + int(np.argmax(accuracy)) <= 11
    assert panel.clusters(20, 1.0).scores["purity"] > panel.clusters(5, 1.0).scores["purity"] + 0.2


def test_a_larger_beta_buys_a_shorter_code_and_a_worse_drawing(panel):
    panel.set_quietly(k=10, beta=0.3)
    panel.beta.value = 3.0
    assert "β rose: the code became" in panel.status.value
    assert "nats shorter, and the drawing" in panel.status.value
    assert "nats worse." in panel.status.value


def test_k_changes_the_prior_alone(panel):
    panel.set_quietly(k=10, beta=1.0)
    strip, places = np.asarray(panel._strip.get_array()), panel._points.get_offsets().copy()
    panel.k.value = 4
    assert "because K changes only the prior" in panel.status.value
    assert np.array_equal(strip, np.asarray(panel._strip.get_array()), equal_nan=True)
    assert np.array_equal(places, panel._points.get_offsets())


def test_the_prior_beats_the_partition_it_starts_from(panel):
    """Each step of EM lowers the rate on the training images."""
    mean, log_var = panel.codes(0.3).train
    prior = panel.prior(10, 0.3)
    with torch.no_grad():
        rate = prior.rate(mean, log_var).mean()
        prior.update(mean, log_var)
        assert prior.rate(mean, log_var).mean() <= rate + 1e-4


def test_what_is_kept_from_before_is_what_would_be_computed_again(panel):
    panel.set_quietly(k=7, beta=0.5)
    first, words = panel.image.value, panel.status.value
    panel.set_quietly(k=12, beta=5.0)
    panel.set_quietly(k=7, beta=0.5)
    assert panel.image.value == first and words.split("K rose")[0].split("K fell")[0] in panel.status.value
    fresh = GMVAEExplorer(panel.model, panel.partitions, load("digits"), panel.test, n_components=7, beta=0.5)
    assert fresh.image.value == first


def test_the_table_and_the_scores_are_those_of_the_clusters(panel):
    for k in (7, 10, 14):
        panel.set_quietly(k=k, beta=1.0)
        with torch.no_grad():
            found = panel.prior(k, 1.0).responsibilities(*panel.model.encode(panel.test_x, 1.0)).argmax(1)
        y, c = panel.test.y.numpy(), found.numpy()
        shares = np.asarray(panel._table.get_array())
        assert shares.shape == (10, k) and np.allclose(shares.sum(1), 1)
        counts = np.array([[np.sum((y == j) & (c == i)) for i in range(k)] for j in range(10)])
        order = [int(text) - 1 for text in panel._columns.texts]
        assert np.allclose(shares * np.bincount(y)[:, None], counts[:, order], atol=1e-4)
        expected = {"accuracy": clustering_accuracy(y, c), "NMI": metrics.normalized_mutual_info_score(y, c),
                    "ARI": metrics.adjusted_rand_score(y, c), "purity": counts.max(0).sum() / len(y),
                    "homogeneity": metrics.homogeneity_score(y, c)}
        assert scores(panel) == pytest.approx(expected)
        lengths = [segment[1, 0] for segment in panel._bars.get_segments()]
        assert lengths == pytest.approx(list(expected.values()))
        assert panel._values.texts == [f"{value:.2f}" for value in expected.values()]


def test_the_bound_of_each_k_is_the_model_s(panel):
    for k in (2, 10):
        prior, panel.model.prior = panel.model.prior, panel.prior(k, 1.0)
        try:
            assert panel.bounds[k] == pytest.approx(-sum(mean_elbo(panel.model, panel.test_x)), abs=0.3)
        finally:
            panel.model.prior = prior
    panel.set_quietly(k=6, beta=0.2)
    assert panel._here.get_xydata().tolist() == [[6, panel.bounds[6]]]
    assert f"−{-panel.bounds[6]:.1f} nats for this K" in panel.status.value


def test_the_words_warn_of_purity_and_stand_in_where_no_picture_can(panel):
    panel.set_quietly(k=20, beta=1.0)
    assert "is no accuracy" in panel.status.value
    assert panel._repr_mimebundle_()[0]["text/plain"].startswith("A widget: a mixture-prior VAE of handwritten digits.")

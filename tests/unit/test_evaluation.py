"""Scores against brute force over permutations, scikit-learn, and log-likelihoods that have a formula."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score

from gmvae_lib import evaluation
from gmvae_lib.data import load
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE
from tests.unit.test_vae import PRIORS, linear_gaussian, log_evidence, set_posterior

labels = st.integers(5, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))


@given(labels)
def test_accuracy_is_the_best_over_all_one_to_one_assignments(pair):
    y, clusters = map(np.array, pair)
    best = max(np.mean(np.array(order)[clusters] == y) for order in itertools.permutations(range(5)))
    assert evaluation.clustering_accuracy(y, clusters) == pytest.approx(best)


def test_clusters_in_excess_are_errors_and_majority_votes_do_not_count():
    y = np.repeat([0, 1], 10)
    assert evaluation.clustering_accuracy(y, np.arange(20)) == pytest.approx(0.1)  # a vote would give 1
    assert evaluation.match_clusters([0, 0, 1], [7, 7, 9]) == {7: 0, 9: 1}
    assert len(evaluation.match_clusters(y, np.arange(20))) == 2


@given(labels)
def test_confusion_counts_are_scikit_learns_with_columns_in_matched_order(pair):
    y, clusters = map(np.array, pair)
    found = evaluation.confusion(y, clusters)
    assert found.shape == (len(np.unique(y)), len(np.unique(clusters))) and found.sum() == len(y)
    theirs = confusion_matrix(y, clusters, labels=range(5))[np.unique(y)][:, np.unique(clusters)]
    assert sorted(map(tuple, found.T)) == sorted(map(tuple, theirs.T))
    matched = evaluation.match_clusters(y, clusters)
    if len(matched) == len(np.unique(y)):
        assert np.trace(found) == round(evaluation.clustering_accuracy(y, clusters) * len(y))


@given(labels, st.permutations(range(5)))
def test_renaming_clusters_changes_no_score(pair, names):
    y, clusters = map(np.array, pair)
    renamed = np.array(names)[clusters]
    for score in (evaluation.clustering_accuracy, evaluation.nmi, evaluation.ari):
        assert score(y, renamed) == pytest.approx(score(y, clusters), abs=1e-9)
    assert evaluation.nmi(y, clusters) == pytest.approx(normalized_mutual_info_score(y, clusters))
    assert evaluation.ari(y, clusters) == pytest.approx(adjusted_rand_score(y, clusters))


def test_scores_take_tensors_of_any_device_and_lists(device):
    y, clusters = torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 1], device=device)
    assert evaluation.clustering_accuracy(y, clusters) == 0.75
    assert evaluation.clustering_accuracy([0, 0, 1, 1], [1, 1, 0, 1]) == 0.75
    assert evaluation.confusion(y, clusters).tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize("score", [evaluation.clustering_accuracy, evaluation.confusion, evaluation.nmi,
                                   evaluation.ari, evaluation.match_clusters])
@pytest.mark.parametrize("clusters", [np.zeros(9, int), np.zeros((10, 1), int), 3])
def test_labels_of_another_length_are_refused(score, clusters):
    with pytest.raises(ValueError, match=r"labels have shape \(10,\) and clusters .*: expected two \(N,\) arrays"):
        score(np.zeros(10, int), clusters)


def test_no_labels_at_all_are_refused():
    with pytest.raises(ValueError, match="expected two"):
        evaluation.clustering_accuracy([], [])


# Likelihoods


@pytest.mark.parametrize("kind", PRIORS)
def test_the_importance_weighted_bound_rises_to_the_log_evidence(kind):
    model, x = linear_gaussian(prior=PRIORS[kind]()), torch.randn(300, 5)
    with torch.no_grad():
        truth = log_evidence(model, x).mean().item()
    bounds = [evaluation.log_likelihood(model, x, n).mean().item() for n in (1, 10, 100, 3000)]
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < truth + 0.01
    assert truth - bounds[3] < 0.05 * (truth - bounds[0])


def test_the_bound_is_exact_with_one_sample_of_the_exact_posterior():
    model, x = linear_gaussian(), torch.randn(50, 5)
    set_posterior(model)
    with torch.no_grad():
        assert torch.allclose(evaluation.log_likelihood(model, x, 1), log_evidence(model, x), atol=1e-4)


def test_draws_may_come_from_a_wider_q():
    model, x = linear_gaussian(), torch.randn(50, 5)
    set_posterior(model)
    with torch.no_grad():
        truth = log_evidence(model, x)
        model.encoder.mlp.layers[-1].bias[model.encoder.latent_dim:] -= 2 * math.log(3)
        assert torch.allclose(evaluation.log_likelihood(model, x, 1, widen=3.0), truth, atol=1e-4)
        assert not torch.allclose(evaluation.log_likelihood(model, x, 1), truth, atol=0.1)


def test_the_bound_with_one_sample_is_the_elbo_in_the_mean():
    model, x = linear_gaussian(), torch.randn(20, 5)
    one = np.mean([evaluation.log_likelihood(model, x, 1, seed=s).mean().item() for s in range(600)])
    distortion, rate = evaluation.mean_elbo(model, x, n_samples=600)
    assert one == pytest.approx(-(distortion + rate), abs=0.3)


def test_chunks_of_samples_change_nothing():
    model, x = linear_gaussian(), torch.randn(32, 5)
    whole, parts = (evaluation.log_likelihood(model, x, 30, chunk=chunk) for chunk in (10_000, 100))
    assert torch.allclose(whole, parts, atol=1e-5)
    assert not evaluation.log_likelihood(model, x, 30, seed=1).equal(whole)


def test_mean_elbo_repeats_and_follows_its_arguments():
    model, x = VAE.build(64, 3, (16,), prior=MixturePrior(4, 3)), load("digits").x[:50]
    assert evaluation.mean_elbo(model, x) == evaluation.mean_elbo(model, x)
    collapsed, exact = (evaluation.mean_elbo(model, x, 200, method=m)[1] for m in ("collapsed", "exact"))
    assert exact <= collapsed + 0.02


def test_active_units_are_those_whose_mean_moves_with_the_data():
    model, x = linear_gaussian(latent=3), torch.randn(500, 5)
    with torch.no_grad():
        model.encoder.mlp.layers[0].weight[1] = 0
    assert evaluation.active_units(model, x).tolist() == [True, False, True]
    assert evaluation.active_units(model, x, threshold=1e9).sum() == 0


def test_a_gated_model_is_measured_at_a_beta():
    model, x = VAE.build(64, 3, (16,), gated=True), load("digits").x[:20]
    assert evaluation.log_likelihood(model, x, 5, beta=1.0).isfinite().all()
    assert evaluation.active_units(model, x, beta=1.0).shape == (3,)
    assert evaluation.mean_elbo(model, x, 2, beta=0.5) != evaluation.mean_elbo(model, x, 2, beta=5.0)


def test_the_curve_of_a_gated_network_is_its_points():
    torch.manual_seed(0)
    model, x = VAE.build(64, 3, (8,), gated=True), load("digits").x[:50]
    curve = evaluation.rate_distortion(model, x, [0.1, 10.0], n_samples=3)
    for i, beta in enumerate((0.1, 10.0)):
        distortion, rate = evaluation.mean_elbo(model, x, 3, beta)
        assert (float(curve.distortion[i]), float(curve.rate[i])) == pytest.approx((distortion, rate))
        assert float(curve.objective[i]) == pytest.approx(distortion + beta * rate)
        assert curve.active[i] == evaluation.active_units(model, x, beta).sum()
    with pytest.raises(ValueError, match="one point only"):
        evaluation.rate_distortion(VAE.build(64, 3, (8,)), x, [1.0])


# The rate taken apart


def test_the_aggregate_posterior_is_a_mixture_of_the_encoder_s_gaussians():
    model, x, z = VAE.build(64, 3, (8,)), load("digits").x[:40], torch.randn(25, 3)
    with torch.no_grad():
        mean, log_var = model.encode(x)
    parts = torch.distributions.Independent(torch.distributions.Normal(mean, (0.5 * log_var).exp()), 1)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(40)), parts)
    found = evaluation.aggregate_log_prob(model, x, z)
    assert torch.allclose(found, mixture.log_prob(z), atol=1e-4)
    assert torch.allclose(found, evaluation.aggregate_log_prob(model, x, z, chunk=1), atol=1e-5)


@pytest.mark.parametrize("kind", PRIORS)
def test_surgery_s_parts_add_up_to_the_rate(kind):
    torch.manual_seed(0)
    model, x = VAE.build(64, 2, (8,), prior=PRIORS[kind]()), load("digits").x[:60]
    parts = evaluation.elbo_surgery(model, x, n_samples=100)
    _, rate = evaluation.mean_elbo(model, x, 400, method="exact")
    error = math.hypot(parts.information_error, parts.marginal_kl_error)
    assert abs(parts.information + parts.marginal_kl - rate) < 4 * error < 0.1
    assert 0 <= parts.information <= math.log(60)


def test_surgery_finds_nothing_in_silence_and_everything_in_isolation():
    model, x = linear_gaussian(), torch.randn(50, 5)
    layer = model.encoder.mlp.layers[0]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    silent = evaluation.elbo_surgery(model, x, 4)
    assert silent.information == pytest.approx(0, abs=1e-5) and silent.marginal_kl == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        layer.weight[:2] = 100 * torch.randn(2, 5)
        layer.bias[2:] = -6.0
    alone = evaluation.elbo_surgery(model, x, 4)
    assert alone.information == pytest.approx(math.log(50), abs=0.01)

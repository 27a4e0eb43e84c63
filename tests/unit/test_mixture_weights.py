"""Points with weights, in `fit` and `partial_fit`, and the start that the last fit left."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from gmvae_lib.data import load
from gmvae_lib.mixture import COVARIANCE_TYPES as KINDS
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.points import Points
from gmvae_lib.seeding import seed_means

X = load("cigars", n_samples=400).x.double()
COUNTS = torch.randint(0, 4, (400,), generator=torch.Generator().manual_seed(0))


def settings(kind, x=X):
    spread = {"full": torch.eye(2).repeat(3, 1, 1), "diag": torch.ones(3, 2), "spherical": torch.ones(3),
              "tied": torch.eye(2)}[kind]
    return {"n_components": 3, "covariance_type": kind, "tol": 0, "max_iter": 12, "weights_init": torch.ones(3) / 3,
            "means_init": x[:3], "precisions_init": spread}


def assert_same(a, b, tolerance=1e-9):
    for name in ("weights_", "means_", "covariances_", "log_likelihood_"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("offset", [0, 1e7])
def test_a_weight_is_a_number_of_copies(kind, dtype, offset):
    """Far from the origin of tight components sums go by whitening, near it by the expanded square."""
    x = X + offset * (torch.arange(400) % 2)[:, None]
    repeated = x.repeat_interleave(COUNTS, 0)
    given = settings(kind, x)
    weighted = GaussianMixture(dtype=dtype, **given).fit(x, sample_weight=COUNTS)
    assert_same(weighted, GaussianMixture(dtype=dtype, **given).fit(repeated), 1e-9 if dtype is None else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_proportions_of_weights_count(kind):
    given = settings(kind)
    ones, thirds = (GaussianMixture(**given).fit(X, sample_weight=np.full(400, w)) for w in (1.0, 1 / 3))
    assert_same(ones, GaussianMixture(**given).fit(X))
    assert_same(ones, thirds)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_points_without_weight_are_no_seeds(init):
    weights = (X[:, 0] > X[:, 0].median()).double()
    points = Points(X, weights, "cpu")
    for seed in range(20):
        means = points.scale * seed_means(points, 3, init, torch.Generator().manual_seed(seed)) + points.center
        assert (means[:, 0] > X[:, 0].median()).all() and len(means.unique(dim=0)) == 3


def test_heavier_points_are_seeds_more_often():
    weights = torch.ones(400)
    weights[7] = 400.0
    points = Points(X, weights, "cpu")
    drawn = [points.scale * seed_means(points, 1, "k-means++", torch.Generator().manual_seed(seed)) + points.center
             for seed in range(200)]
    share = sum(bool(torch.allclose(mean[0], X[7])) for mean in drawn) / 200
    assert share == pytest.approx(400 / 799, abs=0.12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_start_goes_on_where_the_last_fit_stopped(kind):
    given = {**settings(kind), "max_iter": 5}
    whole = GaussianMixture(**{**given, "max_iter": 10}).fit(X)
    parts = GaussianMixture(warm_start=True, **given).fit(X).fit(X)
    assert_same_parameters = [(whole.means_, parts.means_), (whole.covariances_, parts.covariances_)]
    assert all(torch.allclose(a, b) for a, b in assert_same_parameters)
    assert parts.n_iter_ == 5 and parts.lower_bound_ == pytest.approx(whole.lower_bound_)


def test_a_warm_start_of_another_shape_is_refused():
    gmm = GaussianMixture(3, warm_start=True).fit(X)
    with pytest.raises(ValueError, match=r"fitted means have shape \(3, 2\).*asks for \(4, 2\): set warm_start=False"):
        gmm.set_params(n_components=4).fit(X)
    assert gmm.set_params(warm_start=False).fit(X).means_.shape == (4, 2)


def test_random_state_is_another_name_for_the_seed():
    runs = [GaussianMixture(3, max_iter=1, tol=0, random_state=state).fit(X).means_
            for state in (1, np.random.RandomState(1), 2)]
    assert runs[0].equal(runs[1]) and not runs[0].equal(runs[2])
    assert clone(GaussianMixture(random_state=3)).random_state == 3


# Given parameters


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixture_with_given_parameters_needs_no_data(kind):
    fitted = GaussianMixture(3, kind).fit(X)
    given = GaussianMixture(3, kind).set_parameters(fitted.weights_, fitted.means_, fitted.covariances_)
    assert given.score_samples(X).equal(fitted.score_samples(X)) and given.bic(X) == fitted.bic(X)
    assert given.sample(5)[0].equal(fitted.sample(5)[0])
    assert torch.allclose(given.precisions_, fitted.precisions_)


@pytest.mark.parametrize(("weights", "means", "covariances", "message"), [
    ([0.5, 0.6], [[0.0], [1.0]], [[1.0], [1.0]], "weights must be non-negative and sum to one"),
    ([0.5, 0.5], [[0.0]], [[1.0], [1.0]], r"means has shape \(1, 1\): expected finite values of shape \(2, 1\)"),
    ([0.5, 0.5], [[0.0], [1.0]], [1.0, 1.0], r"covariances has shape \(2,\)"),
    ([0.5, 0.5], [[0.0], [1.0]], [[1.0], [-1.0]], r"component \[1\] is not positive: check covariances")])
def test_parameters_that_define_no_density_are_refused(weights, means, covariances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, "diag").set_parameters(weights, means, covariances)


@pytest.mark.parametrize("kind", KINDS)
def test_precisions_are_inverse_covariances(kind):
    gmm = GaussianMixture(3, kind).fit(X)
    if kind in ("full", "tied"):
        assert torch.allclose(gmm.precisions_ @ gmm.covariances_, torch.eye(2).double(), atol=1e-9)
    else:
        assert torch.allclose(gmm.precisions_ * gmm.covariances_, torch.ones(1).double())

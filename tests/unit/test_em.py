"""One EM step at a time: against a plain loop, by its laws, and by both routes of the arithmetic."""

import itertools
import warnings

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gmvae_lib import em
from gmvae_lib import points as source
from gmvae_lib.points import SMALL, Points
from gmvae_lib.seeding import partition_statistics, seed_means

KINDS = ("full", "diag", "spherical", "tied")


def points(n=200, dim=3, k=3, seed=0):
    rng = np.random.default_rng(seed)
    means = 3 * rng.normal(size=(k, dim))
    return torch.tensor(means[rng.integers(k, size=n)] + rng.normal(size=(n, dim)) @ (np.eye(dim) + 0.3))


def start(x, kind, k=3, seed=0):
    """Random weights and means, and covariances of the right shape."""
    rng = np.random.default_rng(seed)
    dim = x.shape[1]
    a = rng.normal(size=(k, dim, 3 * dim)) / np.sqrt(3 * dim)
    full = 2 * a @ a.transpose(0, 2, 1)
    covariances = {"full": full, "diag": full.diagonal(axis1=1, axis2=2).copy(), "spherical": full[:, 0, 0].copy(),
                   "tied": full[0]}[kind]
    means = x[torch.tensor(rng.permutation(len(x))[:k])]
    return em.Parameters(torch.tensor(rng.dirichlet(np.ones(k))), means.clone(), torch.tensor(covariances))


def matrices(parameters, kind):
    """The covariances as (K, D, D)."""
    weights, means, covariances = parameters
    k, dim = means.shape
    if kind in ("full", "tied"):
        return covariances.expand(k, dim, dim)
    return torch.diag_embed(covariances.reshape(k, -1).expand(k, dim))


def distribution(parameters, kind):
    return MixtureSameFamily(Categorical(parameters.weights), MultivariateNormal(parameters.means,
                                                                                matrices(parameters, kind)))


def plain_step(x, parameters, kind, reg_covar):
    """EM as in the textbook, point by point, with torch.distributions' densities."""
    mixture = distribution(parameters, kind)
    joint = parameters.weights.log() + mixture.component_distribution.log_prob(x.unsqueeze(1))
    resp, counts = joint.softmax(1), joint.softmax(1).sum(0)
    means = resp.T @ x / counts[:, None]
    k, dim = means.shape
    scatter = torch.zeros(k, dim, dim, dtype=x.dtype)
    for n, j in itertools.product(range(len(x)), range(k)):
        scatter[j] += resp[n, j] * torch.outer(x[n] - means[j], x[n] - means[j])
    full = scatter / counts[:, None, None]
    eye = torch.eye(dim, dtype=x.dtype)
    covariances = {"full": full + reg_covar * eye, "diag": full.diagonal(dim1=1, dim2=2) + reg_covar,
                   "spherical": full.diagonal(dim1=1, dim2=2).mean(1) + reg_covar,
                   "tied": scatter.sum(0) / len(x) + reg_covar * eye}[kind]
    return em.Parameters(counts / len(x), means, covariances), float(mixture.log_prob(x).mean())


def log_joint(x, parameters, kind, expand):
    centered = Points(x, device="cpu")
    joint = em.log_joint(centered, em.to_frame(centered, parameters), kind, dtype=torch.float64 if expand else None)
    return torch.cat([part.clone() for *_, part in joint], 1).T


def assert_equal(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_equals_the_textbooks(kind):
    x = points()
    parameters = start(x, kind)
    updated, log_likelihood = em.em_step(x, parameters, kind, reg_covar=1e-3)
    expected, expected_log_likelihood = plain_step(x, parameters, kind, 1e-3)
    assert_equal(updated, expected)
    assert log_likelihood == pytest.approx(expected_log_likelihood, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_both_routes_agree_with_torchs_densities(kind):
    x = points()
    parameters = start(x, kind)
    mixture = distribution(parameters, kind)
    expected = parameters.weights.log() + mixture.component_distribution.log_prob(x.unsqueeze(1))
    for expand in (True, False):
        assert torch.allclose(log_joint(x, parameters, kind, expand), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_natural_parameters_times_features_are_the_log_joint(kind):
    x = points()
    parameters = start(x, kind)
    value = (em.natural_parameters(parameters, kind) @ em.features(x.T.contiguous(), kind)).T
    if kind == "tied":
        value = value - 0.5 * ((x @ parameters.covariances.inverse()) * x).sum(1, keepdim=True)
    mixture = distribution(parameters, kind)
    expected = parameters.weights.log() + mixture.component_distribution.log_prob(x.unsqueeze(1))
    assert torch.allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 4), dim=st.integers(1, 4))
def test_em_never_decreases_the_log_likelihood(kind, seed, k, dim):
    x = points(60, dim, k, seed)
    parameters, history = start(x, kind, k, seed), []
    try:
        for _ in range(12):
            parameters, log_likelihood = em.em_step(x, parameters, kind, reg_covar=0.0)
            history.append(log_likelihood)
    except ValueError:  # without a floor a component may collapse; until then the law holds
        pass
    assert (np.diff(history) >= -1e-9 * np.abs(history[1:])).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(3)), seed=st.integers(0, 1000))
def test_neither_the_components_nor_the_points_have_an_order(kind, order, seed):
    x = points(seed=seed)
    parameters = start(x, kind, seed=seed)
    updated, log_likelihood = em.em_step(x, parameters, kind)
    order = torch.tensor(order)
    swapped = em.Parameters(*(v if v.ndim == 2 and kind == "tied" and i == 2 else v[order]
                              for i, v in enumerate(parameters)))
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    again, log_likelihood_again = em.em_step(shuffled, swapped, kind)
    assert log_likelihood == pytest.approx(log_likelihood_again, rel=1e-11)
    assert_equal(again, (v if v.ndim == 2 and kind == "tied" and i == 2 else v[order]
                         for i, v in enumerate(updated)), 1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(-1e5, 1e5))
def test_responsibilities_sum_to_one_and_do_not_depend_on_a_common_shift(logs, shift):
    joint = torch.tensor(logs, dtype=torch.float64)[:, None]
    resp, moved = joint.clone(), joint + shift
    log_prob, log_prob_moved = em.normalize(resp), em.normalize(moved)
    assert resp.sum(0) == pytest.approx(1, abs=1e-12) and torch.allclose(resp, moved, atol=1e-9)
    assert torch.allclose(log_prob, joint.logsumexp(0)) and torch.allclose(log_prob + shift, log_prob_moved)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, monkeypatch):
    x = points(2000)
    parameters = start(x, kind)
    whole = em.em_step(x, parameters, kind)
    monkeypatch.setattr(source, "CHUNK_BYTES", 1)
    assert sum(1 for _ in Points(x, device="cpu").chunks(10)) == 8
    parts = em.em_step(x, parameters, kind)
    assert_equal(parts[0], whole[0], 1e-11)
    assert parts[1] == pytest.approx(whole[1], rel=1e-12)


@pytest.mark.parametrize("shape", [(1000, 1), (1, 3), (257, 3)])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_the_data_are_never_written_to(shape, layout):
    """A transposed view of the data needs no copy to be contiguous, so centering in place would reach the caller's."""
    x = np.asarray(np.random.default_rng(0).normal(size=shape) + 5, order=layout)
    before = x.copy()
    for chunk, _ in Points(torch.from_numpy(x), center=torch.full(shape[1:], 5.0, dtype=torch.float64)).chunks(4096):
        chunk += 1
    assert (x == before).all()


# Which route is taken, and that it must be


@pytest.fixture
def routes(monkeypatch):
    """The routes that `expectation` is asked to take, in order."""
    taken = []
    original = em.expectation

    def spy(points, parameters, kind, reference, dtype=None, factors=None):
        taken.append("expand" if dtype else "whiten")
        return original(points, parameters, kind, reference, dtype, factors)

    monkeypatch.setattr(em, "expectation", spy)
    return taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("distance", "expected"), [(1e2, "expand"), (1e6, "whiten")])
def test_far_tight_components_are_whitened_and_others_expanded(kind, distance, expected, routes):
    x = points(300, 2, 1)
    x = torch.cat([x, x + distance])
    parameters = start(x, kind, 2)._replace(means=torch.stack([x[:300].mean(0), x[300:].mean(0)]))
    updated, log_likelihood = em.em_step(x, parameters, kind)
    truth, expected_log_likelihood = plain_step(x, parameters, kind, 1e-6)
    assert routes == [expected]
    assert_equal(updated, truth, 1e-9)
    assert log_likelihood == pytest.approx(expected_log_likelihood, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_the_criterion_is_the_sum_of_the_absolute_terms(kind):
    x = points()
    parameters = start(x, kind)
    inverses = matrices(parameters, kind).inverse()
    expected = max(sum(abs(a[i] * p[i, j] * a[j]) for i in range(3) for j in range(3))
                   for a, p in zip(parameters.means, inverses, strict=True))
    found = em.rounding(parameters.means, em.factorize(parameters.covariances, kind), kind)
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_the_criterion_does_not_depend_on_the_units(kind):
    x = points()
    parameters = start(x, kind)
    scales = torch.tensor([1e-5, 1.0, 1e7], dtype=torch.float64) if kind in ("full", "diag", "tied") else 1e5
    spread = {"full": lambda c: c * torch.outer(scales, scales), "tied": lambda c: c * torch.outer(scales, scales),
              "diag": lambda c: c * scales**2, "spherical": lambda c: c * scales**2}[kind](parameters.covariances)
    before = em.rounding(parameters.means, em.factorize(parameters.covariances, kind), kind)
    assert em.rounding(parameters.means * scales, em.factorize(spread, kind), kind) == pytest.approx(before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_expanded_route_would_err_where_the_criterion_refuses_it(kind):
    """Otherwise the slower route would be idle caution."""
    x = points(300, 2, 1)
    x = torch.cat([x, x + 1e7])
    parameters = start(x, kind, 2)._replace(means=torch.stack([x[:300].mean(0), x[300:].mean(0)]))
    mixture = distribution(parameters, kind)
    truth = (parameters.weights.log() + mixture.component_distribution.log_prob(x.unsqueeze(1))).logsumexp(1)
    errors = [(log_joint(x, parameters, kind, expand).logsumexp(1) - truth).abs().max() for expand in (True, False)]
    assert errors[0] > 1e-4 and errors[1] < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_that_tightens_within_one_step_is_summed_again(kind, routes):
    """The start is wide, so the square is expanded; the update is so tight and far out that this lost its digits."""
    rng = np.random.default_rng(0)
    x = torch.tensor(np.concatenate([rng.normal(size=(200, 2)) * 1e-3 - 500, rng.normal(size=(200, 2)) * 1e-3 + 500]))
    wide = {"full": 1e4 * torch.eye(2).expand(2, 2, 2), "diag": torch.full((2, 2), 1e4),
            "spherical": torch.full((2,), 1e4), "tied": 1e4 * torch.eye(2)}[kind].double()
    parameters = em.Parameters(torch.tensor([0.5, 0.5]).double(), torch.stack([x[0], x[-1]]), wide)
    updated, _ = em.em_step(x, parameters, kind, reg_covar=0.0)
    assert routes == ["expand", "whiten"]
    assert_equal(updated, plain_step(x, parameters, kind, 0.0)[0], 1e-9)


def test_nearly_singular_covariances_keep_the_digits_that_float64_has():
    """Against 50 digits: condition 1e8, so eight of the sixteen digits may go, in either route."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    root = basis * np.sqrt([1.0, 1e-4, 1e-8])
    x, covariance = rng.normal(size=(5, 3)) @ root.T, root @ root.T
    parameters = em.Parameters(torch.ones(1).double(), torch.zeros(1, 3).double(), torch.tensor(covariance)[None])
    with mpmath.workdps(50):
        matrix = mpmath.matrix(covariance.tolist())
        constant = 3 * mpmath.log(2 * mpmath.pi) + mpmath.log(mpmath.det(matrix))
        rows = [mpmath.matrix(row.tolist()) for row in x]
        truth = [float(-(constant + (row.T * matrix**-1 * row)[0]) / 2) for row in rows]
    for expand in (True, False):
        assert log_joint(torch.tensor(x), parameters, "full", expand)[:, 0].numpy() == pytest.approx(truth, abs=1e-5)


# Degenerate cases


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_without_data_keeps_its_place_and_says_so(kind):
    x = points()
    parameters = start(x, kind)
    parameters.means[1] = 1e6
    with pytest.warns(RuntimeWarning, match=r"Component \[1\] claims no data: it keeps its place with weight 0"):
        updated, _ = em.em_step(x, parameters, kind)
    assert updated.weights[1] == 0 and torch.allclose(updated.means[1], parameters.means[1])
    assert updated.weights.sum() == pytest.approx(1)
    if kind != "tied":
        assert torch.allclose(updated.covariances[1], parameters.covariances[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again, log_likelihood = em.em_step(x, updated, kind)  # a weight of 0 does no harm
    assert np.isfinite(log_likelihood) and again.means.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_collapsed_component_is_an_error_that_names_the_cure(kind):
    x = points()[:2].repeat(10, 1)
    parameters = start(points(), kind)
    spread = 1e-9 * (parameters.covariances if kind == "tied" else parameters.covariances[:2])
    parameters = em.Parameters(parameters.weights[:2], x[:2], spread)
    with pytest.raises(ValueError, match=r"component \[0.*not positive.*raise reg_covar"):
        em.em_step(x, parameters, kind, reg_covar=0.0)


def test_k_means_plus_plus_draws_distinct_points_far_apart():
    x = torch.cat([points(100, 2, 1) * 0.01 + 10 * i for i in range(4)])
    centered = Points(x, device="cpu")
    for seed in range(20):
        means = seed_means(centered, 4, "k-means++", torch.Generator().manual_seed(seed))
        means = centered.scale * means + centered.center
        assert sorted((means[:, 0] / 10).round().tolist()) == [0, 1, 2, 3]
        assert ((means[:, None] - x[None]).abs().amax(2) < 1e-12).any(1).all()


def test_k_means_moves_the_seeds_to_better_places():
    """Never further from the points than k-means++'s, and at rest where each is the mean of its own points."""
    x = torch.cat([points(100, 2, 1) + 6 * torch.tensor([i, j]) for i in range(3) for j in range(3)])
    frame = Points(x, device="cpu")
    centered = (x - frame.center) / frame.scale
    for seed in range(10):
        seeds, means = (seed_means(frame, 9, init, torch.Generator().manual_seed(seed))
                        for init in ("k-means++", "k-means"))
        assert loss(centered, means) < loss(centered, seeds)
        nearest = torch.cdist(centered, means).argmin(1)
        assert torch.allclose(means, torch.stack([centered[nearest == k].mean(0) for k in range(9)]), atol=1e-3)


def loss(x, means):
    return torch.cdist(x, means).amin(1).square().sum()


def test_k_means_plus_plus_says_how_many_distinct_points_there_are():
    x = torch.tensor([[0.0, 0.1], [1.0, 0.7]], dtype=torch.float64).repeat(50, 1)
    with pytest.raises(ValueError, match="x has only 2 distinct points: lower n_components to that"):
        seed_means(Points(x, device="cpu"), 3, "k-means++", torch.Generator().manual_seed(0))


def test_numbers_whose_squares_overflow_are_refused_with_a_cure():
    with pytest.raises(ValueError, match="squares of x leave float64's range: divide x by"):
        Points(1e200 * points())


@pytest.mark.parametrize("kind", KINDS)
def test_the_partition_of_a_start_is_k_means_assignment(kind):
    x = points()
    centered = Points(x, device="cpu")
    means = (x[:3] - centered.center) / centered.scale
    parameters = em.from_frame(centered, em.maximization(partition_statistics(centered, means, kind), kind))
    nearest = torch.cdist(x, x[:3]).argmin(1)
    groups = [x[nearest == k] for k in range(3)]
    assert torch.allclose(parameters.weights, torch.tensor([len(g) / len(x) for g in groups]).double())
    assert torch.allclose(parameters.means, torch.stack([g.mean(0) for g in groups]))
    scatter = torch.stack([g.T.cov(correction=0) for g in groups])
    expected = {"full": scatter, "diag": scatter.diagonal(dim1=1, dim2=2),
                "spherical": scatter.diagonal(dim1=1, dim2=2).mean(1),
                "tied": (parameters.weights[:, None, None] * scatter).sum(0)}[kind]
    assert torch.allclose(parameters.covariances, expected)


@pytest.mark.parametrize(("n", "settings", "expected"), [
    (SMALL // 2 - 1, {}, "cpu"), (SMALL // 2, {}, "meta"), (4, {"device": "meta"}, "meta"),
    (4, {"distributed": True}, "meta"), (SMALL, {"device": "cpu"}, "cpu")])
def test_small_data_stay_on_the_cpu_unless_told_otherwise_or_spread(n, settings, expected, monkeypatch):
    monkeypatch.setattr("gmvae_lib.points.pick_device", lambda device, float64: torch.device(device or "meta"))
    frame = {"center": torch.zeros(2, dtype=torch.float64)}
    monkeypatch.setattr(Points, "_count", lambda points, n: None)  # which would look for other processes
    assert Points(torch.ones(n, 2, dtype=torch.float64), **frame, **settings).device.type == expected

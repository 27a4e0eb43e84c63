"""`GaussianMixture` against scikit-learn, closed forms and brute force, and what it says to bad input."""

import itertools
import math
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture as Reference
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gmvae_lib import em
from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.points import Points
from gmvae_lib.seeding import partition_statistics

KINDS = ("full", "diag", "spherical", "tied")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def blobs(n=600, dim=3, k=4, seed=0):
    rng = np.random.default_rng(seed)
    means = 3 * rng.normal(size=(k, dim))
    y = rng.integers(k, size=n)
    return means[y] + rng.normal(size=(n, dim)) @ (np.eye(dim) + 0.4), y


def same_start(x, k, kind, seed=0):
    """Settings that both estimators understand, for a run of exactly 25 steps from one start."""
    rng = np.random.default_rng(seed)
    dim = x.shape[1]
    precisions = {"full": np.tile(np.eye(dim), (k, 1, 1)), "diag": np.ones((k, dim)), "spherical": np.ones(k),
                  "tied": np.eye(dim)}[kind]
    return {"n_components": k, "covariance_type": kind, "tol": 0.0, "max_iter": 25, "weights_init": np.full(k, 1 / k),
            "means_init": x[rng.permutation(len(x))[:k]], "precisions_init": precisions}


# Beside scikit-learn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(600, 3, 4), (400, 1, 3), (900, 8, 5), (200, 2, 1)])
def test_equals_scikit_learn_from_the_same_start(kind, shape):
    n, dim, k = shape
    x, _ = blobs(n, dim, k)
    settings = same_start(x, k, kind)
    ours, theirs = GaussianMixture(**settings).fit(x), Reference(**settings).fit(x)
    assert ours.n_iter_ == theirs.n_iter_ == 25
    assert ours.score(x) == pytest.approx(theirs.score(x), rel=1e-9)
    assert ours.weights_.numpy() == pytest.approx(theirs.weights_, abs=1e-7)
    assert ours.means_.numpy() == pytest.approx(theirs.means_, abs=1e-6)
    assert ours.covariances_.shape == theirs.covariances_.shape
    assert ours.covariances_.numpy() == pytest.approx(theirs.covariances_, abs=1e-5)
    assert ours.score_samples(x) == pytest.approx(theirs.score_samples(x), abs=1e-6)
    assert ours.predict_proba(x) == pytest.approx(theirs.predict_proba(x), abs=1e-6)
    assert (ours.predict(x) == theirs.predict(x)).mean() > 0.999
    assert ours.bic(x) == pytest.approx(theirs.bic(x), rel=1e-9)
    assert ours.aic(x) == pytest.approx(theirs.aic(x), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_stops_when_scikit_learn_does(kind):
    x, _ = blobs()
    settings = same_start(x, 4, kind) | {"tol": 1e-3, "max_iter": 200}
    ours, theirs = GaussianMixture(**settings).fit(x), Reference(**settings).fit(x)
    assert ours.converged_ and theirs.converged_ and ours.n_iter_ == theirs.n_iter_


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_start_may_be_partial(kind):
    x, _ = blobs()
    means = x[:4]
    gmm = GaussianMixture(4, kind, means_init=means, max_iter=1, tol=0).fit(x)
    centered = Points(torch.from_numpy(x), device="cpu")
    partition = partition_statistics(centered, (torch.from_numpy(means) - centered.center) / centered.scale, kind)
    guess = em.from_frame(centered, em.maximization(partition, kind, 1e-6 / centered.scale**2))
    expected, _ = em.em_step(x, guess._replace(means=torch.from_numpy(means)), kind)
    assert all(torch.allclose(a, b) for a, b in zip(gmm._parameters(), expected, strict=True))


def test_finds_the_clusters_that_are_there():
    data = load("blobs", n_samples=2000)
    gmm = GaussianMixture(3, n_init=3).fit(data.x)
    assert adjusted_rand_score(data.y, gmm.predict(data.x)) > 0.97
    order = gmm.weights_.argsort(descending=True)
    assert torch.allclose(gmm.weights_[order].float(), torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    assert torch.allclose(gmm.means_[order].float(), torch.tensor([[-2.5, -1.0], [2.0, -1.5], [0.5, 2.5]]), atol=0.15)


def test_is_a_scikit_learn_estimator():
    x, _ = blobs()
    gmm = GaussianMixture(3, "diag", seed=7, means_init=x[:3])
    copied = clone(gmm)
    assert copied.get_params().keys() == gmm.get_params().keys()
    assert all(np.array_equal(a, b) for a, b in zip(copied.get_params().values(), gmm.get_params().values(),
                                                   strict=True))
    assert gmm.set_params(n_components=2).n_components == 2 and "n_components=2" in repr(gmm)
    scores = cross_val_score(GaussianMixture(3), x, cv=3)
    assert scores.shape == (3,) and np.isfinite(scores).all()
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(3)).fit(x)
    assert pipeline.predict(x).shape == (len(x),)
    fitted = GaussianMixture(3).fit(x)
    assert pickle.loads(pickle.dumps(fitted)).score(x) == fitted.score(x)


# Digits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9])
def test_moving_the_data_moves_the_fit(kind, distance):
    """The oracle is our own fit: scikit-learn's diagonal variances cancel at 1e6."""
    x, _ = blobs()
    x = np.round(x * 2**20) / 2**20 if distance < 1e9 else np.round(x * 2**10) / 2**10  # so that the shift is exact
    near, far = (GaussianMixture(**same_start(x + d, 4, kind)).fit(x + d) for d in (0.0, distance))
    assert far.score(x + distance) == pytest.approx(near.score(x), rel=1e-9)
    assert (far.means_ - distance).numpy() == pytest.approx(near.means_.numpy(), abs=1e-6 * max(1, distance / 1e6))
    assert far.covariances_.numpy() == pytest.approx(near.covariances_.numpy(), abs=1e-6)
    assert far.predict_proba(x + distance) == pytest.approx(near.predict_proba(x), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_rescaling_the_data_rescales_the_fit(kind):
    x, _ = blobs()
    settings = same_start(x, 4, kind) | {"reg_covar": 0.0}
    plain = GaussianMixture(**settings).fit(x)
    settings |= {"means_init": settings["means_init"] * 1e-5, "precisions_init": settings["precisions_init"] * 1e10}
    small = GaussianMixture(**settings).fit(x * 1e-5)
    assert small.score(x * 1e-5) == pytest.approx(plain.score(x) + 3 * math.log(1e5), rel=1e-9)
    assert small.means_.numpy() * 1e5 == pytest.approx(plain.means_.numpy(), abs=1e-6)


@pytest.mark.parametrize("kind", ["full", "spherical", "tied"])  # scikit-learn's diagonal variances cancel here
def test_nearly_singular_data_equal_scikit_learn(kind):
    """Two thin sheets far apart: the whitened route."""
    rng = np.random.default_rng(0)
    thin = np.array([1.0, 1e-3, 1.0])
    x = np.concatenate([rng.normal(size=(300, 3)) * thin, rng.normal(size=(300, 3)) * thin + 80.0])
    settings = same_start(x, 2, kind) | {"means_init": x[[0, -1]], "reg_covar": 1e-9, "max_iter": 5}
    ours, theirs = GaussianMixture(**settings).fit(x), Reference(**settings).fit(x)
    assert ours.score(x) == pytest.approx(theirs.score(x), rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(0, 2 * math.pi))
def test_responsibilities_sum_to_one_a_thousand_deviations_away(kind, radius, angle):
    gmm = fitted(kind)
    x = np.array([[radius * math.cos(angle), radius * math.sin(angle)]])
    resp = gmm.predict_proba(x)
    assert resp.sum() == pytest.approx(1, abs=1e-12) and (resp >= 0).all()
    assert np.isfinite(gmm.score_samples(x)).all()
    assert resp[0, gmm.predict(x)[0]] == resp.max()


FITTED = {}


def fitted(kind):
    if kind not in FITTED:
        FITTED[kind] = GaussianMixture(3, kind, seed=1).fit(load("blobs").x)
    return FITTED[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_densities_integrate_to_one(kind):
    grid = np.linspace(-9, 9, 361)
    x = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    assert np.exp(fitted(kind).score_samples(x)).sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1, abs=1e-6)


# Input and output


@pytest.mark.parametrize("convert", [
    lambda x: x.astype(np.float32), lambda x: torch.tensor(x), lambda x: torch.tensor(x, dtype=torch.float32),
    lambda x: torch.tensor(x, requires_grad=True), lambda x: x.tolist(), np.asfortranarray, lambda x: x[::-1][::-1]])
def test_every_kind_of_input_gives_the_same_fit_and_stays_as_it_was(convert):
    x, _ = blobs()
    x = np.round(x * 256) / 256  # exact in float32
    given = convert(x)
    gmm, expected = GaussianMixture(3).fit(given), GaussianMixture(3).fit(x)
    assert torch.allclose(gmm.means_, expected.means_) and gmm.means_.dtype == torch.float64
    assert np.array_equal(np.asarray(given.detach() if isinstance(given, torch.Tensor) else given), x)
    kind = torch.Tensor if isinstance(given, torch.Tensor) else np.ndarray
    assert all(isinstance(getattr(gmm, name)(given), kind) for name in ("predict", "predict_proba", "score_samples"))
    assert isinstance(gmm.score(given), float) and not gmm.means_.requires_grad


@pytest.mark.filterwarnings("ignore:Component")
def test_whole_numbers_are_data_too():
    x = load("digits").x[:300, 18:22]
    x = x[:, x.std(0) > 0]
    settings = same_start(x.double().numpy(), 3, "diag")
    results = [GaussianMixture(**settings).fit(v).score(v) for v in (x, x.long(), x.numpy().astype(np.uint8))]
    assert results == pytest.approx([results[0]] * 3, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Component")
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("shape", [(50, 1), (1, 2)])
def test_neither_fit_nor_predict_writes_to_the_data(shape, layout):
    x = np.asarray(np.random.default_rng(0).normal(size=shape) + 9, order=layout)
    before = x.copy()
    gmm = GaussianMixture(2).fit(np.random.default_rng(1).normal(size=(50, shape[1])))
    gmm.predict(x), gmm.score(x), gmm.icl(x)
    if len(x) > 2:
        gmm.fit(x)
    assert np.array_equal(x, before)


def test_runs_on_every_device(device):
    x, _ = blobs(5000)
    settings = same_start(x, 4, "full")
    here, there = GaussianMixture(**settings, device="cpu").fit(x), GaussianMixture(**settings, device=device).fit(x)
    assert there.means_.device.type == "cpu" and there.score(x) == pytest.approx(here.score(x), rel=1e-9)
    assert there.predict(torch.tensor(x, device=device)).device.type == device


# Starts and repetition


def test_the_same_seed_repeats_a_fit_and_another_may_not():
    x, _ = blobs(k=8)
    first, again = (GaussianMixture(8, seed=3, max_iter=5).fit(x) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first._parameters(), again._parameters(), strict=True))
    assert len({GaussianMixture(8, seed=s, max_iter=5).fit(x).score(x) for s in range(5)}) > 1


def test_n_init_keeps_the_likeliest_of_its_runs(monkeypatch):
    x, _ = blobs(k=8)
    finals = []
    original = GaussianMixture._run

    def spy(self, points, parameters):
        result = original(self, points, parameters)
        finals.append(result[1][-1])
        return result

    monkeypatch.setattr(GaussianMixture, "_run", spy)
    gmm = GaussianMixture(8, n_init=6, init="random", max_iter=15).fit(x)
    assert len(finals) == 6 and len(set(finals)) > 1
    assert gmm.lower_bound_ == max(finals) == pytest.approx(gmm.score(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_history_rises_and_has_an_entry_for_each_step_and_the_end(kind):
    x, _ = blobs()
    gmm = GaussianMixture(4, kind, reg_covar=0.0, tol=0, max_iter=30).fit(x)
    history = gmm.log_likelihood_
    assert len(history) == gmm.n_iter_ + 1 == 31 and (history.diff() >= -1e-12 * history[1:].abs()).all()
    assert history[-1].item() == pytest.approx(gmm.score(x), rel=1e-12) and gmm.lower_bound_ == history[-1]
    shorter = GaussianMixture(4, kind, reg_covar=0.0, tol=0, max_iter=29).fit(x)
    assert history[-2].item() == pytest.approx(shorter.score(x), rel=1e-12)


def test_warns_where_it_has_not_converged():
    x, _ = blobs()
    with pytest.warns(ConvergenceWarning, match="not converged after 2 steps: raise max_iter or tol"):
        assert not GaussianMixture(4, max_iter=2).fit(x).converged_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GaussianMixture(4, max_iter=500).fit(x).converged_
        GaussianMixture(4, max_iter=2, tol=0).fit(x)  # all steps were asked for


# Criteria and samples


@pytest.mark.parametrize("kind", KINDS)
def test_icl_equals_brute_force(kind):
    x, _ = blobs(200)
    gmm = GaussianMixture(3, kind).fit(x)
    theirs = Reference(3, covariance_type=kind)
    n_parameters = {"full": 3 * 6, "diag": 9, "spherical": 3, "tied": 6}[kind] + 2 + 9
    assert gmm.n_parameters() == n_parameters
    theirs.weights_, theirs.means_, theirs.covariances_ = (np.asarray(v) for v in gmm._parameters())
    entropy = 0.0
    for row in gmm.predict_proba(x):
        entropy -= sum(r * math.log(r) for r in row if r > 0)
    bic = -2 * gmm.score_samples(x).sum() + n_parameters * math.log(200)
    assert gmm.icl(x) == pytest.approx(bic + 2 * entropy, rel=1e-12) and gmm.icl(x) >= gmm.bic(x)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_fitted_moments(kind):
    gmm = fitted(kind)
    x, component = gmm.sample(300_000)
    assert x.shape == (300_000, 2) and component.shape == (300_000,)
    shares = torch.bincount(component, minlength=3) / len(x)
    assert torch.allclose(shares.double(), gmm.weights_, atol=0.005)
    for k in range(3):
        covariance = gmm.covariances_ if kind == "tied" else gmm.covariances_[k]
        covariance = covariance if covariance.ndim == 2 else covariance * torch.eye(2)
        assert torch.allclose(x[component == k].mean(0), gmm.means_[k], atol=0.02)
        assert torch.allclose(x[component == k].T.cov(), covariance.double(), atol=0.04)


def test_samples_agree_with_the_density():
    """The entropy, two ways: the mean of -log p over samples, and quadrature."""
    gmm = fitted("full")
    grid = torch.linspace(-9, 9, 401, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    log_p = gmm.score_samples(x)
    entropy = -(log_p.exp() * log_p).sum() * (grid[1] - grid[0]) ** 2
    assert gmm.score(gmm.sample(200_000)[0]) == pytest.approx(-entropy.item(), abs=0.01)


def test_samples_repeat():
    assert fitted("full").sample(5)[0].equal(fitted("full").sample(5)[0])
    with pytest.raises(ValueError, match="n_samples is 0: it must be at least 1"):
        fitted("full").sample(0)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(3)))
def test_relabelling_the_components_changes_nothing_but_labels(order):
    x = load("blobs").x
    gmm, other = fitted("full"), clone(fitted("full"))
    other.weights_, other.means_, other.covariances_ = (v[list(order)] for v in gmm._parameters())
    other.n_features_in_ = 2
    assert torch.allclose(gmm.score_samples(x), other.score_samples(x), atol=1e-10)
    assert torch.allclose(gmm.predict_proba(x)[:, list(order)], other.predict_proba(x), atol=1e-10)


# Memory


MEASURE = """
import resource, sys, threading, time, torch
from gmvae_lib.mixture import GaussianMixture
torch.set_num_threads(1)
dim, components = 8, int(sys.argv[1])
x = torch.randn(1_000_000, dim, dtype=torch.float64)
GaussianMixture(2, max_iter=1, tol=0).fit(x[:3000])
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before, peak, done = resident(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
GaussianMixture(components, max_iter=1, tol=0).fit(x)
done = True
thread.join()
print((peak - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the resident memory")
def test_fit_needs_little_memory_beyond_the_data():
    """(1M, 8) float64 is 61 MiB, and so would 8 components' responsibilities be."""
    result = subprocess.run([sys.executable, "-c", MEASURE, "8"], capture_output=True, text=True, check=True)
    assert float(result.stdout) <= 64 + 0.5 * 61


# Bad input


def test_unusable_data_are_refused_with_what_to_do():
    x, _ = blobs(50)
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 row\(s\), the first are \[4\]: drop"):
        GaussianMixture(2).fit(np.where(np.arange(50)[:, None] == 4, np.nan, x))
    with pytest.raises(ValueError, match="x has 3 points, fewer than the 4 components asked for: lower n_components"):
        GaussianMixture(4).fit(x[:3])
    with pytest.raises(ValueError, match=r"Column\(s\) \[3\] of x are constant.*PCA"):
        GaussianMixture(2).fit(np.c_[x, np.ones(50)])
    with pytest.raises(ValueError, match=r"[Rr]eshape"):
        GaussianMixture(2).fit(x[:, 0])
    with pytest.raises(ValueError, match="2 distinct points: lower n_components"):
        GaussianMixture(3).fit(np.repeat(x[:2], 20, 0))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score", "bic", "aic", "icl"])
def test_questions_are_checked_as_well(method):
    gmm = fitted("full")
    with pytest.raises(ValueError, match="3 features.* (expected|expecting) 2|expected 2"):
        getattr(gmm, method)(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 row\(s\), the first are \[0\]"):
        getattr(gmm, method)([[math.nan, 0.0], [0.0, 0.0]])
    with pytest.raises(NotFittedError, match="not fitted yet. Call 'fit'"):
        getattr(GaussianMixture(2), method)(np.zeros((4, 2)))


def test_sampling_before_fitting_is_refused():
    with pytest.raises(NotFittedError, match="Call 'fit'"):
        GaussianMixture(2).sample(3)


SETTINGS = [
    ({"covariance_type": "round"}, "covariance_type is 'round': choose one of .*'spherical'"),
    ({"init": "kmeans"}, "init is 'kmeans': choose 'k-means\\+\\+', 'k-means' or 'random'"),
    ({"n_components": 0}, "n_components is 0: it must be a whole number and at least 1"),
    ({"n_components": 2.5}, "n_components is 2.5: it must be a whole number"),
    ({"n_components": "3"}, "n_components is '3': it must be a whole number"),
    ({"max_iter": 0}, "max_iter is 0"), ({"n_init": 0}, "n_init is 0"), ({"tol": -1.0}, "tol is -1.0"),
    ({"tol": math.nan}, "tol is nan"), ({"reg_covar": -1e-6}, "reg_covar is -1e-06"), ({"seed": None}, "seed is None"),
    ({"weights_init": [0.5, 0.4]}, "weights_init must be non-negative and sum to one"),
    ({"weights_init": [1.5, -0.5]}, "weights_init must be non-negative and sum to one"),
    ({"weights_init": [1.0]}, r"weights_init has shape \(1,\): expected finite values of shape \(2,\)"),
    ({"means_init": np.zeros((2, 4))}, r"means_init has shape \(2, 4\): expected finite values of shape \(2, 3\)"),
    ({"means_init": np.full((2, 3), np.nan)}, "means_init .* expected finite values"),
    ({"precisions_init": np.ones((2, 3))}, r"precisions_init has shape \(2, 3\): .* shape \(2, 3, 3\)"),
    ({"precisions_init": -np.tile(np.eye(3), (2, 1, 1))}, r"component \[0, 1\].*positive definite: check precisions"),
    ({"device": "abacus"}, "device is 'abacus': choose"),
]


@pytest.mark.parametrize(("given", "message"), SETTINGS)
def test_unusable_settings_are_refused_with_what_to_do(given, message):
    x, _ = blobs(60)
    with pytest.raises(ValueError, match=message):
        GaussianMixture(**({"n_components": 2} | given)).fit(x)


def test_a_collapsed_component_names_the_cure():
    x = np.concatenate([blobs(50)[0], np.full((1, 3), 1e4)])
    with pytest.raises(ValueError, match="raise reg_covar"):
        GaussianMixture(2, means_init=x[[0, -1]], reg_covar=0.0).fit(x)
    with pytest.warns(RuntimeWarning, match=r"Component \[1\] has collapsed.*Use fewer components"):
        gmm = GaussianMixture(2, means_init=x[[0, -1]]).fit(x)  # the default floor holds
    assert torch.allclose(gmm.covariances_[1], 1e-6 * torch.eye(3, dtype=torch.float64), rtol=1e-3)


def test_as_many_components_as_points_is_possible():
    x, _ = blobs(6)
    with pytest.warns(RuntimeWarning, match=r"Component \[0, 1, 2, 3, 4, 5\] has collapsed"):
        gmm = GaussianMixture(6).fit(x)
    assert sorted(gmm.predict(x)) == list(range(6))
    assert all(np.isfinite(getattr(gmm, name)(x)) for name in ("score", "bic", "aic", "icl"))


@pytest.mark.filterwarnings("ignore:Component")
def test_every_pair_of_family_and_start_gives_a_finite_fit():
    x = load("digits").x[:200, 10:14]
    for kind, init in itertools.product(KINDS, ("k-means++", "random")):
        gmm = GaussianMixture(5, kind, init=init, max_iter=10, tol=0).fit(x)
        assert gmm.log_likelihood_.isfinite().all() and gmm.weights_.sum() == pytest.approx(1)


def test_small_data_are_fitted_by_one_thread_and_the_setting_comes_back(monkeypatch):
    x, seen, step = torch.randn(100_000, 3), [], em.step
    before = torch.get_num_threads()
    monkeypatch.setattr(em, "step", lambda *a: seen.append(torch.get_num_threads()) or step(*a))
    torch.set_num_threads(2)
    try:
        GaussianMixture(2, tol=0, max_iter=1).fit(x[:500])
        GaussianMixture(2, tol=0, max_iter=1).fit(x)
        monkeypatch.setattr(em, "step", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            GaussianMixture(2).fit(x[:500])
        assert seen == [1, 2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

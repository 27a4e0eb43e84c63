"""Views that share a component: mixtures of groups (N, V, D), against enumeration with SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from gmvae_lib import em, families, points
from gmvae_lib.em import em_step
from gmvae_lib.evaluation import clustering_accuracy
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.seeding import partition_statistics

KINDS = ("full", "diag", "spherical", "tied")
N, V, D, K = 60, 4, 3, 3


def groups(n=N, views=V, dim=D, k=K, noise=1.0, seed=0):
    """Groups (n, views, dim) about k centers, and the center that each belongs to."""
    rng = np.random.default_rng(seed)
    centers, y = 2.5 * rng.normal(size=(k, dim)), rng.integers(k, size=n)
    return centers[y][:, None] + noise * rng.normal(size=(n, views, dim)), y


def mixture(kind, k=K, dim=D, seed=3):
    """Uneven parameters of the family."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, dim, dim)) + 2 * np.eye(dim)
    full = roots @ roots.transpose(0, 2, 1)
    covariances = {"full": full, "diag": full.diagonal(axis1=1, axis2=2).copy(), "spherical": full[:, 0, 0],
                   "tied": full[0]}[kind]
    return rng.dirichlet(np.full(k, 3.0)), 2 * rng.normal(size=(k, dim)), covariances


def dense(covariances, kind, k=K, dim=D):
    """The same covariances as matrices (k, dim, dim)."""
    if kind in ("full", "tied"):
        return np.broadcast_to(covariances, (k, dim, dim))
    return np.stack([np.eye(dim) * value for value in np.asarray(covariances)])


def by_enumeration(x, parameters, kind):
    """log p(x_1..x_V) (N,) and responsibilities (N, K), written out with SciPy."""
    weights, means, covariances = parameters
    joint = np.array([[math.log(weights[k]) + sum(multivariate_normal.logpdf(view, means[k], spread) for view in group)
                       for k, spread in enumerate(dense(covariances, kind))] for group in x])
    log_prob = logsumexp(joint, axis=1)
    return log_prob, np.exp(joint - log_prob[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_densities_and_responsibilities_equal_enumeration(kind):
    x, parameters = groups()[0], mixture(kind)
    gmm = GaussianMixture(K, kind).set_parameters(*parameters)
    log_prob, resp = by_enumeration(x, parameters, kind)
    assert np.allclose(gmm.score_samples(x), log_prob, rtol=1e-12)
    assert np.allclose(gmm.predict_proba(x), resp, atol=1e-12)
    assert (gmm.predict(x) == resp.argmax(1)).all()
    assert gmm.score(x) == pytest.approx(log_prob.mean(), rel=1e-12)
    assert gmm.bic(x) == pytest.approx(-2 * log_prob.sum() + gmm.n_parameters() * math.log(N))
    assert gmm.aic(x) == pytest.approx(-2 * log_prob.sum() + 2 * gmm.n_parameters())
    assert gmm.icl(x) == pytest.approx(gmm.bic(x) - 2 * (resp * np.log(resp.clip(1e-300))).sum())


@pytest.mark.parametrize("offset", [0.0, 1e6], ids=["expanded", "whitened"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_equals_the_definition(kind, offset):
    """Responsibilities of groups, repeated over views, then chapter 2's M-step on all views; far away the data's frame
    is wrong by intent, so that differences are whitened."""
    x, (weights, means, covariances) = groups()[0], mixture(kind)
    log_prob, resp = by_enumeration(x, (weights, means, covariances), kind)
    frame = points.Points(torch.tensor(x + offset), center=torch.zeros(D, dtype=torch.float64), device="cpu")
    start = families.Parameters(*(torch.tensor(value) for value in (weights, means + offset, covariances)))
    (new_weights, new_means, new_covariances), _, log_likelihood = em.step(frame, start, kind, 0.0)
    assert log_likelihood == pytest.approx(log_prob.mean(), rel=1e-8)
    repeated, flat = resp.repeat(V, 0), x.reshape(-1, D)
    counts = repeated.sum(0)
    assert np.allclose(new_weights, counts / (N * V), atol=1e-7)
    expected = (repeated.T @ flat) / counts[:, None]
    assert np.allclose(new_means - offset, expected, atol=1e-7)
    spread = np.stack([((flat - mean).T * r) @ (flat - mean) for r, mean in zip(repeated.T, expected, strict=True)])
    full = spread / counts[:, None, None]
    expected = {"full": full, "diag": full.diagonal(axis1=1, axis2=2), "tied": spread.sum(0) / counts.sum(),
                "spherical": full.trace(axis1=1, axis2=2) / D}[kind]
    assert np.allclose(new_covariances, expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_m_step_maximizes_the_bound(kind):
    """No small change of any parameter raises sum_n sum_k r_nk (log pi_k + sum_v log N(x_nv | k))."""
    x, start = groups()[0], mixture(kind)
    _, resp = by_enumeration(x, start, kind)
    best, _ = em_step(x, [torch.tensor(value) for value in start], kind, reg_covar=0.0)
    weights, means, covariances = (value.numpy() for value in best)
    generator = np.random.default_rng(0)

    def bound(weights, means, covariances):
        terms = [np.log(weights[k]) + multivariate_normal.logpdf(x, means[k], spread).sum(1)
                 for k, spread in enumerate(dense(covariances, kind))]
        return (resp * np.stack(terms, 1)).sum()

    top = bound(weights, means, covariances)
    for _ in range(100):
        rival = weights * np.exp(0.05 * generator.normal(size=K))
        assert bound(rival / rival.sum(), means, covariances) < top
        assert bound(weights, means + 0.05 * generator.normal(size=means.shape), covariances) < top
        noise = 0.05 * generator.normal(size=covariances.shape)
        noise = noise + np.swapaxes(noise, -1, -2) if kind in ("full", "tied") else noise
        assert bound(weights, means, covariances + noise * np.abs(covariances).min()) < top


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["k-means++", "k-means", "random"])
def test_em_never_decreases_the_log_likelihood(kind, init):
    gmm = GaussianMixture(K, kind, tol=0, max_iter=20, reg_covar=0, init=init).fit(groups(noise=3.0)[0])
    assert (gmm.log_likelihood_.diff() > -1e-10).all()
    assert gmm.log_likelihood_[-1] == pytest.approx(gmm.score(groups(noise=3.0)[0]), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("init", ["k-means++", "k-means", "random"])
def test_one_view_is_the_usual_fit_to_the_last_digit(kind, init):
    x, weights = groups(views=1)[0], np.random.default_rng(1).uniform(0.5, 2, size=N)
    one = GaussianMixture(K, kind, init=init, n_init=2).fit(x, sample_weight=weights)
    usual = GaussianMixture(K, kind, init=init, n_init=2).fit(x[:, 0], sample_weight=weights)
    for name in ("weights_", "means_", "covariances_", "log_likelihood_"):
        assert torch.equal(getattr(one, name), getattr(usual, name))
    assert np.array_equal(one.predict_proba(x), usual.predict_proba(x[:, 0]))
    assert np.array_equal(one.score_samples(x), usual.score_samples(x[:, 0]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_of_a_group_have_no_order(kind):
    x = torch.tensor(groups()[0])
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack([group[torch.randperm(V, generator=generator)] for group in x])
    fits = [GaussianMixture(K, kind).fit(value) for value in (x, shuffled)]
    assert torch.allclose(fits[0].means_, fits[1].means_)
    assert torch.allclose(fits[0].covariances_, fits[1].covariances_)
    assert torch.allclose(fits[0].predict_proba(x), fits[1].predict_proba(shuffled))


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeated_view_sharpens_the_posterior(kind):
    """One point seen V times: responsibilities are proportional to pi_k N(x | k)^V."""
    x, parameters = groups(views=1)[0], mixture(kind)
    gmm = GaussianMixture(K, kind).set_parameters(*parameters)
    log_n = np.log(gmm.predict_proba(x)) + gmm.score_samples(x)[:, None] - np.log(parameters[0])
    sharpened = np.log(parameters[0]) + V * log_n
    expected = np.exp(sharpened - logsumexp(sharpened, axis=1, keepdims=True))
    assert np.allclose(gmm.predict_proba(x.repeat(V, 1)), expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_hold_whole_groups_and_change_nothing(kind, monkeypatch):
    x, weights = groups(n=2000)[0], np.random.default_rng(1).uniform(0.5, 2, size=2000)
    settings = {"n_components": K, "covariance_type": kind, "tol": 0, "max_iter": 5, "device": "cpu"}
    whole = GaussianMixture(**settings).fit(x, sample_weight=weights)
    monkeypatch.setattr(points, "CHUNK_BYTES", 1)
    widths = [chunk.shape[1] for chunk, _ in points.Points(torch.tensor(x), device="cpu").chunks(10)]
    assert len(widths) > 30 and all(width % V == 0 for width in widths)
    parts = GaussianMixture(**settings).fit(x, sample_weight=weights)
    assert torch.allclose(whole.means_, parts.means_, atol=1e-10)
    assert torch.allclose(whole.covariances_, parts.covariances_, atol=1e-10)
    assert np.allclose(whole.predict_proba(x), parts.predict_proba(x))


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_the_sums_of_groups_changes_nothing(kind, monkeypatch):
    x, weights = groups()[0], np.random.default_rng(1).uniform(0.5, 2, size=N)
    fits = []
    for room in (em.KEPT_BYTES, 0):
        monkeypatch.setattr(em, "KEPT_BYTES", room)
        fits.append(GaussianMixture(K, kind, n_init=3).fit(x, sample_weight=weights))
    for name in ("weights_", "means_", "covariances_", "log_likelihood_"):
        assert torch.equal(*(getattr(fit, name) for fit in fits))


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_weight_two_counts_as_two_groups(kind):
    x, start = groups()[0], mixture(kind)
    weights = np.random.default_rng(2).integers(1, 4, size=N)
    precisions = 1 / start[2] if kind in ("diag", "spherical") else np.linalg.inv(start[2])
    settings = {"n_components": K, "covariance_type": kind, "tol": 0, "max_iter": 5, "weights_init": start[0],
                "means_init": start[1], "precisions_init": precisions}
    weighted = GaussianMixture(**settings).fit(x, sample_weight=weights)
    repeated = GaussianMixture(**settings).fit(x.repeat(weights, 0))
    assert torch.allclose(weighted.means_, repeated.means_)
    assert torch.allclose(weighted.covariances_, repeated.covariances_)
    assert torch.allclose(weighted.log_likelihood_, repeated.log_likelihood_)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_groups_and_single_precision_give_the_same_fit(kind):
    x = groups(n=300)[0]
    settings = {"n_components": K, "covariance_type": kind, "tol": 0, "max_iter": 5}
    usual = GaussianMixture(**settings).fit(x)
    batched = GaussianMixture(**settings).fit_batches([x[:50], x[50:220], x[220:]])
    assert torch.allclose(usual.means_, batched.means_)
    assert torch.allclose(usual.log_likelihood_, batched.log_likelihood_)
    coarse = GaussianMixture(dtype=torch.float32, **settings).fit(x)
    assert torch.allclose(usual.log_likelihood_, coarse.log_likelihood_, atol=1e-3)
    assert torch.allclose(usual.means_, coarse.means_, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_online_step_moves_the_weights_by_its_share(kind):
    first, second = groups(n=300)[0], groups(n=200, seed=5)[0]
    gmm = GaussianMixture(K, kind).partial_fit(first)
    share, old, resp = 2 ** -0.6, gmm.weights_.numpy(), gmm.predict_proba(second)
    gmm.partial_fit(second)
    assert np.allclose(gmm.weights_, (1 - share) * old + share * resp.mean(0))


def test_starting_groups_go_where_their_mean_goes():
    x = torch.tensor(groups(noise=3.0)[0])
    frame, means = points.Points(x, device="cpu"), torch.tensor(mixture("full")[1])
    statistics = partition_statistics(frame, means, "full")
    nearest = torch.cdist(x.mean(1) - frame.center, means).argmin(1)
    counts = torch.bincount(nearest, minlength=K)
    assert torch.equal(statistics.counts, V * counts.double())
    first = torch.stack([(x - frame.center - means[k])[nearest == k].sum((0, 1)) for k in range(K)])
    assert torch.allclose(statistics.first, first)


def test_views_find_clusters_that_single_points_do_not_show():
    """Clusters one deviation apart: a point hardly tells its own, eight views of it do. The fit sees no labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    x = 0.6 * (2 * y[:, None, None] - 1) * np.ones((1, 1, 2)) + rng.normal(size=(400, 8, 2))
    grouped = GaussianMixture(2, "full", n_init=3).fit(x)
    alone = GaussianMixture(2, "full", n_init=3).fit(x.reshape(-1, 2))
    assert clustering_accuracy(y, grouped.predict(x)) > 0.97
    assert clustering_accuracy(y.repeat(8), alone.predict(x.reshape(-1, 2))) < 0.85
    assert np.abs(np.abs(grouped.means_.numpy()) - 0.6).max() < 0.1
    assert clustering_accuracy(y, grouped.predict(x[:, :3])) > 0.85  # fewer views than in the fit: less sure


def test_companions_outvote_an_outlier():
    rng = np.random.default_rng(0)
    y = np.arange(2).repeat(60)
    x = np.array([[-4.0, 0.0], [4.0, 0.0]])[y][:, None] + rng.normal(size=(120, 5, 2))
    x[:, 0] = -x[:, 0]
    gmm = GaussianMixture(2, "full", reg_covar=1e-2)
    assert clustering_accuracy(y, gmm.fit_predict(x)) == 1.0
    assert gmm.predict_proba(x).shape == (120, 2)


def test_tensors_and_arrays_and_every_layout_give_the_same_answers(device):
    x = torch.tensor(groups()[0])
    gmm = GaussianMixture(K, "full", device=device).fit(x)
    strided = torch.empty(D, N, V, dtype=torch.float64).permute(1, 2, 0).copy_(x)
    assert torch.allclose(GaussianMixture(K, "full", device=device).fit(strided).means_, gmm.means_)
    assert np.allclose(GaussianMixture(K, "full", device=device).fit(x.numpy()).means_, gmm.means_)
    assert np.allclose(gmm.predict_proba(x.numpy()), gmm.predict_proba(x))
    assert isinstance(gmm.predict(x.numpy()), np.ndarray) and isinstance(gmm.predict(x), torch.Tensor)


@pytest.mark.parametrize("given, message", [
    (np.zeros((4, 3, 2, 2)), r"\(N, V, D\)"),
    (np.zeros((4, 0, 2)), "empty|0 sample"),
    (torch.zeros(4, 0, 2), "empty"),
    (np.full((9, 2, D), np.nan), "NaN or infinite"),
    (np.zeros((9, V, D)), "constant"),
    (groups(n=2)[0], "fewer than the 3 components"),
])
def test_unusable_groups_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(3).fit(given)


def test_questions_with_another_number_of_features_and_uneven_batches_are_refused():
    x = groups()[0]
    gmm = GaussianMixture(K).fit(x)
    assert gmm.predict(x[:, :2]).shape == gmm.predict(x[:, 0]).shape == (N,)  # but V may differ
    for other in (x[:, :, :2], torch.tensor(x[:, :, :2])):
        with pytest.raises(ValueError, match="features|expected \\(N, 3\\)"):
            gmm.predict(other)
    with pytest.raises(ValueError, match="as in the first batch"):
        gmm.fit_batches([x, x[:, :2]])
    bad = torch.tensor(x)
    bad[7, 2, 1] = math.inf
    with pytest.raises(ValueError, match=r"1 row\(s\), the first are \[7\]"):
        gmm.predict(bad)
    with pytest.raises(ValueError, match="one weight a point"):
        gmm.fit(x, sample_weight=np.ones(N * V))

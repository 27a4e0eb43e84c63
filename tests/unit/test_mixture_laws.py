"""Laws that hold for all data: symmetries of EM, and no NaN whatever is given. (More of them in test_em.py.)"""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmvae_lib import em, families
from gmvae_lib.mixture import COVARIANCE_TYPES as KINDS
from gmvae_lib.mixture import GaussianMixture

SEEDS = st.integers(0, 10**6)


def random_problem(kind, seed, dim=3, k=3, n=80):
    """Points around k centers, and a mixture to start from: (x, Parameters)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    x += 3 * torch.randn(k, dim, generator=generator, dtype=torch.float64)[torch.arange(n) % k]
    root = torch.randn(k, dim, 3 * dim, generator=generator, dtype=torch.float64)
    full = 0.5 * root @ root.mT
    spread = {"full": full, "diag": full.diagonal(dim1=1, dim2=2), "spherical": full[:, 0, 0], "tied": full[0]}[kind]
    return x, em.Parameters(torch.full((k,), 1 / k, dtype=torch.float64), x[:k].clone(), spread.clone())


def transformation(kind, seed, dim=3):
    """A random matrix A and shift b such that x -> A x + b keeps the covariance family."""
    generator = torch.Generator().manual_seed(seed)
    general = torch.randn(dim, dim, generator=generator, dtype=torch.float64) + 2 * torch.eye(dim)
    rotation = torch.linalg.qr(general)[0]
    sizes = torch.randn(dim, generator=generator, dtype=torch.float64).exp()
    a = {"full": rotation * sizes, "tied": rotation * sizes, "diag": torch.diag(sizes)[torch.randperm(dim)],
         "spherical": 7.0 * rotation}[kind]
    return a, 10 * torch.randn(dim, generator=generator, dtype=torch.float64)


def transformed(parameters, kind, a, b):
    """The mixture of A x + b, x from the given one."""
    weights, means, covariances = parameters
    spread = {"full": lambda: a @ covariances @ a.T, "tied": lambda: a @ covariances @ a.T,
              "diag": lambda: covariances @ a.square().T, "spherical": lambda: covariances * 49.0}[kind]()
    return em.Parameters(weights, means @ a.T + b, spread)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_rotating_shifting_and_scaling_the_data_does_so_to_the_mixture(kind, seed):
    x, start = random_problem(kind, seed)
    a, b = transformation(kind, seed)
    moved, moved_log_likelihood = em.em_step(x @ a.T + b, transformed(start, kind, a, b), kind, reg_covar=0)
    updated, log_likelihood = em.em_step(x, start, kind, reg_covar=0)
    for found, expected in zip(moved, transformed(updated, kind, a, b), strict=True):
        assert torch.allclose(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
    assert moved_log_likelihood == pytest.approx(log_likelihood - float(a.det().abs().log()), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, distance=st.floats(-1e3, 1e3))
def test_responsibilities_sum_to_one_however_far_away(kind, seed, distance):
    """`distance` in standard deviations of the widest component; in logs, where nothing underflows."""
    x, (weights, means, covariances) = random_problem(kind, seed)
    gmm = GaussianMixture(3, kind).set_parameters(weights, means, covariances)
    away = x[:5] + distance * covariances.max().sqrt()
    resp, log_prob = gmm.predict_proba(away), gmm.score_samples(away)
    assert torch.allclose(resp.log().logsumexp(1), torch.zeros(5).double(), atol=1e-12)
    assert log_prob.isfinite().all() and resp.isfinite().all()
    assert (resp.argmax(1) == gmm.predict(away)).all()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_draws_have_the_entropy_that_the_density_gives_them(kind, seed):
    """The mean of log p over draws from p, twice: the sampler and the density speak of the same p."""
    _, (weights, means, covariances) = random_problem(kind, seed, dim=2)
    gmm = GaussianMixture(3, kind, seed=seed).set_parameters(weights, means, covariances)
    x, component = gmm.sample(4000)
    shares = torch.bincount(component, minlength=3) / 4000
    assert torch.allclose(shares.double(), weights, atol=0.05)
    values = gmm.score_samples(x)
    grid = torch.cartesian_prod(*[torch.linspace(low, high, 300, dtype=torch.float64) for low, high in
                                  zip(x.amin(0) - 4 * x.std(0), x.amax(0) + 4 * x.std(0), strict=True)])
    cell = (grid[300] - grid[0])[0] * (grid[1] - grid[0])[1]
    log_p = gmm.score_samples(grid)
    assert float(log_p.exp().sum() * cell) == pytest.approx(1, abs=0.02)
    entropy = float((log_p.exp() * log_p).sum() * cell)
    assert float(values.mean()) == pytest.approx(entropy, abs=6 * float(values.std()) / 4000**0.5 + 0.02)


@st.composite
def degenerate_data(draw):
    """Few distinct points, points on a line or a plane, copies of one point beside others, whole numbers, huge or tiny
    units: what breaks mixtures."""
    rng = np.random.default_rng(draw(SEEDS))
    n, dim = draw(st.integers(2, 30)), draw(st.integers(1, 4))
    rank = draw(st.integers(1, dim))
    x = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, dim))
    if draw(st.booleans()):
        x = x.round()
    if draw(st.booleans()):
        x[: n // 2] = x[0]
    return x * 10.0 ** draw(st.integers(-8, 8)) + draw(st.sampled_from([0.0, 1.0, 1e6]))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(x=degenerate_data(), k=st.integers(1, 5), reg_covar=st.sampled_from([0.0, 1e-6, 1e-2]),
       dtype=st.sampled_from([torch.float64, torch.float32]))
def test_singular_data_never_yield_nan(kind, x, k, reg_covar, dtype):
    """A clear error, or a finite mixture, with a warning that names the component where the floor alone holds."""
    gmm = GaussianMixture(k, kind, reg_covar=reg_covar, max_iter=20, dtype=dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            gmm.fit(x)
        except ValueError as error:
            text = str(error)
            assert any(cure in text for cure in ("raise reg_covar", "lower n_components", "drop them", "divide x by"))
            return
    assert all(v.isfinite().all() for v in (gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_))
    assert np.isfinite(gmm.score_samples(x)).all() and np.isfinite(gmm.predict_proba(x)).all()
    singular = families.collapsed(gmm.covariances_, kind, reg_covar)
    assert bool(singular) == any(f"Component {singular} has collapsed" in str(w.message) for w in caught)
    assert reg_covar or not singular


def test_points_on_a_plane_name_every_component():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 3))
    with pytest.warns(RuntimeWarning, match=r"Component \[0, 1\] has collapsed: in some direction.*PCA"):
        GaussianMixture(2).fit(x)
    with pytest.raises(ValueError, match=r"omponent \[(0|1).*: raise reg_covar"):
        GaussianMixture(2, reg_covar=0).fit(x)

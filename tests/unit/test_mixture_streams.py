"""Data in batches, larger than memory, or seen once; and in float32."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from gmvae_lib import em, families
from gmvae_lib.data import load
from gmvae_lib.mixture import COVARIANCE_TYPES as KINDS
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.points import Points

X = load("unequal", n_samples=1000).x.double()


def assert_same(a, b, tolerance=1e-10):
    for name in ("weights_", "means_", "covariances_", "log_likelihood_"):
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance)


# Batches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [[1000], [1, 600, 399], [100] * 10])
def test_batches_give_the_fit_of_the_whole(kind, sizes):
    gmm = GaussianMixture(3, kind, n_init=2, seed=1)
    whole = gmm.fit(X).log_likelihood_, gmm.means_
    gmm.fit_batches([part.numpy() for part in X.split(sizes)])
    assert torch.allclose(gmm.log_likelihood_, whole[0], rtol=1e-10) and torch.allclose(gmm.means_, whole[1])


def test_batches_may_come_from_a_loader_or_a_function():
    whole = GaussianMixture(3).fit(X)
    loader = DataLoader(X, batch_size=64)
    assert_same(GaussianMixture(3).fit_batches(loader), whole)
    assert_same(GaussianMixture(3).fit_batches(lambda: (X[i:i + 300] for i in range(0, 1000, 300))), whole)


def test_batches_that_can_be_read_only_once_are_refused():
    with pytest.raises(ValueError, match="only once.*give a function that returns a fresh iterator"):
        GaussianMixture(3).fit_batches(part for part in X.split(100))


@pytest.mark.parametrize(("batches", "message"), [
    ([], "no batches"), ([X[:5], X[5:, :1]], "a batch has 1 features: expected 2"),
    ([X[:5], X[5:9] * torch.nan], "a batch has NaN"), ([X[:2]], "x has 2 points, fewer than the 3 components"),
    ([(X[:5], X[:5, 0])], "a batch is not an array of numbers")])
def test_unusable_batches_are_refused(batches, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(3).fit_batches(batches)


SWEEP = """
import sys, threading, time
import numpy as np
from gmvae_lib.mixture import GaussianMixture

def anonymous():  # resident memory that is not the file's own pages, which the system can drop at any time
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

path, which = sys.argv[1:]
gmm = GaussianMixture(4, max_iter=2, tol=0)
gmm.fit(np.random.default_rng(0).normal(size=(50_000, 8)))
x = np.load(path, mmap_mode="r")
before, peak, done = anonymous(), [0.0], threading.Event()
def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous())
thread = threading.Thread(target=watch)
thread.start()
gmm.fit(x) if which == "fit" else gmm.fit_batches(lambda: np.array_split(x, 40))
done.set()
thread.join()
print(peak[0] - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, as only Linux has it")
@pytest.mark.parametrize("which", ["fit", "fit_batches"])
def test_a_memory_mapped_file_is_never_copied_into_memory(which, tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (1_000_000, 8))  # 61 MiB
    for part in np.array_split(x, 10):
        part[:] = np.random.default_rng(len(part)).normal(size=part.shape)
    x.flush()
    del x
    result = subprocess.run([sys.executable, "-c", SWEEP, tmp_path / "x.npy", which], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 45  # MiB, most of it the permutation that picks the seeds


# Online EM


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_and_parameters_determine_each_other(kind):
    gmm = GaussianMixture(3, kind, reg_covar=1e-3).fit(X)
    parameters = em.Parameters(gmm.weights_, gmm.means_, gmm.covariances_)
    again = em.maximization(families.statistics_of(parameters, kind, 1e-3), kind, 1e-3)
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(parameters, again, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_stream_seen_once_leads_close_to_the_fit_of_all(kind, offset):
    x = load("blobs", n_samples=10_000, seed=1).x.double() + offset
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    start = GaussianMixture(3, kind, n_init=5).fit(x[:100])
    online = GaussianMixture(3, kind, n_init=5)
    for batch in x.split(100):
        online.partial_fit(batch)
    whole = GaussianMixture(3, kind, n_init=5, tol=1e-6, max_iter=500).fit(x)
    assert whole.score(x) - online.score(x) < 0.2 * (whole.score(x) - start.score(x)) + 1e-4
    assert online.n_batches_ == 100 and len(online.log_likelihood_) == start.n_iter_ + 100


def test_online_steps_do_not_pile_up_the_floor():
    online = GaussianMixture(1, reg_covar=0.5)
    for _ in range(50):
        online.partial_fit(X)
    assert torch.allclose(online.covariances_[0], X.T.cov(correction=0) + 0.5 * torch.eye(2), rtol=1e-9)


def test_one_batch_moves_the_statistics_by_the_stated_share():
    online = GaussianMixture(1, reg_covar=0.0).partial_fit(X[:500]).partial_fit(X[500:], sample_weight=np.ones(500))
    share = 2 ** -0.6
    assert torch.allclose(online.means_[0], (1 - share) * X[:500].mean(0) + share * X[500:].mean(0))


# float32


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("unit", [1.0, 1e-25, 1e25])
def test_float32_stays_within_1e_4(kind, offset, unit):
    """Whatever the units: the squares of 1e25 and 1e-25 are beyond float32's range."""
    rng = np.random.default_rng(0)
    x = unit * (rng.normal(size=(3000, 12)) + 3 * rng.normal(size=(5, 12))[rng.integers(5, size=3000)] + offset)
    given = {"n_components": 5, "covariance_type": kind, "max_iter": 15, "tol": 0, "reg_covar": 0.0}
    single, double = GaussianMixture(dtype=torch.float32, **given).fit(x), GaussianMixture(**given).fit(x)
    assert torch.allclose(single.log_likelihood_, double.log_likelihood_, atol=1e-4)
    assert torch.allclose(torch.as_tensor(single.score_samples(x)), torch.as_tensor(double.score_samples(x)), atol=5e-3)
    assert single.means_.dtype == torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_the_cheapest_precision_that_keeps_its_digits_is_taken(kind):
    identity = {"full": torch.eye(2).expand(2, 2, 2), "diag": torch.ones(2, 2), "spherical": torch.ones(2),
                "tied": torch.eye(2)}[kind].double()
    points = Points(torch.randn(10, 2, dtype=torch.float64), device="cpu", dtype=torch.float32)
    for distance, expected in [(10.0, torch.float32), (1e3, torch.float64), (1e5, None)]:
        parameters = em.Parameters(torch.ones(2) / 2, torch.tensor([[0.0, 0.0], [distance, 0.0]]).double(), identity)
        assert em.expansion_dtype(points, parameters, kind, em.factorize(identity, kind)) == expected


def test_a_flat_component_is_whitened_even_at_the_origin():
    covariance = torch.tensor([[1.0, 1 - 1e-12], [1 - 1e-12, 1.0]], dtype=torch.float64)[None]
    parameters = em.Parameters(torch.ones(1), torch.zeros(1, 2).double(), covariance)
    points = Points(torch.randn(10, 2, dtype=torch.float64), device="cpu")
    assert em.expansion_dtype(points, parameters, "full", em.factorize(covariance, "full")) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nearly_singular_data_keep_their_likelihood(dtype):
    """Two features that differ by 1e-5: the likelihood is known from that of the sum and the difference."""
    rng = np.random.default_rng(0)
    base, thin = rng.normal(size=4000), 1e-5 * rng.normal(size=4000)
    x = np.c_[base, base + thin]
    expected = GaussianMixture(1, reg_covar=0, max_iter=1, tol=0).fit(np.c_[base, thin]).score(np.c_[base, thin])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = GaussianMixture(1, reg_covar=0, max_iter=3, tol=0, dtype=dtype).fit(x).score(x)
    assert found == pytest.approx(expected, abs=1e-4)


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="choose torch.float64 or torch.float32"):
        GaussianMixture(dtype=torch.float16).fit(X)

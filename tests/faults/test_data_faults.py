"""Degenerate data, and a machine without a network."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from gmvae_lib.data import TOYS
from gmvae_lib.mixture import GaussianMixture

KINDS = ("full", "diag", "spherical", "tied")


def finite(gmm, x):
    return (all(v.isfinite().all() for v in gmm._parameters()) and np.isfinite(gmm.score_samples(x)).all()
            and np.allclose(gmm.predict_proba(x).sum(1), 1))


DEGENERATE = {
    "two points": np.array([[0.0, 1.0], [2.0, -1.0]]),
    "a line": np.outer(np.linspace(-1, 1, 50), [1.0, 2.0]),
    "a collapsed pair": np.concatenate([np.random.default_rng(0).normal(size=(50, 2)), [[9.0, 9.0]] * 2]),
    "many duplicates": np.repeat(np.random.default_rng(0).normal(size=(5, 2)), 40, 0),
    "whole numbers": np.random.default_rng(0).integers(0, 3, size=(200, 2)).astype(float),
    "an outlier": np.concatenate([np.random.default_rng(0).normal(size=(50, 2)), [[1e8, -1e8]]]),
    "columns of unlike size": np.random.default_rng(0).normal(size=(100, 2)) * [1e-6, 1e6],
    "almost constant": np.random.default_rng(0).normal(size=(100, 2)) * [1.0, 1e-12] + [0.0, 1.0],
    "more columns than points": np.random.default_rng(0).normal(size=(10, 30)),
    "large numbers": np.random.default_rng(0).normal(size=(100, 2)) * 1e30,
    "tiny numbers": np.random.default_rng(0).normal(size=(100, 2)) * 1e-30,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_data_give_a_finite_fit_under_the_default_floor(case, kind):
    x = DEGENERATE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gmm = GaussianMixture(2, kind).fit(x)
    assert finite(gmm, x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_without_a_floor_they_give_a_finite_fit_or_name_the_cure(case, kind):
    x = DEGENERATE[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert finite(GaussianMixture(2, kind, reg_covar=0.0).fit(x), x)
        except ValueError as error:
            assert "raise reg_covar" in str(error)


def test_numbers_that_overflow_are_refused_with_a_cure():
    with pytest.raises(ValueError, match="squares of x leave float64's range: divide x by"):
        GaussianMixture(2).fit(1e200 * np.random.default_rng(0).normal(size=(50, 2)))


def test_points_far_outside_what_was_fitted_are_answered():
    gmm = GaussianMixture(2).fit(np.random.default_rng(0).normal(size=(100, 2)))
    far = torch.tensor([[1e12, -1e12], [1e100, 0.0]], dtype=torch.float64)
    assert gmm.score_samples(far).isfinite().all()
    assert torch.allclose(gmm.predict_proba(far).sum(1), torch.ones(2).double())


OFFLINE = """
import socket
import sys
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from gmvae_lib.data import TOYS, load
for name in ("digits", *TOYS):
    for split in ("train", "test", "all"):
        assert len(load(name, split)) > 0
assert "pooch" not in sys.modules  # it is only needed to fetch
print("loaded", len(TOYS) + 1)
"""


def test_everything_loads_without_a_network():
    result = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, env=os.environ)
    assert result.stdout == f"loaded {len(TOYS) + 1}\n", result.stderr

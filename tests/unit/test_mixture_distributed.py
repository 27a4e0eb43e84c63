"""EM over two processes, each with its share of the points or groups: the result of one process with all of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.mixture import COVARIANCE_TYPES as KINDS
from gmvae_lib.mixture import GaussianMixture

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
import torch
import torch.distributed as dist
from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture

dist.init_process_group("gloo")
found = {}
for what in ("points", "groups"):
    x = load("unequal", n_samples=900).x.double()
    x = x if what == "points" else x.reshape(300, 3, 2)
    cut = 250 if what == "points" else 90
    share = x[:cut] if dist.get_rank() == 0 else x[cut:]  # unequal shares
    for kind in ("full", "diag", "spherical", "tied"):
        gmm = GaussianMixture(3, kind, n_init=2, distributed=True, device="cpu")
        for name, fit in {"fit": lambda: gmm.fit(share, sample_weight=share.reshape(len(share), -1)[:, 0].abs()),
                          "fit_batches": lambda: gmm.fit_batches(list(share.split(70))),
                          "partial_fit": lambda: gmm.fit(share).partial_fit(share)}.items():
            fit()
            found[what, kind, name] = [gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_, gmm.n_iter_]
torch.save(found, f"{sys.argv[1]}/{dist.get_rank()}.pt")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The two processes' results."""
    tmp_path = tmp_path_factory.mktemp("distributed")
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
               tmp_path / "worker.py", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT,
                         env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("what", ["points", "groups"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_result_of_one(kind, what, found):
    x = load("unequal", n_samples=900).x.double()
    x = x if what == "points" else x.reshape(300, 3, 2)
    weights = x.reshape(len(x), -1)[:, 0].abs()
    gmm = GaussianMixture(3, kind, n_init=2, device="cpu")
    for name, fit in {"fit": lambda: gmm.fit(x, sample_weight=weights), "fit_batches": lambda: gmm.fit(x),
                      "partial_fit": lambda: gmm.fit(x).partial_fit(x)}.items():
        fit()
        *expected, n_iter = gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_, gmm.n_iter_
        for process in found:
            assert process[what, kind, name][-1] == n_iter
            for a, b in zip(process[what, kind, name], expected, strict=False):
                assert torch.allclose(a, b, rtol=1e-10, atol=1e-10), name


def test_without_a_process_group_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"init_process_group\(\) first; start the script with torchrun"):
        GaussianMixture(distributed=True).fit(torch.randn(10, 2))

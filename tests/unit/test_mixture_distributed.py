"""EM over two processes, each with its share of the data: the result of one process with all of them."""

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
x = load("unequal", n_samples=900).x.double()
share = x[:250] if dist.get_rank() == 0 else x[250:]  # unequal shares
found = {}
for kind in ("full", "diag", "spherical", "tied"):
    gmm = GaussianMixture(3, kind, n_init=2, distributed=True)
    for name, fit in {"fit": lambda: gmm.fit(share, sample_weight=share[:, 0].abs()),
                      "fit_batches": lambda: gmm.fit_batches(list(share.split(70))),
                      "partial_fit": lambda: gmm.fit(share).partial_fit(share)}.items():
        fit()
        found[kind, name] = [gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_, gmm.n_iter_]
torch.save(found, f"{sys.argv[1]}/{dist.get_rank()}.pt")
dist.destroy_process_group()
"""


def test_two_processes_give_the_result_of_one(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
               tmp_path / "worker.py", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT,
                         env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    x = load("unequal", n_samples=900).x.double()
    for kind in KINDS:
        gmm = GaussianMixture(3, kind, n_init=2)
        for name, fit in {"fit": lambda gmm=gmm: gmm.fit(x, sample_weight=x[:, 0].abs()),
                          "fit_batches": lambda gmm=gmm: gmm.fit(x),
                          "partial_fit": lambda gmm=gmm: gmm.fit(x).partial_fit(x)}.items():
            fit()
            *expected, n_iter = gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_, gmm.n_iter_
            for found in (first, second):
                assert found[kind, name][-1] == n_iter
                for a, b in zip(found[kind, name], expected, strict=False):
                    assert torch.allclose(a, b, rtol=1e-10, atol=1e-10), (kind, name)


def test_without_a_process_group_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"init_process_group\(\) first; start the script with torchrun"):
        GaussianMixture(distributed=True).fit(torch.randn(10, 2))

"""EM over two processes, each with its share of the points or groups: the result of one process with all of them."""

import pytest
import torch
import torch.distributed as dist

from gmvae_lib.data import load
from gmvae_lib.mixture import COVARIANCE_TYPES as KINDS
from gmvae_lib.mixture import GaussianMixture
from tests.unit import two_processes


def results(gmm):
    return [gmm.weights_, gmm.means_, gmm.covariances_, gmm.log_likelihood_, gmm.n_iter_]


def worker(folder):
    """What each of the two processes does."""
    dist.init_process_group("gloo")
    found = {}
    for what in ("points", "groups"):
        x = load("unequal", n_samples=900).x.double()
        x = x if what == "points" else x.reshape(300, 3, 2)
        cut = 250 if what == "points" else 90
        share = x[:cut] if dist.get_rank() == 0 else x[cut:]  # unequal shares
        for kind in KINDS:
            gmm = GaussianMixture(3, kind, n_init=2, distributed=True, device="cpu")
            found[what, kind, "fit"] = results(gmm.fit(share, sample_weight=share.reshape(len(share), -1)[:, 0].abs()))
            found[what, kind, "fit_batches"] = results(gmm.fit_batches(list(share.split(70))))
            found[what, kind, "partial_fit"] = results(gmm.fit(share).partial_fit(share))
    torch.save(found, folder / f"{dist.get_rank()}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The two processes' results."""
    folder = tmp_path_factory.mktemp("distributed")
    two_processes.run(worker, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


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
        *expected, n_iter = results(gmm)
        for process in found:
            assert process[what, kind, name][-1] == n_iter
            for a, b in zip(process[what, kind, name], expected, strict=False):
                assert torch.allclose(a, b, rtol=1e-10, atol=1e-10), name


def test_without_a_process_group_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"init_process_group\(\) first; start the script with torchrun"):
        GaussianMixture(distributed=True).fit(torch.randn(10, 2))

"""EM beside scikit-learn (and pomegranate, where it is installed): same data, same start, same number of steps."""

import subprocess
import sys
import warnings

import numpy as np
from sklearn.mixture import GaussianMixture as Reference
from threadpoolctl import threadpool_limits

from gmvae_lib.mixture import GaussianMixture
from tests.benchmarks.timing import alternate, line

SMALL = [(2_000, 2, 3), (1_500, 16, 10)]
LARGE = [(100_000, 2, 10), (100_000, 16, 16), (200_000, 32, 32), (50_000, 64, 10)]
ALL_KINDS = [(2_000, 2, 3), (1_500, 16, 10), (100_000, 16, 16)]


def problem(n, dim, k, kind, steps):
    """Data from a mixture, and settings for both estimators: a start near the truth, `steps` steps."""
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(k, dim))
    x = means[rng.integers(k, size=n)] + rng.normal(size=(n, dim))
    precisions = {"full": np.tile(np.eye(dim), (k, 1, 1)), "diag": np.ones((k, dim)), "spherical": np.ones(k),
                  "tied": np.eye(dim)}[kind]
    return x, {"n_components": k, "covariance_type": kind, "tol": 0.0, "max_iter": steps,
               "weights_init": np.full(k, 1 / k), "means_init": means + 0.3 * rng.normal(size=(k, dim)),
               "precisions_init": precisions}


def main(quick, threads, repeats):
    """Prints the table of times and log-likelihoods, then memory."""
    warnings.simplefilter("ignore")
    print("EM, float64, same start, same number of steps: milliseconds a step")
    line("(N, D, K), covariances", "ours", "scikit-learn", "ratio", "difference")
    with threadpool_limits(threads):
        for size in SMALL if quick else SMALL + LARGE:
            for kind in ("full", "diag", "spherical", "tied") if size in ALL_KINDS else ("full", "diag"):
                compare(size, kind, 20 if size in SMALL else 10, repeats if size in SMALL else min(repeats, 3))
        if not quick:
            beside_pomegranate(repeats)
    print("difference: of the mean log-likelihoods, relative.\n\nEM memory beyond the data, MiB")
    line("(N, D, K), covariances", "ours", "scikit-learn", "ratio", "data")
    for size in [(100_000, 8, 8)] if quick else [(1_000_000, 8, 8), (200_000, 32, 32)]:
        ours, theirs = memory(size, "ours", threads), memory(size, "theirs", threads)
        line(f"{size}, full", f"{ours:.0f}", f"{theirs:.0f}", f"{theirs / max(ours, 1):.1f}x",
             f"{size[0] * size[1] * 8 / 2**20:.0f}")
    print()


def compare(size, kind, steps, repeats):
    """One row: ours, scikit-learn's, and whether they say the same."""
    x, settings = problem(*size, kind, steps)
    ours, theirs = GaussianMixture(**settings), Reference(**settings)
    mine, others = alternate(lambda: ours.fit(x), lambda: theirs.fit(x), repeats=repeats)
    truth = theirs.score(x)
    line(f"{size}, {kind}", f"{1e3 * mine / steps:.2f}", f"{1e3 * others / steps:.2f}", f"{others / mine:.2f}x",
         f"{abs(ours.score(x) - truth) / abs(truth):.0e}")


def beside_pomegranate(repeats):
    """The same with pomegranate's mixture in place of scikit-learn's, in float32, its own type."""
    try:
        import torch
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel
    except ImportError:
        return
    size = (100_000, 16, 16)
    x, settings = problem(*size, "full", 10)
    data = torch.tensor(x, dtype=torch.float32)
    means = torch.tensor(settings["means_init"], dtype=torch.float32)

    def theirs():
        start = [Normal(mean, torch.eye(16), covariance_type="full") for mean in means]
        GeneralMixtureModel(start, priors=[1 / 16] * 16, max_iter=10, tol=-1).fit(data)

    mine, others = alternate(lambda: GaussianMixture(**settings).fit(x), theirs, repeats=min(repeats, 3))
    line(f"{size}, pomegranate", f"{100 * mine:.2f}", f"{100 * others:.2f}", f"{others / mine:.2f}x", "")


MEASURE = """
import resource, sys, threading, time, warnings
from threadpoolctl import threadpool_limits
warnings.simplefilter("ignore")
from tests.benchmarks.em import GaussianMixture, Reference, problem
size, which, threads = eval(sys.argv[1]), sys.argv[2], int(sys.argv[3])
x, settings = problem(*size, "full", 2)
model = (GaussianMixture if which == "ours" else Reference)(**settings)
small, settings = problem(1000, *size[1:], "full", 1)
model.__class__(**settings).fit(small)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = peak = resident()
done = False
def watch():
    global peak
    while not done:
        peak = max(peak, resident())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
with threadpool_limits(threads):
    model.fit(x)
done = True
thread.join()
print((peak - before) / 2**20)
"""


def memory(size, which, threads):
    """The peak resident memory, in MiB beyond the data, of a fit in its own process; NaN where it cannot be read."""
    result = subprocess.run([sys.executable, "-c", MEASURE, str(size), which, str(threads)], capture_output=True,
                            text=True)
    return float(result.stdout) if result.returncode == 0 else float("nan")

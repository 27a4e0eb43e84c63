"""EM beside scikit-learn and, where it is installed, pomegranate: same data, same start, same number of steps."""

import subprocess
import sys
import warnings

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as Reference
from threadpoolctl import threadpool_limits

from gmvae_lib.mixture import GaussianMixture
from tests.benchmarks.timing import alternate, line

try:
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel
except ImportError:
    Normal = None

SMALL = [(2_000, 2, 3), (1_500, 16, 10)]
LARGE = [(100_000, 2, 10), (100_000, 16, 16), (200_000, 32, 32), (50_000, 64, 10), (1_000_000, 8, 20)]
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


class Pomegranate:
    """pomegranate's mixture behind the same settings, in float32, its own type."""

    def __init__(self, n_components, covariance_type, max_iter, weights_init, means_init, precisions_init, tol):
        spread = torch.tensor(precisions_init, dtype=torch.float32)  # identities: their own inverses
        start = [Normal(torch.tensor(mean, dtype=torch.float32), cov.clone(), covariance_type=covariance_type)
                 for mean, cov in zip(means_init, spread, strict=True)]
        self.model = GeneralMixtureModel(start, priors=weights_init.astype(np.float32), max_iter=max_iter, tol=-np.inf)

    def fit(self, x):
        self.model.fit(torch.as_tensor(x, dtype=torch.float32))

    def score(self, x):
        return float(self.model.log_probability(torch.as_tensor(x, dtype=torch.float32)).double().mean())


def main(quick, threads, repeats):
    """Prints the table of times and log-likelihoods, then memory. Returns both as rows of numbers."""
    warnings.simplefilter("ignore")
    rows, peaks = [], []
    print("EM, same start, same number of steps: milliseconds a step; float64, but for float32 and pomegranate")
    line("(N, D, K), covariances", "ours", "float32", "scikit-learn", "pomegranate", "sk / ours", "pom / ours",
         "difference", "float32's")
    with threadpool_limits(threads):
        for size in SMALL if quick else SMALL + LARGE:
            for kind in ("full", "diag", "spherical", "tied") if size in ALL_KINDS else ("full", "diag"):
                steps = 20 if size in SMALL else 10
                rows.append(compare(size, kind, steps, repeats if size in SMALL else min(repeats, 3)))
    print("differences: of our mean log-likelihoods from scikit-learn's, relative.\n")
    print("EM memory beyond the data, MiB")
    line("(N, D, K), covariances", "ours", "scikit-learn", "pomegranate", "data", "64 + data/2")
    for size in [(100_000, 8, 8)] if quick else [(1_000_000, 8, 20), (200_000, 32, 32), (50_000, 64, 10)]:
        used = [memory(size, name, threads) for name in ("GaussianMixture", "Reference", "Pomegranate")]
        data = size[0] * size[1] * 8 / 2**20
        line(f"{size}, full", *(f"{value:.0f}" for value in used), f"{data:.0f}", f"{64 + data / 2:.0f}")
        peaks.append({"size": size, "ours": used[0], "peer": used[1], "bar": 64 + data / 2})
    print()
    return {"steps": rows, "memory": peaks}


def compare(size, kind, steps, repeats):
    """One row: what a step takes, in milliseconds, and whether the results are the same."""
    x, settings = problem(*size, kind, steps)
    models = [GaussianMixture(**settings), GaussianMixture(dtype=torch.float32, **settings), Reference(**settings)]
    rivals = [lambda model=model: model.fit(x) for model in models]
    if Normal and kind in ("full", "diag") and size in LARGE:
        rivals.append(lambda: Pomegranate(**settings).fit(x))
    seconds = alternate(*rivals, repeats=repeats)
    milliseconds = [f"{1e3 * value / steps:.2f}" for value in seconds] + ["-"] * (4 - len(seconds))
    truth = models[2].score(x)
    differences = [abs(model.score(x) - truth) / abs(truth) for model in models[:2]]
    line(f"{size}, {kind}", *milliseconds, f"{seconds[2] / seconds[0]:.2f}x",
         f"{seconds[3] / seconds[0]:.2f}x" if len(seconds) > 3 else "-", *(f"{value:.0e}" for value in differences))
    return {"size": size, "kind": kind, "ours": 1e3 * seconds[0] / steps, "peer": 1e3 * seconds[2] / steps,
            "difference": differences[0]}


MEASURE = """
import resource, sys, threading, time, warnings
from threadpoolctl import threadpool_limits
warnings.simplefilter("ignore")
from tests.benchmarks import em
size, which, threads = eval(sys.argv[1]), getattr(em, sys.argv[2]), int(sys.argv[3])
x, settings = em.problem(*size, "full", 2)
if sys.argv[2] == "Pomegranate":
    x = em.torch.as_tensor(x, dtype=em.torch.float32)
small, once = em.problem(1000, *size[1:], "full", 1)
which(**once).fit(small)
model = which(**settings)
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

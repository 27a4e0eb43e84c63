"""Is the start the bottleneck? EM from our starts beside scikit-learn's EM from k-means, over data sets and seeds."""

import statistics
import time
import warnings

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as Reference

from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture
from tests.benchmarks.timing import line

SEEDS = range(20)


def problems():
    """Name, data (N, D), K and covariance family of five problems, from separated clusters to none."""
    digits = load("digits").x.double().numpy()
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(20, 8))
    big = means[rng.integers(20, size=40_000)] + rng.normal(size=(40_000, 8))  # larger than the seeding's sample
    return [("cigars, K = 3, full", load("cigars", n_samples=2000).x.double().numpy(), 3, "full"),
            ("rings, K = 12, full", load("rings", n_samples=2000).x.double().numpy(), 12, "full"),
            ("digits in 10 PCA axes, K = 10, full", PCA(10).fit_transform(digits), 10, "full"),
            ("digits in 30 PCA axes, K = 10, diag", PCA(30).fit_transform(digits), 10, "diag"),
            ("40,000 points of 20 clusters, diag", big, 20, "diag")]


def main(quick, threads, repeats):
    """Prints, for each problem, the mean of the final log-likelihoods, their differences, and what a fit took.

    One thread serves all: the problems are small. Every seed counts, so nothing is repeated.
    """
    warnings.simplefilter("ignore")
    del threads, repeats
    print("Start: final log-likelihood (nats per point), mean over 20 seeds, and seconds a fit")
    line("", "scikit-learn", "k-means++", "k-means", "seconds", "k-means++", "k-means")
    for name, x, k, kind in problems():
        settings = {"n_components": k, "covariance_type": kind, "tol": 1e-5, "max_iter": 300, "reg_covar": 1e-4}
        models = [lambda seed, s=settings: Reference(random_state=seed, **s),
                  lambda seed, s=settings: GaussianMixture(seed=seed, **s),
                  lambda seed, s=settings: GaussianMixture(seed=seed, init="k-means", **s)]
        scores, seconds = [[], [], []], [0.0, 0.0, 0.0]
        for seed in SEEDS[:3] if quick else SEEDS:
            for i, model in enumerate(models):
                began = time.perf_counter()
                scores[i].append(model(seed).fit(x).score(x))
                seconds[i] += time.perf_counter() - began
        theirs = statistics.mean(scores[0])
        line(name, f"{theirs:.4f}", *(beside(ours, scores[0]) for ours in scores[1:]),
             *(f"{total / len(scores[0]):.2f}" for total in seconds))
    print("k-means++, k-means: ours beyond scikit-learn's, relative, ± its standard error; positive is better.\n")


def beside(ours, theirs):
    """The relative difference of the means, with its standard error, in per cent."""
    scale = 100 / abs(statistics.mean(theirs))
    error = ((statistics.variance(ours) + statistics.variance(theirs)) / len(ours)) ** 0.5
    return f"{scale * (statistics.mean(ours) - statistics.mean(theirs)):+.2f} ± {scale * error:.2f}"

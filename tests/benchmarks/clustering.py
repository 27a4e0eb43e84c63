"""Clusters of the digits without labels, five seeds, scored on held-out images: the recipe beside simpler methods.

    python -m tests.benchmarks.clustering [--seeds 5] [--threads 2]

Labels are used for nothing but the scores. "Chosen" is the run with the lowest training loss (for a mixture: with the
highest training log-likelihood; for k-means: with the lowest inertia).
"""

import argparse
import time
import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from gmvae_lib.clustering import cluster
from gmvae_lib.data import load
from gmvae_lib.evaluation import ari, clustering_accuracy, nmi
from gmvae_lib.mixture import GaussianMixture
from tests.benchmarks.timing import line

K = 10


def k_means(train, test, seed):
    """(clusters of the held-out images, loss)."""
    model = KMeans(K, n_init=10, random_state=seed).fit(train.x.numpy())
    return model.predict(test.x.numpy()), model.inertia_


def mixture(train, test, seed):
    """A diagonal mixture of the pixels that vary; noise of half a grey level keeps components from collapsing."""
    varies = train.x.std(0) > 0
    model = GaussianMixture(K, "diag", n_init=5, reg_covar=0.25, seed=seed).fit(train.x[:, varies])
    return model.predict(test.x[:, varies]), -model.lower_bound_


def pca_mixture(train, test, seed):
    """A full mixture of 16 principal components."""
    pca = PCA(16, random_state=seed).fit(train.x.numpy())
    model = GaussianMixture(K, "full", n_init=5, reg_covar=1.0, seed=seed).fit(pca.transform(train.x.numpy()))
    return model.predict(pca.transform(test.x.numpy())), -model.lower_bound_


def recipe(train, test, seed):
    """The recipe of chapter 9."""
    found = cluster(train, K, seed=seed, device="cpu", progress=False)
    return found.model.predict(test.x), found.loss


METHODS = {"k-means, pixels": k_means, "mixture, pixels": mixture, "mixture, 16 PCs": pca_mixture,
           "GMVAE on views": recipe}


def main(quick, threads, repeats):
    """Prints the table; `repeats` is the number of seeds."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    train, test = load("digits"), load("digits", "test")
    print("digits, K = 10, held-out images")
    line("method", "accuracy", "NMI", "ARI", "chosen", "seconds", "CPU seconds")
    for name, method in METHODS.items():
        rows = []
        for seed in range(1 if quick else repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            clusters, loss = method(train, test, seed)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            scores = [score(test.y, clusters) for score in (clustering_accuracy, nmi, ari)]
            rows.append([*scores, loss, wall, cpu])
            if method is recipe:
                line(f"  seed {seed}, loss {loss:.3f}", *(f"{value:.3f}" for value in rows[-1][:3]), "",
                     *(f"{value:.1f}" for value in rows[-1][4:]))
        rows = np.array(rows)
        spread = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in zip(rows.mean(0)[:3], rows.std(0)[:3], strict=True)]
        line(name, *spread, f"{rows[rows[:, 3].argmin(), 0]:.3f}", *(f"{value:.1f}" for value in rows.mean(0)[4:]))
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(False, options.threads, options.seeds)

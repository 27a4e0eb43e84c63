"""How good is it? Clustering scores against labels, and likelihoods of held-out data.

Labels serve for scoring only: nothing here chooses or trains a model.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from gmvae_lib.gaussian import log_prob_diag, sample_diag

# SciPy and scikit-learn are imported by the functions that need them: with them a process, such as each of many that
# train one model, takes nearly twice as long to start.


def match_clusters(y, clusters):
    """The one-to-one assignment of clusters to classes with the most points in agreement (Kuhn, 1955).

    y, clusters: (N,) integers. Returns a dict from cluster to class; clusters in excess of the classes are left out.
    """
    from scipy.optimize import linear_sum_assignment

    y, clusters = _labels(y, clusters)
    classes, found = np.unique(y), np.unique(clusters)
    counts = (clusters[:, None, None] == found[:, None]) & (y[:, None, None] == classes)
    rows, columns = linear_sum_assignment(counts.sum(0), maximize=True)
    return {int(found[i]): int(classes[j]) for i, j in zip(rows, columns, strict=True)}


def clustering_accuracy(y, clusters):
    """The share of points whose cluster is matched with their class, one to one. Eq. (9.1). Yang et al. (2010)."""
    y, clusters = _labels(y, clusters)
    matched = match_clusters(y, clusters)
    return float(np.mean([matched.get(int(c), None) == int(t) for c, t in zip(clusters, y, strict=True)]))


def confusion(y, clusters):
    """Counts (classes, clusters), with the columns in the order of the classes they are matched with."""
    y, clusters = _labels(y, clusters)
    matched = match_clusters(y, clusters)
    order = sorted(np.unique(clusters).tolist(), key=lambda c: (matched.get(c, math.inf), c))
    return np.array([[np.sum((y == t) & (clusters == c)) for c in order] for t in np.unique(y)])


def nmi(y, clusters):
    """Normalized mutual information, 0 to 1. Eq. (9.2)."""
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_labels(y, clusters)))


def ari(y, clusters):
    """Adjusted Rand index: 0 for chance, 1 for identical partitions. Eq. (3.25)."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_labels(y, clusters)))


def purity(y, clusters):
    """The share of points that belong to their cluster's commonest class: 0 to 1. It rises with the number of clusters,
    to 1 for N of them: never to be compared with an accuracy. Eq. (9.19)."""
    return float(confusion(y, clusters).max(0).sum() / len(y))


def homogeneity(y, clusters):
    """1 - H(class | cluster) / H(class), 0 to 1; like purity, it is 1 for N clusters. Eq. (9.20). Source: Rosenberg &
    Hirschberg (2007)."""
    from sklearn.metrics import homogeneity_score

    return float(homogeneity_score(*_labels(y, clusters)))


@torch.no_grad()
def mean_elbo(model, x, n_samples=16, beta=1.0, method="collapsed", seed=0):
    """The ELBO's parts on x (N, D), averaged over points and over `n_samples` draws of z.

    Returns (distortion, rate), two floats in nats per point.
    """
    x = model.check(x)
    generator = torch.Generator(x.device).manual_seed(seed)
    draws = [model.elbo(x, beta, method, generator, validate=False) for _ in range(n_samples)]
    return tuple(float(torch.stack([getattr(draw, part) for draw in draws]).mean()) for part in ("distortion", "rate"))


@torch.no_grad()
def log_likelihood(model, x, n_samples=100, beta=None, seed=0, chunk=50_000, widen=1.0):
    """The importance-weighted bound log 1/S sum_s p(x, z_s) / q(z_s | x), (N,), in nats: it rises to log p(x) with S.
    Eq. (5.24). For groups (N, V, D) it is that of the V views together.

    chunk: how many z are decoded at once; widen: by how much the encoder's standard deviations are multiplied to make
    the q that z is drawn from. Above 1 the bound is often tighter: Eq. (11.6).
    Source: Burda, Grosse & Salakhutdinov (2016).
    """
    x = model.check(x)
    generator = torch.Generator(x.device).manual_seed(seed)
    gate = () if beta is None else (beta,)
    mean, log_var = model.encode(x, beta)
    log_var = log_var + 2 * math.log(widen)
    step = max(1, chunk // len(x))
    parts = []
    for start in range(0, n_samples, step):
        size = (min(step, n_samples - start), *mean.shape)
        z = sample_diag(mean.expand(size), log_var.expand(size), generator)
        flat = z.flatten(0, 1)
        given_z = model.likelihood.log_prob(x, model.decoder(flat, *gate).reshape(size[0], *x.shape))
        log_q = log_prob_diag(z, mean, log_var)
        given_z, log_q = (value.reshape(*size[:2], -1).sum(2) for value in (given_z, log_q))  # a group's views together
        log_weight = given_z + model.prior.log_prob(flat).reshape(size[:2]) - log_q
        parts.append(torch.logsumexp(log_weight, 0))
    return torch.logsumexp(torch.stack(parts), 0) - math.log(n_samples)


@torch.no_grad()
def aggregate_log_prob(model, x, z, beta=None, chunk=500_000):
    """log q(z) of the aggregate posterior of x (N, D), q(z) = 1/N sum_n q(z | x_n), at z (M, d): (M,), in nats.
    Eq. (7.3).

    chunk: how many numbers the table of (z, x_n, dimension) may hold at once.
    """
    mean, log_var = model.encode(model.check(x), beta)
    rows, log_q = max(1, chunk // mean.numel()), z.new_empty(len(z))
    for part, place in zip(z.split(rows), log_q.split(rows), strict=True):
        place[:] = torch.logsumexp(log_prob_diag(part.unsqueeze(1), mean, log_var), 1)
    return log_q - math.log(len(mean))


class Surgery(NamedTuple):
    """The rate's two parts, in nats per point, each with its Monte Carlo standard error. Eq. (7.4)."""

    information: float
    marginal_kl: float
    information_error: float
    marginal_kl_error: float


@torch.no_grad()
def elbo_surgery(model, x, n_samples=16, beta=None, seed=0):
    """Splits the mean rate on x (N, D) into the mutual information of a point's index and its z, and the KL divergence
    from the aggregate posterior to the prior: a `Surgery`.

    The aggregate posterior sums over all of x, so the information is at most log N; the two parts use draws of their
    own, `n_samples` a point. Source: Hoffman & Johnson (2016).
    """
    x = model.check(x)
    generator = torch.Generator(x.device).manual_seed(seed)
    mean, log_var = model.encode(x, beta)
    parts = torch.empty(2, n_samples, dtype=torch.float64)  # of each pass over x
    for s in range(n_samples):
        z, other = (sample_diag(mean, log_var, generator) for _ in range(2))
        information = log_prob_diag(z, mean, log_var) - aggregate_log_prob(model, x, z, beta)
        marginal_kl = aggregate_log_prob(model, x, other, beta) - model.prior.log_prob(other)
        parts[:, s] = torch.stack([information.mean(), marginal_kl.mean()])
    return Surgery(*parts.mean(1).tolist(), *(parts.std(1) / math.sqrt(n_samples)).tolist())


class RateDistortion(NamedTuple):
    """Where a model stands at each beta (B,): distortions and rates (B,), in nats per point, and numbers of active
    units (B,)."""

    beta: torch.Tensor
    distortion: torch.Tensor
    rate: torch.Tensor
    active: torch.Tensor

    @property
    def objective(self):
        """distortion + beta * rate, (B,). Eq. (6.7)."""
        return self.distortion + self.beta * self.rate


def rate_distortion(model, x, betas, n_samples=16, method="collapsed", seed=0):
    """The curve of a network gated by beta, on x (N, D): a `RateDistortion` for `betas` (B,).

    Raises ValueError for a network without gates, which has but one point: `mean_elbo` gives it.
    """
    if not model.gated:
        raise ValueError("This network is not gated by beta, and has one point only: see mean_elbo.")
    betas = torch.as_tensor(betas, dtype=torch.get_default_dtype())
    points = [mean_elbo(model, x, n_samples, beta, method, seed) for beta in betas.tolist()]
    active = [int(active_units(model, x, beta).sum()) for beta in betas.tolist()]
    return RateDistortion(betas, *torch.tensor(points).T, torch.tensor(active))


@torch.no_grad()
def active_units(model, x, beta=None, threshold=0.01):
    """Which latent dimensions carry information: variance of the encoder's mean over x above `threshold`; (d,) bools.

    Source: Burda, Grosse & Salakhutdinov (2016).
    """
    return model.encode(model.check(x), beta)[0].var(0) > threshold


def _labels(y, clusters):
    y, clusters = (v.numpy(force=True) if isinstance(v, torch.Tensor) else np.asarray(v) for v in (y, clusters))
    if y.ndim != 1 or len(y) == 0 or y.shape != clusters.shape:
        raise ValueError(f"labels have shape {y.shape} and clusters {clusters.shape}: expected two (N,) arrays of one "
                         "length, label i beside cluster i of the same point.")
    return y, clusters

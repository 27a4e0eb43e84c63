"""Expectation–maximization (EM) for Gaussian mixtures, as two matrix products over sufficient statistics.

The logarithm of pi_k N(x | mu_k, Sigma_k) is linear in the features phi(x) = (products x_i x_j, x, 1). The E-step is
therefore one matrix product, and the M-step, which needs only the responsibility-weighted sums of phi(x), is another
(chapter 2). Data are centered, and swept in chunks that fit the processor's cache, so memory does not grow with N.
Where a component is so tight, or so far out, that the expanded square would lose digits, whitened differences
x - mu_k take its place: slower, but exact. Sources: Dempster, Laird & Rubin (1977); Bishop (2006), chapter 9.

`kind` is the covariance family throughout: "full", "diag", "spherical" or "tied".
"""

import math
import warnings
from typing import NamedTuple

import torch

from gmvae_lib.data import check_array, pick_device
from gmvae_lib.gaussian import LOG_2PI, cholesky

CHUNK_BYTES = 2**20  # one chunk's features: small enough to stay in a core's second-level cache
MAX_ROUNDING = 1e-8  # nats: where the expanded square could err by more, whitened differences are used
SEEDING_POINTS = 20_000  # k-means++ looks at no more points than this


class Parameters(NamedTuple):
    """A mixture: weights (K,), means (K, D) and covariances, shaped by their family:
    full (K, D, D), diag (K, D), spherical (K,), tied (D, D)."""

    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor


class Statistics(NamedTuple):
    """All that the M-step needs. With y = x - reference_k: counts (K,) = sum_n r_nk, first (K, D) = sum_n r_nk y,
    second = sum_n r_nk y yᵀ, as far as the family uses it (diag: squares; spherical: |y|²; tied: summed over k)."""

    counts: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    reference: torch.Tensor


class Points:
    """Centered data, served as float64 chunks of shape (D, n): one column a point."""

    def __init__(self, x, device=None, center=None):
        self.x, self.device = x, pick_device(device, float64=True)
        center = x.mean(0, dtype=torch.float64) if center is None else center
        self.center = center.to(self.device)

    def chunks(self, n_features):
        """Yields the chunks, sized so that `n_features` numbers a point stay in the cache."""
        size = max(256, CHUNK_BYTES // (8 * n_features)) if self.device.type == "cpu" else 2**18
        for part in self.x.split(size):
            yield part.to(self.device, torch.float64).T.contiguous().sub_(self.center[:, None])

    def shift(self, parameters, sign):
        """The same mixture in the data's own coordinates (sign = +1) or in the centered ones (sign = -1)."""
        weights, means, covariances = (value.to(self.device) for value in parameters)
        return Parameters(weights, means + sign * self.center, covariances)


def em_step(x, parameters, kind="full", reg_covar=1e-6):
    """One E-step and one M-step on x (N, D).

    Returns the new `Parameters` and the mean log-likelihood (nats per point) of the old ones.
    """
    points = Points(check_array(x))
    updated, log_likelihood = step(points, points.shift(parameters, -1), kind, reg_covar)
    return Parameters(*(value.cpu() for value in points.shift(updated, +1))), log_likelihood


def step(points, parameters, kind, reg_covar):
    """`em_step` in centered coordinates, by whichever route keeps its digits."""
    origin = torch.zeros_like(parameters.means)
    expand = rounding(parameters, origin, kind) <= MAX_ROUNDING
    statistics, log_likelihood = expectation(points, parameters, kind, origin if expand else parameters.means, expand)
    updated = maximization(statistics, kind, reg_covar, parameters)
    if rounding(updated, statistics.reference, kind) > MAX_ROUNDING:
        statistics, log_likelihood = expectation(points, parameters, kind, updated.means, expand=False)
        updated = maximization(statistics, kind, reg_covar, parameters)
    scale(updated.covariances, kind)  # raises where a component has collapsed
    return updated, log_likelihood


def rounding(parameters, reference, kind):
    """A bound on the nats that y yᵀ - delta deltaᵀ loses to cancellation; infinite for a singular covariance."""
    try:
        factors = scale(parameters.covariances, kind)
    except ValueError:
        return math.inf
    dim = parameters.means.shape[1]
    if kind in ("full", "tied"):
        identity = torch.eye(dim, dtype=factors.dtype, device=factors.device)
        precision = torch.linalg.solve_triangular(factors, identity, upper=False).square().sum((-1, -2))
    else:
        precision = factors.reshape(len(factors), -1).pow(-2).amax(1)
    distance = (parameters.means - reference).square().sum(1)
    return float((precision * distance).max()) * torch.finfo(factors.dtype).eps


def scale(covariances, kind):
    """Cholesky factors (full, tied) or standard deviations (diag, spherical); ValueError where not positive."""
    if kind in ("full", "tied"):
        return cholesky(covariances)
    failed = (~(covariances > 0)).reshape(len(covariances), -1).any(1).nonzero().ravel().tolist()
    if failed:
        raise ValueError(f"The variance of component {failed} is not positive: raise reg_covar.")
    return covariances.sqrt()


def inverse(precisions, kind):
    """Covariances from precisions (or the other way round), both shaped by their family."""
    factors = scale(precisions, kind)
    return torch.cholesky_inverse(factors) if kind in ("full", "tied") else factors.pow(-2)


def natural_parameters(parameters, kind):
    """theta (K, F) with log pi_k N(x | mu_k, Sigma_k) = theta_k · phi(x). Eq. (2.24).

    For "tied" the quadratic term, the same for all k, is left out of theta.
    """
    weights, means, covariances = parameters
    factors, (n_components, dim) = scale(covariances, kind), means.shape
    if kind in ("full", "tied"):
        precision = torch.cholesky_inverse(factors)
        linear = means @ precision if kind == "tied" else (precision @ means.unsqueeze(-1)).squeeze(-1)
        log_det = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        precision = factors.reshape(n_components, -1).pow(-2)
        linear = means * precision
        log_det = factors.reshape(n_components, -1).log().expand(n_components, dim).sum(1)
    if kind == "full":
        i, j = torch.triu_indices(dim, dim)
        quadratic = precision[:, i, j] * torch.where(i == j, -0.5, -1.0).to(precision)
    else:
        quadratic = means.new_empty(n_components, 0) if kind == "tied" else -0.5 * precision
    constant = weights.log() - 0.5 * (dim * LOG_2PI + (means * linear).sum(1)) - log_det
    return torch.cat([quadratic, linear, constant.unsqueeze(1)], dim=1)


def features(chunk, kind):
    """phi (F, n) of a chunk (D, n): products, then the point itself, then 1."""
    dim, n = chunk.shape
    n_quadratic = {"full": dim * (dim + 1) // 2, "diag": dim, "spherical": 1, "tied": 0}[kind]
    phi = chunk.new_empty(n_quadratic + dim + 1, n)
    if kind == "full":
        row = 0
        for i in range(dim):
            torch.mul(chunk[i:], chunk[i], out=phi[row:row + dim - i])
            row += dim - i
    elif kind == "diag":
        torch.mul(chunk, chunk, out=phi[:dim])
    elif kind == "spherical":
        torch.sum(chunk * chunk, 0, out=phi[0])
    phi[n_quadratic:-1] = chunk
    phi[-1] = 1
    return phi


def n_features(dim, n_components, kind):
    """Numbers that the sweep holds for each point."""
    return {"full": dim * (dim + 1) // 2, "diag": dim, "spherical": 1, "tied": 0}[kind] + 2 * dim + 1 + n_components


def log_joint(points, parameters, kind, expand=None):
    """Yields (chunk (D, n), phi (F, n) or None, log pi_k N(x_n | mu_k, Sigma_k) as (K, n)), chunk by chunk."""
    if expand is None:
        expand = rounding(parameters, torch.zeros_like(parameters.means), kind) <= MAX_ROUNDING
    n_components, dim = parameters.means.shape
    factors = scale(parameters.covariances, kind)
    theta = natural_parameters(parameters, kind)
    for chunk in points.chunks(n_features(dim, n_components, kind)):
        if expand:
            phi = features(chunk, kind)
            joint = theta @ phi
            if kind == "tied":
                joint -= 0.5 * torch.linalg.solve_triangular(factors, chunk, upper=False).square_().sum(0)
            yield chunk, phi, joint
        else:
            yield chunk, None, _whitened_log_joint(chunk, parameters, factors, kind)


def _whitened_log_joint(chunk, parameters, factors, kind):
    weights, means, _ = parameters
    dim, n = chunk.shape
    joint = chunk.new_empty(len(means), n)
    for k, mean in enumerate(means):
        y = chunk - mean[:, None]
        if kind in ("full", "tied"):
            factor = factors if kind == "tied" else factors[k]
            y = torch.linalg.solve_triangular(factor, y, upper=False)
            log_det = factor.diagonal().log().sum()
        else:
            factor = factors[k].expand(dim)
            y, log_det = y / factor[:, None], factor.log().sum()
        joint[k] = weights[k].log() - 0.5 * (dim * LOG_2PI + y.square_().sum(0)) - log_det
    return joint


def normalize(joint):
    """Turns log-joints (K, n) into responsibilities, in place; returns log p(x) (n,). Eq. (2.5)."""
    peak = joint.amax(0)
    total = joint.sub_(peak).exp_().sum(0)
    joint.div_(total)
    return total.log_().add_(peak)


def expectation(points, parameters, kind, reference, expand):
    """The E-step over all chunks: `Statistics` about `reference` (K, D), and the mean log-likelihood."""
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    sums = None
    for chunk, phi, resp in log_joint(points, parameters, kind, expand):
        total += normalize(resp).sum()
        if expand:
            part = resp @ phi.T
            part = (part[:, -1], part[:, -1 - len(chunk):-1],
                    chunk @ chunk.T if kind == "tied" else part[:, :-1 - len(chunk)])
        else:
            part = weighted_sums(chunk, resp, reference, kind)
        sums = part if sums is None else tuple(a + b for a, b in zip(sums, part, strict=True))
    counts, first, second = sums
    if expand and kind == "full":
        second = _unpack(second, first.shape[1])
    elif kind == "spherical":
        second = second.reshape(-1)
    return Statistics(counts, first, second, reference), float(total) / len(points.x)


def weighted_sums(chunk, resp, reference, kind):
    """The statistics of one chunk about each component's reference point."""
    first, second = [], []
    for r, center in zip(resp, reference, strict=True):
        y = chunk - center[:, None]
        weighted = r * y
        first.append(weighted.sum(1))
        second.append(weighted @ y.T if kind in ("full", "tied") else (weighted * y).sum(1))
    second = torch.stack(second)
    if kind in ("tied", "spherical"):
        second = second.sum(0) if kind == "tied" else second.sum(1)
    return resp.sum(1), torch.stack(first), second


def _unpack(products, dim):
    """Sums of x_i x_j for i <= j, (K, D(D+1)/2), as symmetric matrices (K, D, D)."""
    i, j = torch.triu_indices(dim, dim)
    matrices = products.new_empty(len(products), dim, dim)
    matrices[:, i, j] = products
    matrices[:, j, i] = products
    return matrices


def maximization(statistics, kind, reg_covar=0.0, previous=None):
    """The M-step: weights, means and covariances that maximize the bound. Eqs. (2.12), (2.15), (2.20).

    A component without any data keeps its mean and covariance from `previous`, with weight 0, and a warning.
    """
    counts, first, second, reference = statistics
    dead = counts < 1e-100
    safe = torch.where(dead, 1.0, counts)
    delta = first / safe.unsqueeze(1)
    dim = first.shape[1]
    if kind == "full":
        covariances = second / safe[:, None, None] - delta.unsqueeze(2) * delta.unsqueeze(1)
    elif kind == "diag":
        covariances = second / safe.unsqueeze(1) - delta.square()
    elif kind == "spherical":
        covariances = (second / safe - delta.square().sum(1)) / dim
    else:
        covariances = (second - (first.T @ delta)) / counts.sum()
    if kind in ("full", "tied"):
        covariances.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
    else:
        covariances += reg_covar
    means = reference + delta
    if dead.any():
        warnings.warn(f"Component {dead.nonzero().ravel().tolist()} claims no data: it keeps its place with weight "
                      "0. Start it elsewhere, or lower n_components.", RuntimeWarning, stacklevel=2)
        if kind != "tied":
            pooled = previous.covariances if previous else covariances[~dead].mean(0).expand_as(covariances)
            covariances = torch.where(dead.reshape(-1, *[1] * (covariances.ndim - 1)), pooled, covariances)
        means = torch.where(dead.unsqueeze(1), previous.means if previous else reference, means)
    return Parameters(counts / counts.sum(), means, covariances)


def seed_means(points, n_components, init, generator):
    """K starting means (K, D), centered: data points drawn at random, or spread out by greedy k-means++
    (Arthur & Vassilvitskii, 2007), on at most `SEEDING_POINTS` of the points."""
    order = torch.randperm(len(points.x), generator=generator)[:SEEDING_POINTS].to(points.x.device)
    sample = points.x[order].to(points.device, torch.float64) - points.center
    if init == "random":
        return sample[:n_components]
    means, distance = sample[:1], (sample - sample[0]).square().sum(1)
    for _ in range(n_components - 1):
        if not distance.any():
            raise ValueError(f"x has only {len(means)} distinct points: lower n_components to that.")
        n_draws = 2 + int(math.log(n_components))
        draws = torch.multinomial(distance.cpu(), n_draws, replacement=True, generator=generator)
        candidates = sample[draws.to(sample.device)]
        rivals = torch.minimum(distance, torch.cdist(candidates, sample).square())
        best = rivals.sum(1).argmin()
        means, distance = torch.cat([means, candidates[best:best + 1]]), rivals[best]
    return means


def partition_statistics(points, means, kind):
    """Statistics in which each point belongs to its nearest mean alone: k-means' E-step."""
    sums = None
    for chunk in points.chunks(2 * means.numel() // len(means) + len(means)):
        nearest = (means.square().sum(1, keepdim=True) - 2 * means @ chunk).argmin(0)
        resp = torch.nn.functional.one_hot(nearest, len(means)).T.to(chunk)
        part = weighted_sums(chunk, resp, means, kind)
        sums = part if sums is None else tuple(a + b for a, b in zip(sums, part, strict=True))
    return Statistics(*sums, means)

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
from contextlib import contextmanager
from typing import NamedTuple

import torch

from gmvae_lib.data import check_array, pick_device
from gmvae_lib.gaussian import LOG_2PI, cholesky

CHUNK_BYTES = 2**23  # one chunk's features: small enough for the cache, large enough to share among cores (measured)
SMALL_BYTES = 2**23  # all points' features: below this, handing work to other cores takes longer than doing it
DEVICE_CHUNK_BYTES = 2**28  # the same on a GPU, where larger products pay
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


class Factors(NamedTuple):
    """What a sweep needs of the covariances, computed once: `root`, their Cholesky factors (full, tied) or standard
    deviations (diag, spherical), and `precision`, their inverses, in the same shape."""

    root: torch.Tensor
    precision: torch.Tensor


class Points:
    """Centered data, served as float64 chunks of shape (D, n): one column a point."""

    def __init__(self, x, device=None, center=None):
        self.device = pick_device(device, float64=True)
        x = x.detach()
        self.x = x.cpu() if x.device.type == "mps" else x  # which has no float64
        center = self.x.mean(0, dtype=torch.float64) if center is None else center
        self.center = center.to(self.device)

    def chunks(self, n_features):
        """Yields the chunks, sized so that `n_features` numbers a point stay in the cache."""
        budget = CHUNK_BYTES if self.device.type == "cpu" else DEVICE_CHUNK_BYTES
        for part in self.x.split(max(256, budget // (8 * n_features))):
            chunk = torch.empty(part.shape[::-1], dtype=torch.float64, device=self.device)
            yield torch.sub(part.to(self.device, torch.float64).T, self.center[:, None], out=chunk)

    def shift(self, parameters, sign):
        """The same mixture in the data's own coordinates (sign = +1) or in the centered ones (sign = -1)."""
        weights, means, covariances = (value.to(self.device) for value in parameters)
        return Parameters(weights, means + sign * self.center, covariances)


@contextmanager
def suitable_threads(x, n_components, kind):
    """One thread while the data x (N, D) are small, all of PyTorch's otherwise."""
    threads = torch.get_num_threads()
    if 8 * len(x) * n_features(x.shape[1], n_components, kind) < SMALL_BYTES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def em_step(x, parameters, kind="full", reg_covar=1e-6):
    """One E-step and one M-step on x (N, D).

    Returns the new `Parameters` and the mean log-likelihood (nats per point) of the old ones.
    """
    points, start = Points(check_array(x)), Parameters(*parameters)
    updated, _, log_likelihood = step(points, points.shift(start, -1), kind, reg_covar)
    return Parameters(*(value.cpu() for value in points.shift(updated, +1))), log_likelihood


def step(points, parameters, kind, reg_covar, factors=None):
    """`em_step` in centered coordinates, by whichever route keeps its digits.

    The fast route expands squares about the origin, Eqs. (2.31)–(2.33). Where that would lose digits, before the step
    or after it, the sums are taken of differences from the means: from the old ones, or, once known, from the new.
    Returns the new parameters, their `Factors` (for the next step), and the mean log-likelihood of the old parameters.
    Raises ValueError where a component has collapsed.
    """
    factors = factors or factorize(parameters.covariances, kind)
    origin = torch.zeros_like(parameters.means)
    expand = rounding(parameters, origin, kind, factors) <= MAX_ROUNDING
    reference = origin if expand else parameters.means
    statistics, log_likelihood = expectation(points, parameters, kind, reference, expand, factors)
    updated = maximization(statistics, kind, reg_covar, parameters)
    try:
        updated_factors = factorize(updated.covariances, kind)
        exact = rounding(updated, reference, kind, updated_factors) <= MAX_ROUNDING
    except ValueError:  # singular: in truth, or for want of digits
        exact = False
    if not exact:
        statistics, log_likelihood = expectation(points, parameters, kind, updated.means, False, factors)
        updated = maximization(statistics, kind, reg_covar, parameters)
        updated_factors = factorize(updated.covariances, kind)
    return updated, updated_factors, log_likelihood


def factorize(covariances, kind, hint="raise reg_covar"):
    """The `Factors` of covariances shaped by their family; ValueError where one is not positive definite."""
    root = scale(covariances, kind, hint)
    return Factors(root, torch.cholesky_inverse(root) if kind in ("full", "tied") else root.pow(-2))


def rounding(parameters, reference, kind, factors=None):
    """About how many nats expanding about `reference`, instead of about each mean, loses to cancellation: the square
    (mu - reference)ᵀ precision (mu - reference), bounded by the precision's trace, times the rounding of one number.
    """
    precision = (factors or factorize(parameters.covariances, kind)).precision
    if kind in ("full", "tied"):
        largest = precision.diagonal(dim1=-2, dim2=-1).sum(-1)
    else:
        largest = precision.reshape(len(precision), -1).amax(1)
    distance = (parameters.means - reference).square().sum(1)
    return float((largest * distance).max()) * torch.finfo(distance.dtype).eps


def scale(covariances, kind, hint="raise reg_covar"):
    """Cholesky factors (full, tied) or standard deviations (diag, spherical); ValueError where not positive."""
    if kind in ("full", "tied"):
        return cholesky(covariances, hint)
    if not (covariances > 0).all():
        failed = (~(covariances > 0)).reshape(len(covariances), -1).any(1).nonzero().ravel().tolist()
        raise ValueError(f"The variance of component {failed} is not positive: {hint}.")
    return covariances.sqrt()


def natural_parameters(parameters, kind, factors=None):
    """theta (K, F) with log pi_k N(x | mu_k, Sigma_k) = theta_k · phi(x). Eqs. (2.30) and (2.31).

    For "tied" the quadratic term, the same for all k, is left out of theta.
    """
    weights, means, covariances = parameters
    n_components, dim = means.shape
    root, precision = factors or factorize(covariances, kind)
    if kind in ("full", "tied"):
        linear = means @ precision if kind == "tied" else (precision @ means.unsqueeze(-1)).squeeze(-1)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    else:
        precision = precision.reshape(n_components, -1)
        linear = means * precision
        log_det = root.reshape(n_components, -1).log().expand(n_components, dim).sum(1)
    if kind == "full":
        i, j = torch.triu_indices(dim, dim)
        quadratic = precision[:, i, j] * torch.where(i == j, -0.5, -1.0).to(precision)
    else:
        quadratic = means.new_empty(n_components, 0) if kind == "tied" else -0.5 * precision
    constant = weights.log() - 0.5 * (dim * LOG_2PI + (means * linear).sum(1)) - log_det
    return torch.cat([quadratic, linear, constant.unsqueeze(1)], dim=1)


def features(chunk, kind):
    """phi (F, n) of a chunk (D, n), one column a point: products, then the point itself, then 1. Eq. (2.30)."""
    dim, n = chunk.shape
    n_quadratic = _n_quadratic(dim, kind)
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
    return _n_quadratic(dim, kind) + 2 * dim + 1 + n_components


def _n_quadratic(dim, kind):
    """How many products of coordinates phi(x) holds."""
    return {"full": dim * (dim + 1) // 2, "diag": dim, "spherical": 1, "tied": 0}[kind]


def log_joint(points, parameters, kind, expand=None, factors=None):
    """Yields (chunk (D, n), phi (F, n) or None, log pi_k N(x_n | mu_k, Sigma_k) as (K, n)), chunk by chunk.

    expand: Eq. (2.30) if True, Eq. (2.2) if False; by default whichever keeps its digits.
    """
    factors = factors or factorize(parameters.covariances, kind)
    if expand is None:
        expand = rounding(parameters, torch.zeros_like(parameters.means), kind, factors) <= MAX_ROUNDING
    n_components, dim = parameters.means.shape
    theta = natural_parameters(parameters, kind, factors) if expand else None
    for chunk in points.chunks(n_features(dim, n_components, kind)):
        if expand:
            phi = features(chunk, kind)
            joint = theta @ phi
            if kind == "tied":
                joint -= 0.5 * torch.linalg.solve_triangular(factors.root, chunk, upper=False).square_().sum(0)
            yield chunk, phi, joint
        else:
            yield chunk, None, _whitened_log_joint(chunk, parameters, factors.root, kind)


def _whitened_log_joint(chunk, parameters, root, kind):
    """log pi_k N(x_n | mu_k, Sigma_k), (K, n), component by component. Eq. (2.2)."""
    weights, means, _ = parameters
    dim, n = chunk.shape
    joint = chunk.new_empty(len(means), n)
    for k, mean in enumerate(means):
        y = chunk - mean[:, None]
        if kind in ("full", "tied"):
            factor = root if kind == "tied" else root[k]
            y = torch.linalg.solve_triangular(factor, y, upper=False)
            log_det = factor.diagonal().log().sum()
        else:
            factor = root[k].expand(dim)
            y, log_det = y / factor[:, None], factor.log().sum()
        joint[k] = weights[k].log() - 0.5 * (dim * LOG_2PI + y.square_().sum(0)) - log_det
    return joint


def normalize(joint):
    """Turns log-joints (K, n) into responsibilities, in place; returns log p(x) (n,). Eqs. (2.4), (2.5)."""
    peak = joint.amax(0)
    total = joint.sub_(peak).exp_().sum(0)
    joint.div_(total)
    return total.log_().add_(peak)


def expectation(points, parameters, kind, reference, expand, factors=None):
    """The E-step over all chunks: `Statistics` about `reference` (K, D), and the mean log-likelihood.

    With `expand` the sums are the product Eq. (2.32), and `reference` must be the origin.
    """
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    sums = None
    for chunk, phi, resp in log_joint(points, parameters, kind, expand, factors):
        total += normalize(resp).sum()  # from here on, resp holds responsibilities
        if expand:
            part = resp @ phi.T  # Eq. (2.32)
            part = (part[:, -1], part[:, -1 - len(chunk):-1],  # phi's rows: products, x, 1
                    chunk @ chunk.T if kind == "tied" else part[:, :-1 - len(chunk)])
        else:
            part = weighted_sums(chunk, resp, reference, kind)
        sums = _add(sums, part)
    counts, first, second = sums
    if expand and kind == "full":
        second = _unpack(second, first.shape[1])
    elif kind == "spherical":
        second = second.reshape(-1)
    return Statistics(counts, first, second, reference), float(total) / len(points.x)


def mean_log_prob(points, parameters, kind, factors=None):
    """The mean of log p(x) over all points, in nats."""
    sweep = log_joint(points, parameters, kind, factors=factors)
    return sum(float(normalize(joint).sum()) for _, _, joint in sweep) / len(points.x)


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


def _add(sums, part):
    """The running sums with one chunk's added; `sums` is None before the first."""
    return part if sums is None else tuple(a + b for a, b in zip(sums, part, strict=True))


def _unpack(products, dim):
    """Sums of x_i x_j for i <= j, (K, D(D+1)/2), as symmetric matrices (K, D, D)."""
    i, j = torch.triu_indices(dim, dim)
    matrices = products.new_empty(len(products), dim, dim)
    matrices[:, i, j] = products
    matrices[:, j, i] = products
    return matrices


def maximization(statistics, kind, reg_covar=0.0, previous=None):
    """The M-step: weights, means and covariances that maximize the bound. Eqs. (2.17), (2.20), (2.24)–(2.28), (2.33).

    With delta = mu_k - reference_k, the covariance is second / N_k - delta deltaᵀ: Eq. (2.33) for y = x - reference_k.

    A component without any data keeps its mean and covariance from `previous`, with weight 0, and a warning. (Without
    `previous`, it gets its reference point, and the average covariance of the others.)
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
    if not distance.isfinite().all():
        raise ValueError("The squares of x overflow: divide x by its largest absolute value first.")
    for _ in range(n_components - 1):
        if not distance.any():
            raise ValueError(f"x has only {len(means)} distinct points: lower n_components to that.")
        n_draws = 2 + int(math.log(n_components))
        draws = torch.multinomial(distance.cpu(), n_draws, replacement=True, generator=generator)
        candidates = sample[draws.to(sample.device)]
        exact = torch.cdist(candidates, sample, compute_mode="donot_use_mm_for_euclid_dist")  # 0 between equals
        rivals = torch.minimum(distance, exact.square())
        best = rivals.sum(1).argmin()
        means, distance = torch.cat([means, candidates[best:best + 1]]), rivals[best]
    return means


def partition_statistics(points, means, kind):
    """Statistics in which each point belongs to its nearest mean alone: k-means' E-step."""
    sums = None
    for chunk in points.chunks(2 * means.shape[1] + len(means)):
        nearest = (means.square().sum(1, keepdim=True) - 2 * means @ chunk).argmin(0)  # |x|² is the same for all
        resp = torch.nn.functional.one_hot(nearest, len(means)).T.to(chunk)
        part = weighted_sums(chunk, resp, means, kind)
        sums = _add(sums, part)
    return Statistics(*sums, means)

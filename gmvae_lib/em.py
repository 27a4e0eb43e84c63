"""Expectation–maximization (EM) for Gaussian mixtures, as two matrix products over sufficient statistics.

The logarithm of pi_k N(x | mu_k, Sigma_k) is linear in the features phi(x) = (products x_i x_j, x, 1). The E-step is
therefore one matrix product, and the M-step, which needs only the responsibility-weighted sums of phi(x), is another
(chapter 2). Data come centered and in chunks (`points`). Where a component is so tight, so far out or so flat that the
expanded square would lose digits, whitened differences x - mu_k take its place: slower, but exact.
Sources: Dempster, Laird & Rubin (1977); Bishop (2006), chapter 9.

`kind` is the covariance family throughout: "full", "diag", "spherical" or "tied".
"""

import warnings
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch

from gmvae_lib.data import check_array
from gmvae_lib.gaussian import LOG_2PI, cholesky
from gmvae_lib.points import Points

SMALL_BYTES = 2**23  # all points' features: below this, handing work to other cores takes longer than doing it
MAX_ROUNDING = {torch.float64: 1e-7, torch.float32: 1e-3}  # nats a point: what expanding the square may lose
BLOCK = 4  # rows whose products with all later ones are formed at once: fewer, larger operations (measured)


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


@contextmanager
def suitable_threads(points, n_components, kind):
    """One thread while the data are small, all of PyTorch's otherwise."""
    threads = torch.get_num_threads()
    if 8 * points.n * n_features(points.dim, n_components, kind) < SMALL_BYTES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def em_step(x, parameters, kind="full", reg_covar=1e-6):
    """One E-step and one M-step on x (N, D).

    Returns the new `Parameters` and the mean log-likelihood (nats per point) of the old ones.
    """
    points = Points(check_array(x))
    start = to_frame(points, Parameters(*parameters))
    updated, _, log_likelihood = step(points, start, kind, reg_covar / points.scale**2)
    return Parameters(*(value.cpu() for value in from_frame(points, updated))), log_likelihood


def to_frame(points, parameters):
    """The same mixture in the centered and scaled coordinates of `points`."""
    weights, means, covariances = (value.to(points.device) for value in parameters)
    return Parameters(weights, (means - points.center) / points.scale, covariances / points.scale**2)


def from_frame(points, parameters):
    """The inverse of `to_frame`."""
    weights, means, covariances = parameters
    return Parameters(weights, means * points.scale + points.center, covariances * points.scale**2)


def step(points, parameters, kind, reg_covar, factors=None):
    """`em_step` in the frame of `points`. Returns (new parameters, their `Factors`, log-likelihood of the old ones).

    Sums are taken about the origin, Eqs. (2.24)–(2.26), in the cheapest precision that keeps their digits; where none
    does, about the old means; and once more about the new means, should these turn out too tight for the first sums.
    Raises ValueError where a component has collapsed.
    """
    factors = factors or factorize(parameters.covariances, kind)
    dtype = expansion_dtype(points, parameters, kind, factors)
    reference = torch.zeros_like(parameters.means) if dtype else parameters.means
    statistics, log_likelihood = expectation(points, parameters, kind, reference, dtype, factors)
    updated = maximization(statistics, kind, reg_covar, parameters)
    try:
        new_factors = factorize(updated.covariances, kind)
        exact = rounding(updated.means - reference, new_factors, kind) <= limit(dtype or torch.float64)
    except ValueError:  # singular: in truth, or for want of digits
        exact = False
    if not exact:
        statistics, log_likelihood = expectation(points, parameters, kind, updated.means, None, factors)
        updated = maximization(statistics, kind, reg_covar, parameters)
        new_factors = factorize(updated.covariances, kind)
    return updated, new_factors, log_likelihood


def factorize(covariances, kind, hint="raise reg_covar"):
    """The `Factors` of covariances shaped by their family; ValueError where one is not positive definite."""
    root = scale(covariances, kind, hint)
    return Factors(root, torch.cholesky_inverse(root) if kind in ("full", "tied") else root.pow(-2))


def expansion_dtype(points, parameters, kind, factors):
    """The cheapest type in which expanding the square keeps its digits; None where only whitening does."""
    variances = parameters.covariances
    if kind in ("full", "tied"):
        variances = variances.diagonal(dim1=-2, dim2=-1)
    elif kind == "spherical":
        variances = variances.unsqueeze(1)
    size = parameters.means.abs() + variances.sqrt()  # of the coordinates of the points of component k
    lost = rounding(size, factors, kind)
    return next((dtype for dtype in (points.dtype, torch.float64) if lost <= limit(dtype)), None)


def rounding(x, factors, kind):
    """How many times the rounding of one number the square xᵀ Sigma_k⁻¹ x loses when it is multiplied out, x (K, D):
    |x|ᵀ |Sigma_k⁻¹| |x|, the largest over k. No change of units alters it. Source: Higham (2002), section 3.1."""
    x, precision = x.abs(), factors.precision.abs()
    if kind in ("full", "tied"):
        return float((x * (precision @ x.unsqueeze(-1)).squeeze(-1)).sum(1).max())
    return float((x.square() * precision.reshape(len(x), -1)).sum(1).max())


def limit(dtype):
    """The `rounding` that costs MAX_ROUNDING nats in this type."""
    return MAX_ROUNDING[dtype] / torch.finfo(dtype).eps


def scale(covariances, kind, hint="raise reg_covar"):
    """Cholesky factors (full, tied) or standard deviations (diag, spherical); ValueError where not positive."""
    if kind in ("full", "tied"):
        return cholesky(covariances, hint)
    if not (covariances > 0).all():
        failed = (~(covariances > 0)).reshape(len(covariances), -1).any(1).nonzero().ravel().tolist()
        raise ValueError(f"The variance of component {failed} is not positive: {hint}.")
    return covariances.sqrt()


def natural_parameters(parameters, kind, factors=None):
    """theta (K, F) with log pi_k N(x | mu_k, Sigma_k) = theta_k · phi(x). Eqs. (2.23) and (2.24).

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
        i, j = _products(dim)
        both = i // BLOCK == j // BLOCK  # x_i x_j and x_j x_i are both there, and share their coefficient
        quadratic = precision[:, i, j] * torch.where(both, -0.5, -1.0).to(precision)
    else:
        quadratic = means.new_empty(n_components, 0) if kind == "tied" else -0.5 * precision
    constant = weights.log() - 0.5 * (dim * LOG_2PI + (means * linear).sum(1)) - log_det
    return torch.cat([quadratic, linear, constant.unsqueeze(1)], dim=1)


def features(chunk, kind, out=None):
    """phi (F, n) of a chunk (D, n), one column a point: products, then the point itself, then 1. Eq. (2.23)."""
    dim, n = chunk.shape
    n_quadratic = _n_quadratic(dim, kind)
    phi = chunk.new_empty(n_quadratic + dim + 1, n) if out is None else out
    if kind == "full":
        row = 0
        for i in range(0, dim, BLOCK):
            block = chunk[i:i + BLOCK, None]
            rows = len(block) * (dim - i)
            torch.mul(block, chunk[i:], out=phi[row:row + rows].unflatten(0, (len(block), dim - i)))
            row += rows
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
    return {"full": len(_products(dim)[0]) if kind == "full" else 0, "diag": dim, "spherical": 1, "tied": 0}[kind]


@cache
def _products(dim):
    """The pairs (i, j) of phi's products x_i x_j: for each block of rows i, all columns j from the block's first."""
    i, j = torch.arange(dim)[:, None], torch.arange(dim)
    return (j >= i - i % BLOCK).nonzero().T


def log_joint(points, parameters, kind, factors=None, dtype="cheapest"):
    """Yields (chunk (D, n), its weights (n,) or None, phi (F, n) or None, log pi_k N(x_n | mu_k, Sigma_k) as (K, n)).

    dtype: the type in which to expand the square, Eq. (2.23); None to whiten, Eq. (1.4), which is done in float64;
        by default the cheapest that keeps its digits. All are overwritten by the next chunk's.
    """
    factors = factors or factorize(parameters.covariances, kind)
    if dtype == "cheapest":
        dtype = expansion_dtype(points, parameters, kind, factors)
    n_components, dim = parameters.means.shape
    room = n_features(dim, n_components, kind)
    if dtype is None:
        for chunk, weights in points.chunks(room):
            yield chunk, weights, None, _whitened_log_joint(chunk, parameters, factors.root, kind) - points.log_volume
        return
    theta, root = natural_parameters(parameters, kind, factors), factors.root.to(dtype)
    theta[:, -1] -= points.log_volume
    theta, buffer = theta.to(dtype), None
    for chunk, weights in points.chunks(room, dtype):
        n = chunk.shape[1]
        if buffer is None or n > buffer.shape[1]:
            buffer = chunk.new_empty(theta.shape[1] + n_components, n)
        phi = features(chunk, kind, out=buffer[:theta.shape[1], :n])
        joint = torch.mm(theta, phi, out=buffer[theta.shape[1]:, :n])
        if kind == "tied":
            joint -= 0.5 * torch.linalg.solve_triangular(root, chunk, upper=False).square_().sum(0)
        yield chunk, weights, phi, joint


def _whitened_log_joint(chunk, parameters, root, kind):
    """log pi_k N(x_n | mu_k, Sigma_k), (K, n), component by component. Eq. (1.4)."""
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
    """Turns log-joints (K, n) into responsibilities, in place; returns log p(x) (n,). Eqs. (1.14) and (1.17)."""
    peak = joint.amax(0)
    total = joint.sub_(peak).exp_().sum(0)
    joint.div_(total)
    return total.log_().add_(peak)


def expectation(points, parameters, kind, reference, dtype=None, factors=None):
    """The E-step over all chunks: `Statistics` about `reference` (K, D), and the mean log-likelihood.

    With a `dtype` the sums are the product Eq. (2.25), in that type, and `reference` must be the origin.
    """
    sums, total = None, torch.zeros((), dtype=torch.float64, device=points.device)
    for chunk, weights, phi, resp in log_joint(points, parameters, kind, factors, dtype):
        total += weighted_total(normalize(resp), weights)  # from here on, resp holds responsibilities
        if weights is not None:
            resp *= weights
        if dtype:
            part = resp @ phi.T  # Eq. (2.25)
            part = (part[:, -1], part[:, -1 - len(chunk):-1],  # phi's rows: products, x, 1
                    _scatter(chunk, weights) if kind == "tied" else part[:, :-1 - len(chunk)])
        else:
            part = weighted_sums(chunk, resp, reference, kind)
        sums = accumulate(sums, part)
    *sums, total = points.total(*sums, total)
    counts, first, second = sums
    if dtype and kind == "full":
        second = _unpack(second, first.shape[1])
    elif kind == "spherical":
        second = second.reshape(-1)
    return Statistics(counts, first, second, reference), float(total) / points.weight


def mean_log_prob(points, parameters, kind, factors=None):
    """The mean of log p(x) over all points, in nats."""
    total = torch.zeros((), dtype=torch.float64, device=points.device)
    for _, weights, _, joint in log_joint(points, parameters, kind, factors):
        total += weighted_total(normalize(joint), weights)
    return float(points.total(total)[0]) / points.weight


def weighted_total(values, weights):
    """The sum of values (n,), each times its weight if there are weights."""
    return (values if weights is None else values * weights).sum(dtype=torch.float64)


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


def _scatter(chunk, weights):
    """The sum of x xᵀ over a chunk, each point times its weight if there are weights."""
    return (chunk if weights is None else chunk * weights) @ chunk.T


def accumulate(sums, part):
    """The running sums, in float64, with one chunk's added, Eq. (2.27); `sums` is None before the first."""
    part = tuple(value.double() for value in part)
    return part if sums is None else tuple(a + b for a, b in zip(sums, part, strict=True))


def _unpack(products, dim):
    """Sums of the products x_i x_j, (K, F), as symmetric matrices (K, D, D)."""
    i, j = _products(dim)
    matrices = products.new_empty(len(products), dim, dim)
    matrices[:, j, i] = products
    matrices[:, i, j] = products
    return matrices


def collapsed(covariances, kind, reg_covar):
    """The numbers of the components that have no variance in some direction, but for `reg_covar` or for rounding; for
    "tied", [0] stands for all."""
    variances = torch.linalg.eigvalsh(covariances) if kind in ("full", "tied") else covariances
    variances = variances.reshape(1 if kind == "tied" else len(covariances), -1)
    rounding = variances.shape[1] * torch.finfo(variances.dtype).eps * variances.amax(1)
    return (variances.amin(1) < 1.01 * reg_covar + rounding).nonzero().ravel().tolist()


def statistics_of(parameters, kind, reg_covar=0.0):
    """The `Statistics` about the means, of total weight 1, from which `maximization` makes these parameters."""
    weights, means, covariances = parameters
    variances = covariances.clone()
    if kind in ("full", "tied"):
        variances.diagonal(dim1=-2, dim2=-1).sub_(reg_covar)
    else:
        variances -= reg_covar
    if kind == "spherical":
        variances *= means.shape[1]
    share = 1 if kind == "tied" else weights.reshape(-1, *[1] * (variances.ndim - 1))
    return Statistics(weights, torch.zeros_like(means), share * variances, means)


def maximization(statistics, kind, reg_covar=0.0, previous=None):
    """The M-step: weights, means and covariances that maximize the bound. Eqs. (2.11), (2.14), (2.18)–(2.21), (2.28).

    With delta = mu_k - reference_k, the covariance is second / N_k - delta deltaᵀ: Eq. (2.28) with a = reference_k.

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

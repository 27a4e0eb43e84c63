"""Expectation–maximization (EM) for Gaussian mixtures, as two matrix products over sufficient statistics.

The E-step multiplies features by natural parameters, the M-step responsibilities by features (`families`, chapter 2).
Data come centered and in chunks (`points`). Where a component is so tight, so far out or so flat that the expanded
square would lose digits, whitened differences x - mu_k take its place: slower, but exact.
The views of a point share its component: their features are summed, and all the rest stays as it is (chapter 9).
Sources: Dempster, Laird & Rubin (1977); Bishop (2006), chapter 9.
"""

import math

import torch

from gmvae_lib.data import check_array
from gmvae_lib.families import (
    Parameters,
    Statistics,
    factorize,
    features,
    maximization,
    n_features,
    natural_parameters,
    rounding,
    unpack,
    variances,
)
from gmvae_lib.gaussian import LOG_2PI
from gmvae_lib.points import Points
from gmvae_lib.speed import at_most_threads

SMALL_BYTES = 2**23  # all points' features: below this, handing work to other cores takes longer than doing it
KEPT_BYTES = 2**27  # groups' summed features: up to this, they are kept from sweep to sweep
MAX_ROUNDING = {torch.float64: 1e-7, torch.float32: 1e-3}  # nats a point: what expanding the square may lose


def suitable_threads(points, n_components, kind):
    """One thread while the data are small, all of PyTorch's otherwise: a context."""
    size = 8 * points.n * n_features(points.dim, n_components, kind)  # of groups, it is their sums that count
    return at_most_threads(1 if size < SMALL_BYTES else math.inf)


def em_step(x, parameters, kind="full", reg_covar=1e-6):
    """One E-step and one M-step on x (N, D), or on groups (N, V, D).

    Returns the new `Parameters` and the mean log-likelihood (nats per point) of the old ones.
    """
    points = Points(check_array(x, views=True))
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


def expansion_dtype(points, parameters, kind, factors):
    """The cheapest type in which expanding the square keeps its digits; None where only whitening does."""
    size = parameters.means.abs() + variances(parameters.covariances, kind).sqrt()  # of component k's coordinates
    lost = rounding(size, factors, kind)
    return next((dtype for dtype in (points.dtype, torch.float64) if lost <= limit(dtype)), None)


def limit(dtype):
    """The `rounding` that costs MAX_ROUNDING nats in this type."""
    return MAX_ROUNDING[dtype] / torch.finfo(dtype).eps


def log_joint(points, parameters, kind, factors=None, dtype="cheapest"):
    """Yields (chunk (D, n), its weights (n,) or None, phi (F, n) or None, log pi_k N(x_n | mu_k, Sigma_k) as (K, n)).

    With V views, chunk is (D, V n) or None where it is not needed again, phi the sum over views, and the last
    log pi_k + sum_v log N(x_nv | mu_k, Sigma_k).
    dtype: the type in which to expand the square, Eq. (2.23); None to whiten, Eq. (1.4), which is done in float64;
        by default the cheapest that keeps its digits. All are overwritten by the next chunk's.
    """
    factors = factors or factorize(parameters.covariances, kind)
    if dtype == "cheapest":
        dtype = expansion_dtype(points, parameters, kind, factors)
    n_components, dim = parameters.means.shape
    room = n_features(dim, n_components, kind)
    parameters = parameters._replace(weights=parameters.weights ** (1 / points.views))  # each view brings its share
    if dtype is None:
        for chunk, weights in points.chunks(room):
            joint = _whitened_log_joint(chunk, parameters, factors.root, kind) - points.log_volume
            yield chunk, weights, None, points.sum_views(joint)
        return
    theta, root = natural_parameters(parameters, kind, factors), factors.root.to(dtype)
    theta[:, -1] -= points.log_volume
    theta, buffer = theta.to(dtype), None
    for chunk, weights, phi in _summed_features(points, kind, dtype, room, theta.shape[1]):
        n = phi.shape[1]
        if buffer is None or n > buffer.shape[1]:
            buffer = phi.new_empty(n_components, n)
        joint = torch.mm(theta, phi, out=buffer[:, :n])
        if kind == "tied":
            distance = torch.linalg.solve_triangular(root, chunk, upper=False).square_().sum(0)
            joint -= 0.5 * points.sum_views(distance)
        yield chunk, weights, phi, joint


def _summed_features(points, kind, dtype, room, n_rows):
    """Yields (chunk (D, V n), its weights (n,) or None, phi (F, n)), F = n_rows, summed over the views of each point.

    Of groups, these sums are all that EM needs, so that they are kept for the next sweep if there is room.
    """
    if (kind, dtype) in points.kept:
        yield from points.kept[kind, dtype]
        return
    keep = points.views > 1 and kind != "tied" and dtype.itemsize * n_rows * points.n <= KEPT_BYTES
    kept, buffer = [], None
    for chunk, weights in points.chunks(room, dtype):
        n = chunk.shape[1]
        if buffer is None or n > buffer.shape[1]:
            buffer = chunk.new_empty(n_rows, n)
        phi = points.sum_views(features(chunk, kind, out=buffer[:, :n]))
        if keep:
            kept.append((None, weights, phi))
        yield chunk, weights, phi
    if keep:
        points.kept[kind, dtype] = kept


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
    """The E-step over all chunks: `Statistics` about `reference` (K, D), and the mean log-likelihood of a point.

    A point counts once for each of its views.

    With a `dtype` the sums are the product Eq. (2.25), in that type, and `reference` must be the origin.
    """
    sums, total = None, torch.zeros((), dtype=torch.float64, device=points.device)
    for chunk, weights, phi, resp in log_joint(points, parameters, kind, factors, dtype):
        total += weighted_total(normalize(resp), weights)  # from here on, resp holds responsibilities
        if weights is not None:
            resp *= weights
        if dtype:
            part = resp @ phi.T  # Eq. (2.25)
            dim = points.dim
            part = (part[:, -1], part[:, -1 - dim:-1],  # phi's rows: products, x, 1
                    _scatter(chunk, None if weights is None else points.to_views(weights)) if kind == "tied" else
                    part[:, :-1 - dim])
        else:
            part = weighted_sums(chunk, points.to_views(resp), reference, kind)
        sums = accumulate(sums, part)
    *sums, total = points.total(*sums, total)
    counts, first, second = sums
    if dtype and kind == "full":
        second = unpack(second, first.shape[1])
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

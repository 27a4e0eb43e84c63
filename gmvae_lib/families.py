"""The four covariance families of a Gaussian mixture: parameters, sufficient statistics, and the maps between them.

The logarithm of pi_k N(x | mu_k, Sigma_k) is linear in the features phi(x) = (products x_i x_j, x, 1): the coefficients
are the natural parameters, and the sums of responsibilities times features are all that the M-step needs (chapter 2).
Source: Bishop (2006), sections 2.4 and 9.2.

`kind` is the family throughout: "full", "diag", "spherical" or "tied".
"""

import warnings
from functools import cache
from typing import NamedTuple

import torch

from gmvae_lib.gaussian import LOG_2PI, cholesky

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


def factorize(covariances, kind, hint="raise reg_covar"):
    """The `Factors` of covariances shaped by their family; ValueError where one is not positive definite."""
    root = scale(covariances, kind, hint)
    return Factors(root, torch.cholesky_inverse(root) if kind in ("full", "tied") else root.pow(-2))


def scale(covariances, kind, hint="raise reg_covar"):
    """Cholesky factors (full, tied) or standard deviations (diag, spherical); ValueError where not positive."""
    if kind in ("full", "tied"):
        return cholesky(covariances, hint)
    if not (covariances > 0).all():
        failed = (~(covariances > 0)).reshape(len(covariances), -1).any(1).nonzero().ravel().tolist()
        raise ValueError(f"The variance of component {failed} is not positive: {hint}.")
    return covariances.sqrt()


def variances(covariances, kind):
    """The variance of each coordinate, (K, D), or fewer rows or columns where these are all the same."""
    if kind in ("full", "tied"):
        return covariances.diagonal(dim1=-2, dim2=-1)
    return covariances.unsqueeze(1) if kind == "spherical" else covariances


def rounding(x, factors, kind):
    """How many times the rounding of one number the square xᵀ Sigma_k⁻¹ x loses when it is multiplied out, x (K, D):
    |x|ᵀ |Sigma_k⁻¹| |x|, the largest over k. No change of units alters it. Source: Higham (2002), section 3.1."""
    x, precision = x.abs(), factors.precision.abs()
    if kind in ("full", "tied"):
        return float((x * (precision @ x.unsqueeze(-1)).squeeze(-1)).sum(1).max())
    return float((x.square() * precision.reshape(len(x), -1)).sum(1).max())


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


def unpack(products, dim):
    """Sums of the products x_i x_j, (K, F), as symmetric matrices (K, D, D)."""
    i, j = _products(dim)
    matrices = products.new_empty(len(products), dim, dim)
    matrices[:, j, i] = products
    matrices[:, i, j] = products
    return matrices


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


def collapsed(covariances, kind, reg_covar):
    """The numbers of the components that have no variance in some direction, but for `reg_covar` or for rounding; for
    "tied", [0] stands for all."""
    variances = torch.linalg.eigvalsh(covariances) if kind in ("full", "tied") else covariances
    variances = variances.reshape(1 if kind == "tied" else len(covariances), -1)
    rounding = variances.shape[1] * torch.finfo(variances.dtype).eps * variances.amax(1)
    return (variances.amin(1) < 1.01 * reg_covar + rounding).nonzero().ravel().tolist()

"""Log-densities, entropies and Kullback–Leibler (KL) divergences of Gaussians, in nats.

The only place where these formulas stand. The last axis of every argument is the dimension D. A diagonal covariance is
given by `log_var` (..., D), the logarithm of the variances, and the axes before D broadcast; a full one by `scale_tril`
(D, D), its lower Cholesky factor L with Sigma = L Lᵀ, or by K of them. Source: Bishop (2006), section 2.3.
"""

import math

import torch

LOG_2PI = math.log(2 * math.pi)


def cholesky(covariances, hint="raise reg_covar"):
    """Lower Cholesky factors of one covariance (D, D) or of several (K, D, D).

    Raises ValueError, naming the component, where a matrix is not positive definite or holds NaN.
    """
    factors, info = torch.linalg.cholesky_ex(covariances)
    if info.any() or not factors.isfinite().all():
        failed = ((info != 0) | ~factors.isfinite().all(-1).all(-1)).reshape(-1).nonzero().ravel().tolist()
        raise ValueError(f"The covariance of component {failed} is not positive definite: {hint}.")
    return factors


def log_prob_diag(x, mean, log_var):
    """log N(x | mean, diag(exp(log_var))), summed over the last axis, in nats. Eqs. (1.7), (5.6)."""
    return -0.5 * (LOG_2PI + log_var + (x - mean).square() * (-log_var).exp()).sum(-1)


def log_prob_full(x, mean, scale_tril):
    """log N(x | mean, L Lᵀ) for points x (N, D), in nats: (N,). Eq. (1.4).

    For one Gaussian, mean is (D,) and L = scale_tril (D, D); for K of them, (K, D) and (K, D, D) give (K, N).
    """
    y = (x - mean.unsqueeze(-2)).mT
    white = torch.linalg.solve_triangular(scale_tril, y, upper=False)
    return -0.5 * (x.shape[-1] * LOG_2PI + white.square().sum(-2)) - _half_log_det(scale_tril).unsqueeze(-1)


def entropy_diag(log_var):
    """Entropy of N(·, diag(exp(log_var))), in nats, summed over the last axis. Eqs. (4.8) and (8.7)."""
    return 0.5 * (1 + LOG_2PI + log_var).sum(-1)


def kl_standard(mean, log_var):
    """KL(N(mean, diag(exp(log_var))) ‖ N(0, I)), in nats, summed over the last axis. Eqs. (4.10) and (5.11).

    Source: Kingma & Welling (2014), appendix B.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(-1)


def kl_diag(mean, log_var, mean_p, log_var_p):
    """KL between two diagonal Gaussians, q = (mean, log_var) against p, in nats. Eqs. (4.10) and (8.12)."""
    distance = (mean - mean_p).square() + log_var.exp()
    return 0.5 * (log_var_p - log_var + distance * (-log_var_p).exp() - 1).sum(-1)


def kl_diag_full(mean, log_var, mean_p, scale_tril_p):
    """KL of N diagonal Gaussians, `mean` and `log_var` (N, D), to N(mean_p, L Lᵀ), in nats: (N,). Eq. (4.9).

    mean_p (D,) and L = scale_tril_p (D, D) give one p; (K, D) and (K, D, D) give K of them, and KLs (K, N).
    """
    identity = torch.eye(mean.shape[-1], dtype=scale_tril_p.dtype, device=scale_tril_p.device)
    whitener = torch.linalg.solve_triangular(scale_tril_p, identity, upper=False)
    distance = ((mean - mean_p.unsqueeze(-2)) @ whitener.mT).square().sum(-1)
    trace = (whitener.square().sum(-2, keepdim=True) @ log_var.exp().mT).squeeze(-2)
    return _half_log_det(scale_tril_p).unsqueeze(-1) + 0.5 * (distance + trace - (1 + log_var).sum(-1))


def floored(log_scale, floor):
    """log_scale, raised to `floor` where it is below; gradients pass, so that what has sunk below can rise again."""
    return log_scale + (floor - log_scale).clamp_min(0).detach()


def sample_diag(mean, log_var, generator=None):
    """One reparameterized draw mean + sigma * eps a row, through which gradients flow. Eqs. (4.25) and (5.7)."""
    eps = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + (0.5 * log_var).exp() * eps


def _half_log_det(scale_tril):
    return scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

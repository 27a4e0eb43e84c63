"""Chapter 04's exercises: divergences and posteriors of Gaussians, baselines, quadrature, and a case for the score."""

import math

import torch

from gmvae_lib.exercises import Exercise

LOG_2PI = math.log(2 * math.pi)


def _double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _covariance(dim, seed):
    root = _double(dim, dim + 2, seed=seed)
    return root @ root.T / dim


def _two_gaussians():
    return [(_double(d, seed=1), _covariance(d, 2), _double(d, seed=3), _covariance(d, 4)) for d in (2, 3, 5)]


def _kl(m, V, mu, Sigma, trace=1.0, dim=None, logs=1.0, distance=1.0, half=0.5):
    off = mu - m
    dim = len(m) if dim is None else dim
    return half * (trace * torch.linalg.solve(Sigma, V).trace() + distance * off @ torch.linalg.solve(Sigma, off) - dim
                   + logs * (Sigma.logdet() - V.logdet()))


def _kl_without_inverse(m, V, mu, Sigma):
    return _kl(m, V, mu, Sigma, distance=0) + 0.5 * (m - mu).square().sum()


def _linear_models():
    return [(_double(6, 4, seed=s), _double(4, d, seed=s + 1), _double(4, seed=s + 2), sigma2, tau2)
            for s, d, sigma2, tau2 in ((0, 2, 0.3, 1.0), (5, 2, 0.5, 2.5), (9, 3, 1.7, 0.4))]


def _posterior(x, W, b, sigma2, tau2, noise=None, prior=None):
    noise, prior = noise or sigma2, 1 / tau2 if prior is None else prior
    precision = W.T @ W / noise + prior * torch.eye(W.shape[1], dtype=W.dtype)
    means = torch.linalg.solve(precision, W.T @ (x - b).T / noise).T
    return means, torch.linalg.inv(precision)


def _posterior_uncentered(x, W, b, sigma2, tau2):
    return _posterior(x, W, torch.zeros_like(b), sigma2, tau2)


def _posterior_unscaled(x, W, b, sigma2, tau2):
    M = W.T @ W + sigma2 / tau2 * torch.eye(W.shape[1], dtype=W.dtype)
    return torch.linalg.solve(M, W.T @ (x - b).T).T, torch.linalg.inv(M)


def _posterior_precision(x, W, b, sigma2, tau2):
    means, covariance = _posterior(x, W, b, sigma2, tau2)
    return means, torch.linalg.inv(covariance)


def _variances(Sigma):
    return 1 / torch.linalg.inv(Sigma).diagonal(), Sigma.diagonal()


def _draws():
    return [(_double(s, seed=s) + 4, _double(s, p, seed=s + 1)) for s, p in ((5, 1), (2, 3), (40, 2))]


def _leave_one_out(values, scores, baseline=None, divide=None):
    size = len(values)
    baseline = (values.sum() - values) / (size - 1) if baseline is None else baseline(values)
    return ((values - baseline)[:, None] * scores).sum(0) / (size if divide is None else divide(size))


def _grids():
    z = torch.linspace(-6, 6, 241, dtype=torch.float64)
    wide = torch.linspace(-3, 9, 97, dtype=torch.float64)
    two = torch.logaddexp(-0.5 * ((z - 1.5) / 0.4)**2, math.log(0.3) - 0.5 * ((z + 1) / 0.6)**2)
    return [(two - 1.2, z), (-0.7 * (wide - 3)**2 + 0.4, wide), (two - 2000, z)]


def _quadrature(log_joint, z, step=None, variance=False, center=True):
    step = z[1] - z[0] if step is None else step
    log_px = log_joint.logsumexp(0) + math.log(step)
    weights = log_joint.softmax(0)
    mean = weights @ z
    spread = weights @ (z - mean if center else z).square()
    return log_px, mean, spread if variance else spread.sqrt()


def _quadrature_unnormalized(log_joint, z):
    """Moments under the joint, not divided by p(x)."""
    step, joint = z[1] - z[0], log_joint.exp()
    mean = (joint * z).sum() * step
    return (joint.sum() * step).log(), mean, ((joint * (z - mean)**2).sum() * step).sqrt()


def _plain_quadrature(log_joint, z):
    step, joint = z[1] - z[0], log_joint.exp()
    weights = joint / joint.sum()
    mean = (weights * z).sum()
    return (joint.sum() * step).log(), mean, (weights * (z - mean)**2).sum().sqrt()


def _sine(omega, square=True, swap=False):
    w2 = omega**2
    mean = w2 * math.exp(-w2) if square else 0.0
    score = 0.5 * (1 - (1 - 4 * w2) * math.exp(-2 * w2)) - mean
    path = 0.5 * w2 * (1 + math.exp(-2 * w2)) - mean
    return (path, score) if swap else (score, path)


def _sine_as_if_independent(omega):
    """E[sin²] E[ε²] in place of E[sin² ε²]."""
    w2 = omega**2
    return 0.5 * (1 - math.exp(-2 * w2)) - w2 * math.exp(-w2), _sine(omega)[1]


EXERCISES = {
    "4.1": Exercise(
        cases=_two_gaussians,
        solution=_kl,
        mistakes={
            "this is KL(p‖q), the other direction.": lambda m, V, mu, Sigma: _kl(mu, Sigma, m, V),
            "you forgot to subtract the dimension d.": lambda *a: _kl(*a, dim=0),
            "you subtracted 1, which is right in one dimension: subtract d.": lambda *a: _kl(*a, dim=1),
            "you forgot the factor 1/2.": lambda *a: _kl(*a, half=1.0),
            "the two log-determinants have changed places.": lambda *a: _kl(*a, logs=-1.0),
            "the distance between the means is to be measured with Sigma's inverse.": _kl_without_inverse,
            "the means are missing: add (m - mu)ᵀ Sigma⁻¹ (m - mu).": lambda *a: _kl(*a, distance=0.0),
            "this is the other sign of the divergence.": lambda *a: -_kl(*a),
            "the trace is of Sigma⁻¹ V: you took V⁻¹ Sigma.":
                lambda m, V, mu, Sigma: _kl(m, V, mu, Sigma, trace=0.0) + 0.5 * torch.linalg.solve(V, Sigma).trace(),
        },
        hint="Compute the four terms one by one; for q = p they are d, 0, -d and 0.",
    ),
    "4.2": Exercise(
        cases=_linear_models,
        solution=_posterior,
        mistakes={
            "you kept the standard prior: its precision is I / tau2.": lambda *a: _posterior(*a, prior=1.0),
            "you took tau2 for a precision: the prior's precision is I / tau2.":
                lambda x, W, b, s, t: _posterior(x, W, b, s, t, prior=t),
            "the prior is missing.": lambda *a: _posterior(*a, prior=0.0),
            "you did not subtract b from x.": _posterior_uncentered,
            "you took sigma2 for a standard deviation: it is the variance.":
                lambda x, W, b, s, t: _posterior(x, W, b, s, t, noise=s**2),
            "the means are right; the covariance lacks the factor sigma2.": _posterior_unscaled,
            "the means are right; this is the precision, and the covariance is its inverse.": _posterior_precision,
        },
        hint="The precision is the coefficient of zᵀz in -2 log p(x, z), and the mean solves precision · mean = "
             "Wᵀ(x - b) / sigma2.",
    ),
    "4.3": Exercise(
        cases=lambda: [(_covariance(d, 10 + d),) for d in (2, 4)],
        solution=_variances,
        mistakes={
            "the two have changed places: the reverse divergence gives the smaller variances.":
                lambda Sigma: _variances(Sigma)[::-1],
            "these are precisions: a variance is 1 / Lambda_ii.":
                lambda Sigma: (torch.linalg.inv(Sigma).diagonal(), Sigma.diagonal()),
            "for the reverse divergence you need the diagonal of the inverse, not the inverse of the diagonal.":
                lambda Sigma: (1 / Sigma.diagonal(), Sigma.diagonal()),
            "both are the marginal variances: the reverse divergence gives less.":
                lambda Sigma: (Sigma.diagonal(), Sigma.diagonal()),
            "both are for the reverse divergence: the forward one matches moments, and gives more.":
                lambda Sigma: 2 * _variances(Sigma)[:1],
            "these are standard deviations.": lambda Sigma: tuple(v.sqrt() for v in _variances(Sigma)),
        },
        hint="Reverse: 1 / Lambda_ii with Lambda the inverse of Sigma. Forward: match each coordinate's own variance.",
    ),
    "4.4": Exercise(
        cases=_draws,
        solution=_leave_one_out,
        mistakes={
            "there is no baseline.": lambda v, s: _leave_one_out(v, s, baseline=torch.zeros_like),
            "your baseline contains the draw's own value, and the estimate is too small by the factor (S - 1) / S.":
                lambda v, s: _leave_one_out(v, s, baseline=lambda v: v.mean()),
            "you divided the others' sum by S: there are S - 1 of them.":
                lambda v, s: _leave_one_out(v, s, baseline=lambda v: (v.sum() - v) / len(v)),
            "you summed over the draws: average them.": lambda v, s: _leave_one_out(v, s, divide=lambda size: 1),
            "you divided the whole by S - 1.": lambda v, s: _leave_one_out(v, s, divide=lambda size: size - 1),
            "you added the baseline instead of subtracting it.":
                lambda v, s: _leave_one_out(v, s, baseline=lambda v: -(v.sum() - v) / (len(v) - 1)),
        },
        tolerance=1e-9,
        hint="Try two draws: each is the other's baseline. With equal values for all draws the estimate must be zero.",
    ),
    "4.5": Exercise(
        cases=_grids,
        solution=_quadrature,
        mistakes={
            "you forgot the grid's step: log p(x) is a sum times h.": lambda j, z: _quadrature(j, z, step=1.0),
            "you forgot to divide by p(x): these are moments of the joint density.": _quadrature_unnormalized,
            "the third number is the variance: its square root is asked for.":
                lambda j, z: _quadrature(j, z, variance=True),
            "the spread is to be measured from the mean, not from zero.":
                lambda j, z: _quadrature(j, z, center=False),
            "this underflows where the log-joint is very negative: stay with logsumexp and softmax.":
                _plain_quadrature,
            "the moments are right; log p(x) underflows where the log-joint is very negative: take logsumexp.":
                lambda j, z: ((j.exp().sum() * (z[1] - z[0])).log(), *_quadrature(j, z)[1:]),
            "multiply by the grid's step, which adds its logarithm to log p(x).":
                lambda j, z: _quadrature(j, z, step=1 / (z[1] - z[0])),
        },
        hint="logsumexp for the first number; softmax gives the posterior's weights for the other two.",
    ),
    "4.6": Exercise(
        cases=lambda: [(0.5,), (1.0,), (2.0,), (4.0,)],
        solution=_sine,
        mistakes={
            "the two have changed places.": lambda omega: _sine(omega, swap=True),
            "these are mean squares: subtract the square of the gradient, omega² exp(-omega²).":
                lambda omega: _sine(omega, square=False),
            "sin² and ε² are not independent: average their product.": _sine_as_if_independent,
        },
        hint="E[ε² cos(tε)] = (1 - t²) exp(-t²/2), with t = 2 omega.",
    ),
}

"""Chapter 01's exercises: the mixture's density, moments and sampler, a MAP covariance, and a conditional mean."""

import torch

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import LOG_2PI, cholesky


def _mixture(n_components=3, dim=2, seed=0):
    """Weights (K,), means (K, D) and full covariances (K, D, D), none of them special."""
    settings = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    weights = torch.randn(n_components, **settings).softmax(0)
    root = torch.randn(n_components, dim, dim + 2, **settings)
    return weights, 2 * torch.randn(n_components, dim, **settings), root @ root.mT / (dim + 2)


def _noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- 1.1: the log-density of a diagonal mixture


def _density_cases():
    cases = []
    for seed, dim, far in ((0, 2, 0.0), (1, 3, 0.0), (2, 3, 200.0)):
        weights, means, covariances = _mixture(4, dim, seed)
        x = torch.cat([2 * _noise(20, dim, seed=seed), far + _noise(3, dim, seed=seed + 1)])
        cases.append((x, weights, means, covariances.diagonal(dim1=1, dim2=2)))
    return cases


def _terms(x, means, variances, constant=LOG_2PI, log=torch.log, half=0.5):
    """Each dimension's log-density under each component: (N, K, D)."""
    return -half * (constant + log(variances) + (x[:, None] - means).square() / variances)


def _log_density(x, weights, means, variances, **changed):
    return (weights.log() + _terms(x, means, variances, **changed).sum(2)).logsumexp(1)


# --- 1.2: moments


def _moments(weights, means, covariances, m=None, square=True, mix=True):
    mean = weights @ means
    m = mean if m is None else m
    within = torch.einsum("k,kij->ij", weights if mix else torch.full_like(weights, 1 / len(weights)), covariances)
    second = torch.einsum("k,ki,kj->ij", weights, means, means)
    return mean, within + second - (torch.outer(m, m) if square else 0)


# --- 1.3: the sampler


def _noise_cases():
    cases = []
    for seed, n_components, dim in ((0, 3, 2), (1, 4, 3)):
        _, means, covariances = _mixture(n_components, dim, seed)
        c = torch.randint(n_components, (30,), generator=torch.Generator().manual_seed(seed))
        cases.append((c, _noise(30, dim, seed=seed), means, covariances))
    return cases


def _from_noise(c, eps, means, covariances, factor=cholesky, center=True):
    return (means[c] if center else 0) + (factor(covariances)[c] @ eps[:, :, None]).squeeze(2)


def _symmetric_root(covariances):
    values, vectors = torch.linalg.eigh(covariances)
    return vectors * values.sqrt()[:, None] @ vectors.mT


# --- 1.4: MAP


def _map_cases():
    cases = []
    for seed, n, dim, nu in ((0, 12, 2, 4.0), (1, 3, 5, 6.5)):
        x = _noise(n, dim, seed=seed) * torch.arange(1, dim + 1) + 3
        root = _noise(dim, 2 * dim, seed=seed + 5)
        cases.append((x, x.mean(0), root @ root.T / dim, nu))
    return cases


def _map(x, mean, psi, nu, add=1.0, scatter=None, divide=None):
    n, dim = x.shape
    total = (x - mean).T @ (x - mean) if scatter is None else scatter
    return (total + add * psi) / (n + nu + dim + 1 if divide is None else divide)


# --- 1.5: the second coordinate, given the first


def _given_cases():
    cases = []
    for seed in (0, 1):
        first = torch.cat([3 * _noise(20, seed=seed), torch.tensor([90.0, -120.0], dtype=torch.float64)])
        cases.append((first, *_mixture(3, 2, seed)))
    return cases


def _conditional_means(first, means, factors):
    white = (first[:, None] - means[:, 0]) / factors[:, 0, 0]
    return means[:, 1] + factors[:, 1, 0] * white


def _log_joint_first(first, weights, means, factors):
    white = (first[:, None] - means[:, 0]) / factors[:, 0, 0]
    return weights.log() - 0.5 * (LOG_2PI + white.square()) - factors[:, 0, 0].log()


def _second_given_first(first, weights, means, covariances, resp=None, inner=_conditional_means):
    factors = cholesky(covariances)
    if resp is None:
        resp = _log_joint_first(first, weights, means, factors).softmax(1)
    elif callable(resp):
        resp = resp(_log_joint_first(first, weights, means, factors))
    return (resp * inner(first, means, factors)).sum(1)


def _as_one(first, mean, covariance):
    return mean[1] + covariance[0, 1] / covariance[0, 0] * (first - mean[0])


def _hard(joint):
    return torch.nn.functional.one_hot(joint.argmax(1), joint.shape[1]).to(joint)


EXERCISES = {
    "1.1": Exercise(
        cases=_density_cases,
        solution=_log_density,
        mistakes={
            "you summed over dimensions after the logsumexp: that is a mixture of its own in every dimension. A point "
            "comes from one component, with all its coordinates.":
                lambda x, weights, means, variances:
                    (weights.log()[:, None] + _terms(x, means, variances)).logsumexp(1).sum(1),
            "you summed over dimensions after the logsumexp, and left out the weights pi.":
                lambda x, weights, means, variances: _terms(x, means, variances).logsumexp(1).sum(1),
            "you added the log-weight in every dimension: it belongs to the component, once.":
                lambda x, weights, means, variances:
                    (weights.log()[:, None] + _terms(x, means, variances)).sum(2).logsumexp(1),
            "you left the logarithms: far out every density is zero, and its logarithm minus infinity.":
                lambda x, weights, means, variances:
                    (weights * _terms(x, means, variances).sum(2).exp()).sum(1).log(),
            "you forgot the weights pi: add their logarithms before the logsumexp.":
                lambda x, weights, means, variances: _terms(x, means, variances).sum(2).logsumexp(1),
            "you added the weights: add their logarithms.":
                lambda x, weights, means, variances: (weights + _terms(x, means, variances).sum(2)).logsumexp(1),
            "you averaged the log-densities: average the densities, and take the logarithm afterwards (logsumexp).":
                lambda x, weights, means, variances: (weights * _terms(x, means, variances).sum(2)).sum(1),
            "you took the likeliest component alone: the others count, too (logsumexp).":
                lambda x, weights, means, variances: (weights.log() + _terms(x, means, variances).sum(2)).amax(1),
            "you forgot the constant: -1/2 log 2 pi for each dimension.":
                lambda *given: _log_density(*given, constant=0.0),
            "the constant log 2 pi is needed once for each dimension.":
                lambda x, weights, means, variances: _log_density(x, weights, means, variances, constant=0.0)
                - 0.5 * LOG_2PI,
            "you forgot the logarithm of the variances: a wide Gaussian is also a low one.":
                lambda *given: _log_density(*given, log=torch.zeros_like),
            "you used the logarithm of the variance whole: it comes with a factor of one half.":
                lambda *given: _log_density(*given, log=lambda v: 2 * v.log()),
            "you took the variances for standard deviations.":
                lambda x, weights, means, variances: _log_density(x, weights, means, variances**2),
            "you forgot the factor 1/2.": lambda *given: _log_density(*given, half=1.0),
            "you added up over the points as well: return one number for each.":
                lambda *given: _log_density(*given).sum(),
        },
        hint="For each point and component: sum over dimensions, add log pi; then logsumexp over components.",
    ),
    "1.2": Exercise(
        cases=lambda: [_mixture(), _mixture(4, 3, seed=1)],
        solution=_moments,
        mistakes={
            "you left out how far the centers lie apart: the spread between the components adds to the spread within.":
                lambda weights, means, covariances:
                    (weights @ means, torch.einsum("k,kij->ij", weights, covariances)),
            "this is E[x xᵀ]: subtract m mᵀ.": lambda *given: _moments(*given, square=False),
            "this is the spread between the centers alone: add the average spread within the components.":
                lambda weights, means, covariances: _moments(weights, means, 0 * covariances),
            "you averaged all components alike: weight means and covariances with pi.":
                lambda weights, means, covariances:
                    _moments(torch.full_like(weights, 1 / len(weights)), means, covariances),
            "you averaged the covariances alike: weight them with pi.": lambda *given: _moments(*given, mix=False),
            "you squared the weights: that is the covariance of an average of variables, not of a mixture.":
                lambda weights, means, covariances:
                    (weights @ means, torch.einsum("k,kij->ij", weights**2, covariances)),
            "you averaged the spread between the centers alike: weight it with pi.":
                lambda weights, means, covariances:
                    (weights @ means, torch.einsum("k,kij->ij", weights, covariances) + means.T.cov(correction=0)),
            "you left the weights out of the spread between the centers.":
                lambda weights, means, covariances:
                    (weights @ means, torch.einsum("k,kij->ij", weights, covariances)
                     + (means - weights @ means).T @ (means - weights @ means)),
            "you subtracted the spread between the centers: it adds to the spread within.":
                lambda weights, means, covariances:
                    (weights @ means, 2 * torch.einsum("k,kij->ij", weights, covariances)
                     - _moments(weights, means, covariances)[1]),
        },
        hint="Compare with the mean and the covariance of many points drawn by `sample`.",
    ),
    "1.3": Exercise(
        cases=_noise_cases,
        solution=_from_noise,
        mistakes={
            "you multiplied by the covariance: multiply by its Cholesky factor.":
                lambda *given: _from_noise(*given, factor=lambda covariances: covariances),
            "you multiplied by the transposed factor: L Lᵀ is the covariance, Lᵀ L is not.":
                lambda *given: _from_noise(*given, factor=lambda covariances: cholesky(covariances).mT),
            "you multiplied by the symmetric root: its points have the same density, but they are not the ones of the "
            "Cholesky factor.":
                lambda *given: _from_noise(*given, factor=_symmetric_root),
            "you took the root of each entry: the root of a matrix is its Cholesky factor.":
                lambda *given: _from_noise(*given, factor=lambda covariances: covariances.abs().sqrt()),
            "you took the roots of the variances alone: the correlations are lost.":
                lambda *given: _from_noise(
                    *given, factor=lambda covariances: torch.diag_embed(covariances.diagonal(dim1=1, dim2=2).sqrt())),
            "you stretched the noise but did not move it: add the means.":
                lambda *given: _from_noise(*given, center=False),
            "you moved the noise but did not stretch it: multiply by the Cholesky factors.":
                lambda c, eps, means, covariances: means[c] + eps,
            "you multiplied by the inverse factor: that whitens; here the noise is to be stretched.":
                lambda *given: _from_noise(*given, factor=lambda covariances: torch.linalg.inv(cholesky(covariances))),
        },
        hint="For one point: the mean of its component, plus its component's Cholesky factor times its noise.",
    ),
    "1.4": Exercise(
        cases=_map_cases,
        solution=_map,
        mistakes={
            "you divided by N: the prior counts as nu + D + 1 more points.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, divide=len(x)),
            "you forgot the D + 1 in N + nu + D + 1: the exponent of the determinant contains it.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, divide=len(x) + nu),
            "you forgot the 1 in N + nu + D + 1.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, divide=len(x) + nu + x.shape[1]),
            "you divided by N + nu - D - 1: that is the mean of the posterior; MAP asks for its maximum.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, divide=len(x) + nu - x.shape[1] - 1),
            "you left out Psi: with it the covariance cannot become singular.": lambda *given: _map(*given, add=0.0),
            "this is the covariance of the points alone, as if there were no prior.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, add=0.0, divide=len(x)),
            "this is the prior's own choice: the points have not been heard.":
                lambda x, mean, psi, nu: psi / (nu + x.shape[1] + 1),
            "you used the covariance where the sum of squares belongs: multiply it by N.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu, scatter=(x - mean).T @ (x - mean) / len(x)),
            "you used N - 1 in the covariance: multiply the scatter by the number that you divided it by.":
                lambda x, mean, psi, nu: _map(x, mean, psi, nu,
                                              scatter=(x - mean).T @ (x - mean) * len(x) / (len(x) - 1)),
            "you did not subtract the mean.": lambda x, mean, psi, nu: _map(x, mean, psi, nu, scatter=x.T @ x),
            "you added Psi's scale nu as well: Psi counts as it is.": lambda *given: _map(*given, add=given[3]),
        },
        hint="Add log N of all points and the log prior; what stands before log det, and what inside the trace?",
    ),
    "1.5": Exercise(
        cases=_given_cases,
        solution=_second_given_first,
        mistakes={
            "you weighted the components with pi: after x1 is known, their probabilities are those given x1.":
                lambda first, weights, means, covariances:
                    _second_given_first(first, weights, means, covariances, resp=weights),
            "within a component you used its mean: x1 also says where in the component we are.":
                lambda *given: _second_given_first(*given, inner=lambda first, means, factors: means[:, 1]),
            "you used neither the given coordinate within the components nor between them: this is the plain mean.":
                lambda first, weights, means, covariances: (weights @ means[:, 1]).expand(len(first)),
            "you forgot to divide by L11: w1 counts standard deviations.":
                lambda *given: _second_given_first(
                    *given, inner=lambda first, means, factors:
                    means[:, 1] + factors[:, 1, 0] * (first[:, None] - means[:, 0])),
            "you gave each point to its likeliest component alone: average over all, with their probabilities.":
                lambda *given: _second_given_first(*given, resp=_hard),
            "you forgot the weights pi when you asked which component x1 comes from.":
                lambda first, weights, means, covariances:
                    _second_given_first(first, torch.full_like(weights, 1 / len(weights)), means, covariances),
            "you asked which component x1 comes from without the widths: a wide Gaussian is also a low one (log L11).":
                lambda first, weights, means, covariances:
                    _second_given_first(first, weights * covariances[:, 0, 0].sqrt(), means, covariances),
            "you left the logarithms: far out every density of x1 is zero, and 0/0 is not a number.":
                lambda *given: _second_given_first(*given, resp=lambda joint: joint.exp() / joint.exp().sum(1, True)),
            "you took the first coordinate's variance for its standard deviation: L11 is the root of the variance.":
                lambda *given: _second_given_first(
                    *given, inner=lambda first, means, factors:
                    means[:, 1] + factors[:, 1, 0] * (first[:, None] - means[:, 0]) / factors[:, 0, 0]**2),
            "you treated the whole mixture as one Gaussian with its mean and covariance: a straight line in x1.":
                lambda first, weights, means, covariances:
                    _as_one(first, *_moments(weights, means, covariances)),
        },
        hint="E[x2 | x1] is the sum over k of p(k | x1) times E[x2 | x1, k]. In component k, x2 = mu2 + L21 w1 + L22 "
             "w2, where w1 follows from x1 and w2 has mean zero.",
    ),
}

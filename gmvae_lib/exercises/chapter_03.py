"""Chapter 03's exercises: comparing scores, counting parameters, ICL, sparse weights, and an exact evidence."""

import math

import torch
from torch.distributions import MultivariateNormal, Normal

from gmvae_lib.exercises import Exercise


def _double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _score_pairs():
    """Two models' scores of the same points: alike, since far points are unlikely under both."""
    common, apart = _double(40), _double(2, 40, seed=1)
    return [(common - 3, common - 3.1 + 0.2 * apart[0]), (apart[0], 0.5 * apart[0] + apart[1])]


def _compare(s, t, spread=lambda d: d.std(), divide=math.sqrt):
    d = s - t
    return d.mean(), spread(d) / divide(len(d))


def _count(n_components, dim, family, weights=-1, means=None, full=None):
    full = dim * (dim + 1) // 2 if full is None else full
    spread = {"full": n_components * full, "diag": n_components * dim, "spherical": n_components, "tied": full}[family]
    return n_components + weights + (n_components * dim if means is None else means) + spread


def _count_cases():
    return [(k, d, family) for family in ("tied", "spherical", "diag", "full") for k, d in ((3, 4), (5, 2), (1, 3))]


def _log_joint_cases():
    near = _double(30, 3) - 2
    far = near.clone()
    far[:4, 1] = -2000.0
    return [(near, 17), (far, 17), (_double(12, 5, seed=3), 29)]


def _completed(log_joint, n_parameters, times=2, entropy=None):
    log_px = log_joint.logsumexp(1)
    resp = log_joint.softmax(1)
    entropy = -torch.xlogy(resp, resp).sum(1) if entropy is None else entropy(resp)
    return -2 * log_px.sum() + n_parameters * math.log(len(log_joint)) + times * entropy.sum()


def _completed_without_limit(log_joint, n_parameters):
    return _completed(log_joint, n_parameters, entropy=lambda resp: -(resp * resp.log()).sum(1))


def _map_weights(counts, alpha, clip=True, normalize=True):
    paid = counts + alpha - 1
    paid = paid.clamp(min=0) if clip else paid
    return paid / paid.sum() if normalize else paid / counts.sum()


def _count_tables():
    return [(torch.tensor([120.0, 60.0, 17.5, 2.5]).double(), 0.4), (torch.tensor([40.0, 3.0, 0.4, 6.6]).double(), 0.1),
            (torch.tensor([90.0, 1.5, 8.0, 20.5]).double(), -1.0), (torch.tensor([10.0, 20.0, 30.0]).double(), 3.0)]


def _score_tables():
    """Held-out scores (K, N): the rules below give different answers on one or another of them."""
    common = 2 * _double(100, seed=5)
    tables = []
    for lead in ((-2.0, -0.5, -0.15, -0.09, -0.5, -0.03, 0.0, -0.03), (-1.0, -0.3, -0.02, 0.0, -0.2, -0.5, -0.3, -0.4),
                 (0.0, -0.5, -0.4, -0.3, -0.1, -0.2, -0.3, -0.4)):
        noise = 0.4 * _double(8, 100, seed=len(tables) + 6)
        noise = noise - noise.mean(1, keepdim=True)
        tables.append((common + noise + torch.tensor(lead).double()[:, None],))
    return tables


def _one_error(scores, width=1.0, error=None):
    best = scores[scores.mean(1).argmax()]
    d = best - scores
    error = d.std(1) / math.sqrt(scores.shape[1]) if error is None else error(scores)
    return 1 + int((d.mean(1) <= width * error + 1e-12).nonzero()[0])


def _unpaired(scores):
    error = scores.std(1) / math.sqrt(scores.shape[1])
    return error[scores.mean(1).argmax()].expand(len(scores))


def _largest_within(scores):
    d = scores[scores.mean(1).argmax()] - scores
    return 1 + int((d.mean(1) <= d.std(1) / math.sqrt(scores.shape[1]) + 1e-12).nonzero()[-1])


def _evidence(x, tau):
    cov = torch.eye(len(x), dtype=x.dtype) + tau**2
    return MultivariateNormal(torch.zeros_like(x), cov).log_prob(x)


def _best_mean(x, tau):
    return x.sum() / (len(x) + tau**-2)


def _peak(x, tau, mean):
    return Normal(mean, 1.0).log_prob(x).sum() + Normal(0.0, tau).log_prob(mean)


def _laplace(x, tau, precision=lambda n, tau: n + tau**-2, pi=2 * math.pi, half=0.5):
    return _peak(x, tau, _best_mean(x, tau)) + 0.5 * math.log(pi) - half * math.log(precision(len(x), tau))


def _evidence_cases():
    return [(1.0 + _double(7), 2.0), (_double(30, seed=2) - 0.5, 0.7), (3.0 + _double(1, seed=3), 1.0)]


EXERCISES = {
    "3.1": Exercise(
        cases=_score_pairs,
        solution=_compare,
        mistakes={
            "this is the error for independent samples: the models were scored on the same points, so take the "
            "differences first.": lambda s, t: (
                (s - t).mean(), ((s.var() + t.var()) / len(s)).sqrt()),
            "you forgot to divide by the square root of M: this is how far single differences spread.":
                lambda s, t: _compare(s, t, divide=lambda n: 1),
            "you divided the standard deviation by M: divide it by the square root of M.":
                lambda s, t: _compare(s, t, divide=lambda n: n),
            "you divided the variance by the square root of M: take its root first.":
                lambda s, t: _compare(s, t, spread=lambda d: d.var()),
            "this is the squared standard error: take its square root.":
                lambda s, t: _compare(s, t, spread=lambda d: d.var(), divide=lambda n: n),
            "you divided by M in the variance: Eq. (3.5) has M - 1, because the mean was estimated too.":
                lambda s, t: _compare(s, t, spread=lambda d: d.std(correction=0)),
            "the sign is the wrong way round: d = s - t.": lambda s, t: _compare(t, s),
            "you summed the differences: average them.":
                lambda s, t: ((s - t).sum(), _compare(s, t)[1]),
        },
        hint="d = s - t; its mean; its standard deviation divided by the square root of M.",
    ),
    "3.2": Exercise(
        cases=_count_cases,
        solution=_count,
        mistakes={
            "you counted K weights: they sum to one, so only K - 1 are free.":
                lambda *given: _count(*given, weights=0),
            "you counted one spherical variance for all components: each has its own.":
                lambda k, d, family: _count(k, d, family) - (k - 1 if family == "spherical" else 0),
            "you left out the weights.": lambda k, d, family: _count(k, d, family, weights=-k),
            "you left out the means.": lambda *given: _count(*given, means=0),
            "you left out the covariances.": lambda k, d, family: k - 1 + k * d,
            "you counted D x D numbers for a covariance: it is symmetric, so D (D + 1) / 2 are free.":
                lambda k, d, family: _count(k, d, family, full=d * d),
            "you counted D (D - 1) / 2 numbers for a covariance: that leaves the diagonal out.":
                lambda k, d, family: _count(k, d, family, full=d * (d - 1) // 2),
            "you gave every component its own tied covariance: they share one.":
                lambda k, d, family: _count(k, d, "full" if family == "tied" else family),
            "you gave a spherical component one variance for each dimension: it has one for all.":
                lambda k, d, family: _count(k, d, "diag" if family == "spherical" else family),
        },
        hint="K - 1 weights, K D numbers in the means, and the family's covariances: Eq. (1.19).",
    ),
    "3.3": Exercise(
        cases=_log_joint_cases,
        solution=_completed,
        mistakes={
            "0 log 0 became NaN: use torch.xlogy, whose limit is 0.": _completed_without_limit,
            "this is -ICL / 2, a score of which more is better: ICL is -2 times that.":
                lambda joint, p: _completed(joint, p) / -2,
            "this is BIC: add twice the entropy of the responsibilities.":
                lambda joint, p: _completed(joint, p, times=0),
            "you added the entropy once: ICL is BIC plus twice the entropy, since all is multiplied by -2.":
                lambda joint, p: _completed(joint, p, times=1),
            "you subtracted the entropy: doubt makes a clustering worse, and lower is better.":
                lambda joint, p: _completed(joint, p, times=-2),
            "you added twice the sum of log r: each point's entropy is minus the sum of r log r.":
                lambda joint, p: _completed(joint, p, entropy=lambda resp: -resp.clamp(min=1e-300).log().sum(1)),
            "this is AIC's fee: BIC's and ICL's is P log N.":
                lambda joint, p: _completed(joint, p) - p * math.log(len(joint)) + 2 * p,
            "you used the entropy of the average responsibilities: take each point's entropy, then add up.":
                lambda joint, p: _completed(joint, p, entropy=lambda resp: -len(resp) * torch.xlogy(
                    resp.mean(0), resp.mean(0))),
            "this is the version with each point's likeliest label: average over the labels instead.":
                lambda joint, p: _completed(joint, p, entropy=lambda resp: -resp.amax(1).log()),
        },
        hint="log p(x) is a logsumexp over components, the responsibilities are a softmax.",
    ),
    "3.4": Exercise(
        cases=_count_tables,
        solution=_map_weights,
        mistakes={
            "a weight is negative: a component that cannot pay its fee gets zero.":
                lambda counts, alpha: _map_weights(counts, alpha, clip=False),
            "the weights do not sum to one: divide by the sum of what is left, not by N.":
                lambda counts, alpha: _map_weights(counts, alpha, normalize=False),
            "you divided by N + K (alpha - 1): right only if nobody was switched off.":
                lambda counts, alpha: (counts + alpha - 1).clamp(min=0) / (counts.sum() + len(counts) * (alpha - 1)),
            "this is the posterior mean, with N_k + alpha: the maximum has N_k + alpha - 1.":
                lambda counts, alpha: _map_weights(counts, alpha + 1),
            "these are the weights without a prior.": lambda counts, alpha: counts / counts.sum(),
            "you took 1 - alpha with the wrong sign: alpha below one takes points away.":
                lambda counts, alpha: _map_weights(counts, 2 - alpha),
        },
        hint="Take the fee 1 - alpha from each count, set what is negative to zero, and normalize.",
    ),
    "3.5": Exercise(
        cases=_score_tables,
        solution=_one_error,
        mistakes={
            "this is the best K: the rule looks for a smaller one within one standard error.":
                lambda scores: 1 + int(scores.mean(1).argmax()),
            "you used the best score's own standard error: use that of the paired differences, which is smaller.":
                lambda scores: _one_error(scores, error=_unpaired),
            "your K is too small by one: row i holds K = i + 1.": lambda scores: _one_error(scores) - 1,
            "you took the largest K within one error: the smallest is asked for.": _largest_within,
            "you forgot to divide by the square root of N.":
                lambda scores: _one_error(scores, width=math.sqrt(scores.shape[1])),
            "you allowed two standard errors.": lambda scores: _one_error(scores, width=2.0),
        },
        tolerance=1e-9,
        hint="Find the best row; subtract all rows from it; compare each mean with its own standard error.",
    ),
    "3.6": Exercise(
        cases=_evidence_cases,
        solution=_evidence,
        mistakes={
            "you treated the points as independent: they share one unknown mean, which correlates them.":
                lambda x, tau: Normal(0.0, math.sqrt(1 + tau**2)).log_prob(x).sum(),
            "you used tau as a variance: it is a standard deviation.": lambda x, tau: _evidence(x, math.sqrt(tau)),
            "this is the height of the peak: its width is missing, 1/2 log(2 pi) - 1/2 log(N + 1 / tau^2).":
                lambda x, tau: _peak(x, tau, _best_mean(x, tau)),
            "you expanded the likelihood alone: the log-prior's curvature 1 / tau^2 belongs to H as well.":
                lambda x, tau: _laplace(x, tau, precision=lambda n, tau: n),
            "you forgot 1/2 log(2 pi), from the integral of the Gaussian.":
                lambda x, tau: _laplace(x, tau, pi=1.0),
            "this is -BIC / 2, which is right only up to a constant.":
                lambda x, tau: Normal(x.mean(), 1.0).log_prob(x).sum() - 0.5 * math.log(len(x)),
            "this is the highest log-likelihood, without any average over the prior.":
                lambda x, tau: Normal(x.mean(), 1.0).log_prob(x).sum(),
            "you expanded about the sample's mean: with the prior inside, the peak is at sum(x) / (N + 1 / tau^2).":
                lambda x, tau: _peak(x, tau, x.mean()) + 0.5 * math.log(2 * math.pi / (len(x) + tau**-2)),
            "you took the whole of log H: Laplace's method has half of it.":
                lambda x, tau: _laplace(x, tau, half=1.0),
        },
        hint="x is Gaussian with mean 0 and covariance I + tau^2 (all ones).",
    ),
}

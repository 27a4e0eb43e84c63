"""Chapter 02's exercises: the bound, the M-step's parts, and statistics from two places."""

import torch

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import cholesky, log_prob_full


def _points(n_components=3, dim=2, n=40, offset=0.0, seed=0):
    """Points (N, D), responsibilities (N, K) and means (K, D), none of them special."""
    generator = torch.Generator().manual_seed(seed)
    settings = {"generator": generator, "dtype": torch.float64}
    x = torch.randn(n, dim, **settings) * torch.arange(1, dim + 1) + offset
    resp = (2 * torch.randn(n, n_components, **settings)).softmax(1)
    return x, resp, offset + torch.randn(n_components, dim, **settings)


def _weights(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- 2.1: the bound


def _bound_cases():
    cases = []
    for seed in (8, 9):
        x, q, _ = _points(seed=seed)
        q[::3] = _hard(q[::3])  # zeros among them
        cases.append((q, x @ torch.ones(2, 3, dtype=torch.float64) - torch.arange(1.0, 4.0)))
    return [(torch.full_like(cases[0][0], 1 / 3), cases[0][1]), *cases]


def _mean_bound(q, log_joint):
    return (q * log_joint - torch.xlogy(q, q)).sum(1).mean()


# --- 2.2 and 2.3: means and variances


def _means(x, resp):
    return resp.T @ x / resp.sum(0)[:, None]


def _variances(x, resp, means):
    return torch.einsum("nk,nkd->kd", resp, (x[:, None] - means).square()) / resp.sum(0)[:, None]


def _hard(resp):
    return torch.nn.functional.one_hot(resp.argmax(1), resp.shape[1]).to(resp)


def _variance_cases():
    return [_points(seed=1), _points(4, 3, seed=2), _points(offset=1e6, seed=3)]


# --- 2.4: a step of the tied family


def _tied_cases():
    cases = []
    for seed in (4, 5):
        x, _, means = _points(seed=seed)
        covariance = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
        cases.append((x, _weights(0.6, 0.3, 0.1), means, covariance))
    return cases


def _tied_step(x, weights, means, covariance, prior=True, around_old=False, shares=None, divide_by=None,
               factor=cholesky, normalize=lambda log_joint: log_joint.softmax(1)):
    factor = factor(covariance).expand(len(means), -1, -1)
    log_joint = log_prob_full(x, means, factor).T + (weights.log() if prior else 0)
    resp = normalize(log_joint)
    counts, new = resp.sum(0), _means(x, resp)
    deltas = x[:, None] - (means if around_old else new)
    scatter = torch.einsum("nk,nki,nkj->kij", resp, deltas, deltas) / counts[:, None, None]
    mixed = counts / len(x) if shares is None else shares(weights)
    pooled = torch.einsum("k,kij->ij", mixed, scatter)
    return counts / len(x), new, pooled if divide_by is None else pooled * len(x) / divide_by


# --- 2.5: two hospitals


def _merge_cases():
    cases = []
    for seed, cut in ((6, 10), (7, 28)):
        x, resp, _ = _points(seed=seed)
        x[cut:] += torch.tensor([2.0, -1.0], dtype=torch.float64)
        cases.append((*_summary(x[:cut], resp[:cut]), *_summary(x[cut:], resp[cut:])))
    return cases


def _summary(x, resp):
    means = _means(x, resp)
    deltas = x[:, None] - means
    counts = resp.sum(0)
    return counts, means, torch.einsum("nk,nki,nkj->kij", resp, deltas, deltas) / counts[:, None, None]


def _outer(v):
    return v[:, :, None] * v[:, None, :]


def _merge(n_a, mean_a, cov_a, n_b, mean_b, cov_b, between=True, weighted=True, sign=1):
    n = n_a + n_b
    share = n_a / n if weighted else torch.full_like(n, 0.5)
    a, b = share[:, None], 1 - share[:, None]
    mean = a * mean_a + b * mean_b
    cov = a[:, :, None] * cov_a + b[:, :, None] * cov_b
    if between:
        cov = cov + sign * (a[:, :, None] * _outer(mean_a - mean) + b[:, :, None] * _outer(mean_b - mean))
    return n, mean, cov


def _merge_with_one_share(n_a, mean_a, cov_a, n_b, mean_b, cov_b):
    a = n_a.sum() / (n_a.sum() + n_b.sum())
    mean = a * mean_a + (1 - a) * mean_b
    cov = a * (cov_a + _outer(mean_a - mean)) + (1 - a) * (cov_b + _outer(mean_b - mean))
    return n_a + n_b, mean, cov


def _merge_with_all_between(n_a, mean_a, cov_a, n_b, mean_b, cov_b):
    n, mean, cov = _merge(n_a, mean_a, cov_a, n_b, mean_b, cov_b, between=False)
    return n, mean, cov + _outer(mean_a - mean_b)


EXERCISES = {
    "2.1": Exercise(
        cases=_bound_cases,
        solution=_mean_bound,
        mistakes={
            "you forgot the entropy of q: subtract the sum of q log q.":
                lambda q, log_joint: (q * log_joint).sum(1).mean(),
            "you added q log q: the bound subtracts it.":
                lambda q, log_joint: (q * log_joint + torch.xlogy(q, q)).sum(1).mean(),
            "this is log p(x), the bound for the best q: it was to be computed for the given one.":
                lambda q, log_joint: log_joint.logsumexp(1).mean(),
            "this is minus the KL divergence from the posterior: the bound needs the log-joint as it is given.":
                lambda q, log_joint: (q * log_joint.log_softmax(1) - torch.xlogy(q, q)).sum(1).mean(),
            "you summed over the points: divide by their number.":
                lambda q, log_joint: (q * log_joint - torch.xlogy(q, q)).sum(),
            "you averaged over the components too: their sum is already weighted with q.":
                lambda q, log_joint: (q * log_joint - torch.xlogy(q, q)).mean(),
            "return one number, the average over the points.":
                lambda q, log_joint: (q * log_joint - torch.xlogy(q, q)).sum(1),
            "where q is 0, log q is minus infinity, and 0 times that is not a number: torch.xlogy(q, q) knows that "
            "0 log 0 = 0.": lambda q, log_joint: (q * (log_joint - q.log())).sum(1).mean(),
        },
        hint="For each point, sum q times log-joint over the components and subtract the sum of q log q.",
    ),
    "2.2": Exercise(
        cases=lambda: [_points()[:2], _points(4, 3, seed=1)[:2]],
        solution=_means,
        mistakes={
            "you divided by N instead of N_k: each component has its own amount of data.":
                lambda x, resp: resp.T @ x / len(x),
            "you forgot to divide by N_k.": lambda x, resp: resp.T @ x,
            "you gave each point to its likeliest component alone: that is k-means; here every point counts with its "
            "share.": lambda x, resp: _means(x, _hard(resp)),
            "you averaged over all points alike: weight them with the responsibilities.":
                lambda x, resp: x.mean(0).expand(resp.shape[1], -1),
            "your table is transposed: one row for each component.": lambda x, resp: _means(x, resp).T,
        },
        hint="Sum over n of r_nk x_n, divided by the sum over n of r_nk.",
    ),
    "2.3": Exercise(
        cases=_variance_cases,
        solution=lambda x, resp, old_means: _variances(x, resp, _means(x, resp)),
        mistakes={
            "you used the old mean: the bound is highest for the spread about the new one.": _variances,
            "you divided by N instead of N_k.":
                lambda x, resp, old: _variances(x, resp, _means(x, resp)) * (resp.sum(0) / len(x))[:, None],
            "you divided by N_k - 1: that makes a sample's variance unbiased, but it does not maximize the bound.":
                lambda x, resp, old: _variances(x, resp, _means(x, resp)) * (resp.sum(0) / (resp.sum(0) - 1))[:, None],
            "you squared the responsibilities too: square the differences, then weight them.":
                lambda x, resp, old: torch.einsum("nk,nkd->kd", resp**2, (x[:, None] - _means(x, resp)).square())
                / resp.sum(0)[:, None],
            "you averaged over all points alike: weight the squares with the responsibilities.":
                lambda x, resp, old: (x[:, None] - _means(x, resp)).square().mean(0),
            "you forgot to divide by N_k.":
                lambda x, resp, old: _variances(x, resp, _means(x, resp)) * resp.sum(0)[:, None],
            "these are standard deviations: return variances.":
                lambda x, resp, old: _variances(x, resp, _means(x, resp)).sqrt(),
            "you averaged over the dimensions as well: that is the spherical family.":
                lambda x, resp, old: _variances(x, resp, _means(x, resp)).mean(1, keepdim=True).expand(-1, x.shape[1]),
            "you gave every component the variances of all points together.":
                lambda x, resp, old: x.var(0, correction=0).expand(resp.shape[1], -1),
        },
        hint="Average the squared differences from the new means, weighted with the responsibilities. If only the case "
             "around a million fails, you subtracted two large squares: take the differences first, then square.",
    ),
    "2.4": Exercise(
        cases=_tied_cases,
        solution=_tied_step,
        mistakes={
            "you forgot the weights pi in the E-step.": lambda *given: _tied_step(*given, prior=False),
            "log_prob_full takes a Cholesky factor, not the covariance itself.":
                lambda *given: _tied_step(*given, factor=lambda covariance: covariance),
            "the responsibilities of a point must sum to one: divide its joint densities by their sum.":
                lambda *given: _tied_step(*given, normalize=torch.exp),
            "you used the old means for the covariance.": lambda *given: _tied_step(*given, around_old=True),
            "you averaged the components' covariances as if they had equal shares: weight them with N_k / N.":
                lambda *given: _tied_step(*given, shares=lambda weights: torch.full_like(weights, 1 / len(weights))),
            "you weighted the covariances with the old weights: use N_k / N of this E-step.":
                lambda *given: _tied_step(*given, shares=lambda weights: weights),
            "you divided the covariance by K times N: the responsibilities of a point sum to one, not to K.":
                lambda *given: _tied_step(*given, divide_by=len(given[0]) * len(given[1])),
            "you forgot to divide the covariance by N.": lambda *given: _tied_step(*given, divide_by=1),
            "this is the covariance of all points together: take the differences from each component's mean.":
                lambda *given: (*_tied_step(*given)[:2], given[0].T.cov(correction=0)),
            "you returned counts for weights: divide them by N.":
                lambda *given: (_tied_step(*given)[0] * len(given[0]), *_tied_step(*given)[1:]),
            "you returned the old weights: the M-step makes new ones.":
                lambda *given: (given[1], *_tied_step(*given)[1:]),
        },
        hint="Compare your weights and means with an M-step of the full family: only the covariance differs.",
    ),
    "2.5": Exercise(
        cases=_merge_cases,
        solution=_merge,
        mistakes={
            "you left out how far the two means lie apart: the spread between the hospitals adds to the spread within.":
                lambda *given: _merge(*given, between=False),
            "this is the mean of x xᵀ about zero: subtract the common mean times its transpose.":
                lambda *given: (*_merge(*given)[:2], _merge(*given)[2] + _outer(_merge(*given)[1])),
            "you averaged the two hospitals alike: weight each component with its counts.":
                lambda *given: _merge(*given, weighted=False),
            "you averaged the two hospitals alike and left out the spread between their means.":
                lambda *given: _merge(*given, weighted=False, between=False),
            "you weighted the hospitals by their numbers of patients: each component has its own counts.":
                _merge_with_one_share,
            "you added all of the spread between the two means: measure each from the common mean, and weight it.":
                _merge_with_all_between,
            "you subtracted the spread between the means: it adds to the spread within.":
                lambda *given: _merge(*given, sign=-1),
        },
        hint="Turn each hospital's results back into sums, Eq. (2.26), add the sums, and make one M-step.",
    ),
}

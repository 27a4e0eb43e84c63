"""Chapter 13: find the bug. Each exercise repairs a snippet; its first mistakes are the bug as it was found."""

import math
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import LOG_2PI, log_prob_diag

DOUBLE = {"dtype": torch.float64}


def _normal(seed, *sizes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, **DOUBLE) for size in sizes]


def _mixture(seed, n_components=3, dim=2):
    """Weights (K,), means (K, d), log-variances (K, d), all unequal."""
    raw, means, log_var = _normal(seed, (n_components,), (n_components, dim), (n_components, dim))
    return raw.softmax(0), 2 * means, log_var


def _gaussian_cases():
    return [tuple(_normal(seed, (7, dim), (dim,), (dim,))) for seed, dim in ((0, 3), (1, 1), (2, 5))]


def _squares(z, mean, log_var):
    return (z - mean).square()


def _draw_cases():
    return [tuple(_normal(seed, (dim,), (dim,), (8, dim))) for seed, dim in ((3, 2), (4, 4))]


def _point_cases():
    return [(_normal(seed, (9, dim))[0] * 3, *_mixture(seed + 20, k, dim)) for seed, k, dim in ((5, 3, 2), (6, 2, 4))]


def log_mixture(z, weights, means, log_var):
    """Eq. (8.4)."""
    return (weights.log() + log_prob_diag(z.unsqueeze(1), means, log_var)).logsumexp(1)


def _each(z, means, log_var):
    """The log-densities of the single coordinates, (N, K, d)."""
    return -0.5 * (LOG_2PI + log_var + (z.unsqueeze(1) - means).square() / log_var.exp())


def _too_early(z, weights, means, log_var):
    return (weights.log()[:, None] + _each(z, means, log_var)).logsumexp(1).sum(1)


def _by_std(function):
    """The same function of standard deviations in place of log-variances."""
    return lambda z, weights, means, std: function(z, weights, means, 2 * std.log())


def _std_cases():
    return [(z, weights, means, (0.5 * log_var).exp()) for z, weights, means, log_var in _point_cases()]


def _joint_cases():
    near = _normal(7, (6, 3))[0] * 2 - 3
    return [(near,), (near - 1000,), (1000 * near - 50000,)]


def _padded(log_joint):
    padded = log_joint.exp() + 1e-10
    return padded / padded.sum(1, keepdim=True)


def _line_cases():
    cases = []
    for seed, k in ((8, 3), (9, 2)):
        x, raw, means, log_sd = _normal(seed, (12,), (k,), (k,), (k,))
        cases.append((2 * x, raw.softmax(0), means, (0.3 * log_sd).exp()))
    return cases


def _log_normal_line(x, means, sds):
    return -0.5 * (LOG_2PI + ((x[:, None] - means) / sds).square()) - sds.log()


def _resp(x, weights, means, sds):
    return (weights.log() + _log_normal_line(x, means, sds)).softmax(1)


def _resp_without_weights(x, weights, means, sds):
    return _log_normal_line(x, means, sds).softmax(1)


def new_means(x, weights, means, sds, resp=_resp):
    """Eqs. (1.16) and (2.14), on a line."""
    shares = resp(x, weights, means, sds)
    return (shares * x[:, None]).sum(0) / shares.sum(0)


def _published_means(x, weights, means, sds):
    w = _resp_without_weights(x, weights, means, sds).mean(0)
    return (w * x[:, None]).sum(0) / (w * len(x))


def _resp_cases():
    return [(_normal(seed, (n, k))[0].softmax(1),) for seed, n, k in ((10, 8, 3), (11, 5, 2))]


def _cloud_cases():
    cases = []
    for seed, offset in ((12, 0.0), (13, 1e8)):
        x, raw = _normal(seed, (40, 2), (40, 3))
        cases.append((x * torch.tensor([0.5, 2.0], **DOUBLE) + offset, raw.softmax(1)))
    return cases


def variances(x, resp):
    """Eqs. (2.14) and (2.19)."""
    counts = resp.sum(0)[:, None]
    means = resp.T @ x / counts
    return (resp[:, :, None] * (x[:, None] - means).square()).sum(0) / counts


def _second_moments(x, resp):
    counts = resp.sum(0)[:, None]
    return resp.T @ x.square() / counts - (resp.T @ x / counts).square()


def _bound_cases():
    return [tuple(_normal(seed, (n,), (n,), (n,), (n,))) for seed, n in ((14, 6), (15, 9))]


def _line(z, mean, log_var):
    return -0.5 * (LOG_2PI + log_var + (z - mean).square() / log_var.exp())


ZERO, NOISE = torch.zeros((), **DOUBLE), torch.tensor(0.25, **DOUBLE).log()


def toy_elbo(x, mean, log_var, eps, prior=None, scale=0.5, entropy=1.0):
    """Eq. (4.4) with one draw: p(z) = N(0, 1), p(x | z) = N(x | z, 1/4)."""
    z = mean + (scale * log_var).exp() * eps
    prior = (ZERO, ZERO) if prior is None else prior
    return _line(x, z, NOISE) + _line(z, *prior) - entropy * _line(z, mean, log_var)


def _pixel_cases():
    cases = []
    for seed, n, dim in ((16, 5, 8), (17, 3, 20)):
        chance, logits = _normal(seed, (n, dim), (n, dim))
        cases.append(((chance > 0).double(), 3 * logits))
    return cases


def distortion(x, logits):
    """Minus Eq. (5.12)."""
    return (F.softplus(logits) - x * logits).sum(1)


def _grey_cases():
    cases = []
    for seed, n, dim in ((18, 5, 8), (19, 3, 20)):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(17, (n, dim), generator=generator).double() / 16
        cases.append((x, 3 * torch.randn(n, dim, generator=generator, **DOUBLE)))
    return cases


def grey_log_prob(x, logits, levels=17):
    """x a, less the logarithm of what exp(x a) adds up to over the grey levels."""
    every = torch.linspace(0, 1, levels, **DOUBLE)
    return (x * logits - (logits.unsqueeze(-1) * every).logsumexp(-1)).sum(1)


def _continuous_grey(x, logits):
    return (x * logits - ((logits.exp() - 1) / logits).log()).sum(1)


def _head_cases():
    return [tuple(_normal(seed, (n, 4), (4, 3), (3,), (4, 3), (3,))) for seed, n in ((20, 6), (21, 2))]


def heads(h, w_mean, b_mean, w_var, b_var):
    """Eq. (5.5)'s two outputs."""
    return h @ w_mean + b_mean, h @ w_var + b_var


def _choice_cases():
    some = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]], **DOUBLE)
    ten = _normal(22, (4, 10))[0].softmax(1)
    sure = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], **DOUBLE)
    return [(some,), (ten,), (sure,), (torch.ones(2, 1, **DOUBLE),)]


def price(q):
    """Eq. (2.5) for p = 1 / K."""
    return torch.xlogy(q, q).sum(1) + math.log(q.shape[1])


def _prior(z):
    """log p(z) of three unequal components, in the plane."""
    return log_mixture(z, *_mixture(30))


def _rate_cases():
    return [(*_normal(seed, (n, 2), (n, 2), (n, 2)), _prior) for seed, n in ((31, 7), (32, 12))]


def sampled_rate(mean, log_var, eps, log_prior, scale=0.5):
    """The log-ratio whose average is the rate, Eq. (7.11), at one draw."""
    z = mean + (scale * log_var).exp() * eps
    return log_prob_diag(z, mean, log_var) - log_prior(z)


def _entropy_rate(mean, log_var, eps, log_prior):
    entropy = 0.5 * (1 + LOG_2PI + log_var).sum(-1)
    return -entropy - log_prior(mean + (0.5 * log_var).exp() * eps)


def _positive_rate(mean, log_var, eps, log_prior):
    rate = sampled_rate(mean, log_var, eps, log_prior)
    return torch.expm1(-rate) + rate


def _raw_cases():
    return [(torch.tensor([0.3, -1.2, 2.0, 0.0], **DOUBLE),), (torch.tensor([3.0, -2000.0], **DOUBLE),)]


def _cost_cases():
    cases = []
    for seed, n in ((23, 30), (24, 8)):
        shared, own, other = _normal(seed, (n,), (n,), (n,))
        cases.append((100 + 10 * shared + own, 103 + 10 * shared + other))
    return cases


def gain(model, baseline):
    """Mean and Eq. (3.5)'s standard error of the differences."""
    difference = baseline - model
    return difference.mean(), difference.std() / len(difference) ** 0.5


def _unpaired(model, baseline):
    return (baseline - model).mean(), ((model.var() + baseline.var()) / len(model)).sqrt()


def _label_cases():
    y = torch.tensor([0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    clusters = torch.tensor([0, 0, 1, 0, 3, 2, 2, 3, 2, 1, 0, 3, 0, 0])
    return [(y, clusters), (torch.arange(6) // 2, torch.arange(6))]


def _table(y, clusters):
    return F.one_hot(clusters, int(clusters.max()) + 1).T @ F.one_hot(y, int(y.max()) + 1)


def matched_accuracy(y, clusters):
    """The largest share of agreement over one-to-one matchings."""
    table = _table(y, clusters)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return table[rows, columns].sum() / len(y)


def _majority(y, clusters):
    return _table(y, clusters).max(1).values.sum() / len(y)


def _purity_of_classes(y, clusters):
    return _majority(clusters, y)


def _greedy(y, clusters):
    table, hits = _table(y, clusters).clone(), 0
    for _ in range(min(table.shape)):
        row, column = divmod(int(table.argmax()), table.shape[1])
        hits += int(table[row, column])
        table[row], table[:, column] = -1, -1
    return hits / len(y)


def _split_cases():
    cases = []
    for seed, n, m in ((25, 30, 10), (26, 12, 20)):
        parts = _normal(seed, (n,), (n,), (m,), (m,))
        cases.append(tuple(base + part for base, part in zip((60, 20, 90, 21), parts)))
    return cases


def overfitting(train_distortion, train_rate, test_distortion, test_rate):
    """How much dearer a held-out image is than one that was trained on."""
    return (test_distortion.mean() + test_rate.mean()) - (train_distortion.mean() + train_rate.mean())


def _run_cases():
    runs = (([-103.0, -101.5, -102.0, -104.0], [0.81, 0.78, 0.90, 0.84]), ([-99.0, -99.5, -98.0], [0.7, 0.9, 0.6]))
    return [tuple(torch.tensor(values, **DOUBLE) for values in run) for run in runs]


PAIR = (torch.tensor([0.7, 0.3], **DOUBLE), torch.tensor([[-2.5, -1.5], [2.5, 1.5]], **DOUBLE),
        torch.tensor([[0.25, 1.0], [2.0, 0.5]], **DOUBLE).log())
SLANTED = torch.tensor([[1.0, 0.0], [0.9, 0.4]], **DOUBLE)  # the factor of a covariance


def _sample(n, generator, mixture=PAIR, scale=0.5):
    weights, means, log_var = mixture
    c = torch.multinomial(weights, n, replacement=True, generator=generator)
    return means[c] + (scale * log_var[c]).exp() * torch.randn(n, 2, generator=generator, **DOUBLE)


def _sample_slanted(n, generator, factor=SLANTED):
    return torch.randn(n, 2, generator=generator, **DOUBLE) @ factor.T


def _log_slanted(z):
    white = torch.linalg.solve_triangular(SLANTED, z.T, upper=False)
    return -LOG_2PI - 0.5 * white.square().sum(0) - SLANTED.diagonal().log().sum()


def _log_pair(z, mixture=PAIR):
    return log_mixture(z, *mixture)


def _log_loud(z):
    return log_mixture(z, PAIR[0] * 2, *PAIR[1:])


def _test_cases():
    """Samplers and densities: three pairs that belong together, five that do not."""
    other = (PAIR[0].flip(0), *PAIR[1:])
    return [
        (_sample, _log_pair),
        (partial(_sample, mixture=other), _log_loud),
        (partial(_sample, mixture=other), _log_pair),
        (partial(_sample, scale=1.0), _log_pair),
        (_sample, lambda z: _too_early(z, *PAIR)),
        (_sample_slanted, _log_slanted),
        (partial(_sample_slanted, factor=SLANTED @ SLANTED.T), _log_slanted),
        (partial(_sample, mixture=other), partial(_log_pair, mixture=other)),
    ]


def _grid():
    line = torch.arange(-12, 12, 0.1, **DOUBLE) + 0.05
    return torch.cartesian_prod(line, line)


def belong_together(sample, log_prob):
    """Eq. (13.1) for squares of side 1, and the total."""
    z, grid = sample(20_000, torch.Generator().manual_seed(0)), _grid()
    mass = log_prob(grid).exp() * 0.01
    shares = [torch.bincount(_box(points), weights, minlength=784) for points, weights in
              ((z, torch.full((len(z),), 1 / len(z), **DOUBLE)), (grid, mass))]
    return float(bool(abs(mass.sum() - 1) < 0.01 and (shares[0] - shares[1]).abs().max() < 0.02))


def _box(points):
    index = points.floor().clamp(-14, 13).long() + 14
    return index[:, 0] * 28 + index[:, 1]


def _moments(sample, log_prob, squares=False):
    z, grid = sample(20_000, torch.Generator().manual_seed(0)), _grid()
    mass = (log_prob(grid).exp() * 0.01)[:, None]
    means = z.mean(0) - (mass * grid).sum(0)
    if squares:
        means = torch.cat([means, z.square().mean(0) - (mass * grid.square()).sum(0)])
    return float(bool(means.abs().max() < 0.1))


def _adds_up(sample, log_prob):
    return float(bool(abs((log_prob(_grid()).exp() * 0.01).sum() - 1) < 0.01))


EXERCISES = {
    "13.1": Exercise(
        cases=_gaussian_cases,
        solution=log_prob_diag,
        mistakes={
            "this is the snippet: the log-variance stands inside the bracket that the variance divides.":
                lambda z, m, v: (-0.5 * (LOG_2PI + v + _squares(z, m, v)) / v.exp()).sum(-1),
            "the log-variance is still divided by the variance: only the square is.":
                lambda z, m, v: -0.5 * (LOG_2PI + (v + _squares(z, m, v)) / v.exp()).sum(-1),
            "the constant log 2 pi is divided by the variance too: only the square is.":
                lambda z, m, v: -0.5 * (v + (LOG_2PI + _squares(z, m, v)) / v.exp()).sum(-1),
            "the constant is missing: without log 2 pi in each dimension it does not integrate to one.":
                lambda z, m, v: -0.5 * (v + _squares(z, m, v) / v.exp()).sum(-1),
            "log 2 pi is needed once in each dimension, you have it once in all.":
                lambda z, m, v: -0.5 * (LOG_2PI + (v + _squares(z, m, v) / v.exp()).sum(-1)),
            "the log-variance is missing: a wider Gaussian must be lower.":
                lambda z, m, v: -0.5 * (LOG_2PI + _squares(z, m, v) / v.exp()).sum(-1),
            "you divided by log_var as if it were the variance.":
                lambda z, m, v: -0.5 * (LOG_2PI + v + _squares(z, m, v) / v).sum(-1),
            "you took the mean over dimensions: independent coordinates multiply, so their logarithms add up.":
                lambda z, m, v: log_prob_diag(z, m, v) / z.shape[-1],
            "the sign: a log-density falls with the distance.": lambda z, m, v: -log_prob_diag(z, m, v),
        },
        hint="Three terms in each dimension; only one of them is divided.",
    ),
    "13.2": Exercise(
        cases=_draw_cases,
        solution=lambda m, v, e: m + (0.5 * v).exp() * e,
        mistakes={
            "this is the snippet: exp(log_var) is the variance, and noise is multiplied by a standard deviation.":
                lambda m, v, e: m + v.exp() * e,
            "log_var is a logarithm: take the exponential of half of it.": lambda m, v, e: m + v * e,
            "half of the variance is not its root: the half belongs inside the exponential.":
                lambda m, v, e: m + 0.5 * v.exp() * e,
            "the sign is wrong: this noise is the smaller the larger the variance.":
                lambda m, v, e: m + (-0.5 * v).exp() * e,
            "the mean is missing.": lambda m, v, e: (0.5 * v).exp() * e,
        },
        hint="The variance of many draws must be exp(log_var).",
    ),
    "13.3": Exercise(
        cases=_point_cases,
        solution=log_mixture,
        mistakes={
            "this is the snippet: the sum over dimensions adds log pi once in each, which makes it pi to the power d.":
                lambda z, w, m, v: (w.log()[:, None] + _each(z, m, v)).sum(-1).logsumexp(1),
            "now the log-sum-exp comes before the sum over dimensions: each coordinate chooses its own component.":
                _too_early,
            "the weights are gone: log pi_k belongs to each component once.":
                lambda z, w, m, v: _each(z, m, v).sum(-1).logsumexp(1),
            "you divided log pi by the number of dimensions: take it out of the sum instead.":
                lambda z, w, m, v: (w.log() / len(m) + _each(z, m, v).sum(-1)).logsumexp(1),
            "add the logarithm of the weights, not the weights.":
                lambda z, w, m, v: (w + _each(z, m, v).sum(-1)).logsumexp(1),
        },
        hint="Sum over dimensions, add log pi, log-sum-exp over components, in this order.",
    ),
    "13.4": Exercise(
        cases=_std_cases,
        solution=_by_std(log_mixture),
        mistakes={
            "this is the snippet: a mixture in each coordinate by itself, and their product.": _by_std(_too_early),
            "the average over dimensions is no better than the sum: the coordinates must choose together.":
                _by_std(lambda z, w, m, v: _too_early(z, w, m, v) / len(m[0])),
            "the weights are missing.": _by_std(lambda z, w, m, v: _each(z, m, v).sum(-1).logsumexp(1)),
            "log pi is inside the sum over dimensions.":
                _by_std(lambda z, w, m, v: (w.log()[:, None] + _each(z, m, v)).sum(-1).logsumexp(1)),
            "Normal takes standard deviations, and standard deviations were given.":
                lambda z, w, m, s: log_mixture(z, w, m, s.log()),
        },
        hint="Independent(..., 1) tells torch.distributions that the last dimension belongs to one draw.",
    ),
    "13.5": Exercise(
        cases=_joint_cases,
        solution=lambda a: a.softmax(1),
        mistakes={
            "this is the snippet: far from all components only the constant is left, and everybody gets the same.":
                _padded,
            "zero divided by zero is not a number: far points have no density left outside the logarithms.":
                lambda a: a.exp() / a.exp().sum(1, keepdim=True),
            "you subtracted the largest exponent of all points: a row far below is zero by zero. Take each row's.":
                lambda a: (a - a.max()).exp() / (a - a.max()).exp().sum(1, keepdim=True),
            "the constant in the denominator alone gives far points to nobody: their rows sum to zero.":
                lambda a: a.exp() / (a.exp().sum(1, keepdim=True) + 1e-10),
            "you normalized over the points (dim 0): each point's row must sum to one.": lambda a: a.softmax(0),
            "these are the logarithms of the responsibilities.": lambda a: a.log_softmax(1),
        },
        hint="Subtract before you take the exponential.",
    ),
    "13.6": Exercise(
        cases=_line_cases,
        solution=new_means,
        mistakes={
            "this is the published step: without the point's index the w's cancel, and each mean is the mean of all.":
                _published_means,
            "you have the points' index back; now the weights are missing from the responsibilities.":
                partial(new_means, resp=_resp_without_weights),
            "divide by the component's own sum of responsibilities, not by N.":
                lambda x, w, m, s: (_resp(x, w, m, s) * x[:, None]).mean(0),
            "responsibilities are normalized over the components of a point, not over the points.":
                lambda x, w, m, s: ((w.log() + _log_normal_line(x, m, s)).softmax(0) * x[:, None]).sum(0),
            "the densities must know their width: divide by the standard deviation in front of the exponential too.":
                partial(new_means, resp=lambda x, w, m, s: (w.log() + _log_normal_line(x, m, s) + s.log()).softmax(1)),
        },
        hint="A table of responsibilities (N, K) first; then the weighted averages.",
    ),
    "13.7": Exercise(
        cases=_line_cases,
        solution=_resp,
        mistakes={
            "this is the snippet: a rare component counts as much as a common one. Bayes' rule has pi_k in it.":
                _resp_without_weights,
            "add the logarithm of the weights, not the weights.":
                lambda x, w, m, s: (w + _log_normal_line(x, m, s)).softmax(1),
            "multiplied after normalizing, the rows no longer sum to one.":
                lambda x, w, m, s: w * _resp_without_weights(x, w, m, s),
            "you normalized over the points (dim 0).":
                lambda x, w, m, s: (w.log() + _log_normal_line(x, m, s)).softmax(0),
            "the density is divided by its standard deviation: subtract log sigma.":
                lambda x, w, m, s: (w.log() + _log_normal_line(x, m, s) + s.log()).softmax(1),
        },
        hint="log pi_k + log N(x | mu_k, sigma_k), then a softmax over k.",
    ),
    "13.8": Exercise(
        cases=_resp_cases,
        solution=lambda r: r.mean(0),
        mistakes={
            "this is the snippet: each column was divided by its own sum, so every component gets 1 / N.":
                lambda r: (r / r.sum(0)).mean(0),
            "these are the counts N_k: divide by N.": lambda r: r.sum(0),
            "you divided by K: all responsibilities together sum to N.": lambda r: r.sum(0) / r.shape[1],
            "the average over components is 1 / K for every point: average over the points.": lambda r: r.mean(1),
            "count the shares, not the winners: that is k-means.":
                lambda r: F.one_hot(r.argmax(1), r.shape[1]).double().mean(0),
        },
        hint="They sum to one, and a component that owns every point has weight one.",
    ),
    "13.9": Exercise(
        cases=_cloud_cases,
        solution=variances,
        mistakes={
            "this is the snippet: far from zero two huge numbers cancel. Subtract the mean first, then square.":
                _second_moments,
            "the mean of all points was subtracted: each component has its own.":
                lambda x, r: r.T @ (x - x.mean(0)).square() / r.sum(0)[:, None],
            "divide by N_k, not by N.": lambda x, r: variances(x, r) * r.sum(0)[:, None] / len(x),
            "a negative variance set to a floor is still wrong: subtract the mean first.":
                lambda x, r: _second_moments(x, r).clamp_min(1e-6),
            "you returned standard deviations.": lambda x, r: variances(x, r).sqrt(),
            "the formula of maximum likelihood divides by N_k, not by N_k - 1.":
                lambda x, r: variances(x, r) * r.sum(0)[:, None] / (r.sum(0)[:, None] - 1),
            "the sum is not divided by N_k.": lambda x, r: variances(x, r) * r.sum(0)[:, None],
        },
        hint="The data may lie around a hundred million: subtract the mean first, then square.",
    ),
    "13.10": Exercise(
        cases=_bound_cases,
        solution=toy_elbo,
        mistakes={
            "this is the snippet: a prior that is the encoder's output cancels the entropy, and every code is free.":
                lambda x, m, v, e: toy_elbo(x, m, v, e, prior=(m, v)),
            "the prior's mean is still the encoder's: it may not know x.":
                lambda x, m, v, e: toy_elbo(x, m, v, e, prior=(m, ZERO)),
            "the prior's variance is still the encoder's: it may not know x.":
                lambda x, m, v, e: toy_elbo(x, m, v, e, prior=(ZERO, v)),
            "exp(log_var) is the variance: the draw needs its root.":
                lambda x, m, v, e: toy_elbo(x, m, v, e, scale=1.0),
            "the KL in closed form has the same mean over many draws, but here all three are taken at the one draw z.":
                lambda x, m, v, e: _line(x, m + (0.5 * v).exp() * e, NOISE) - 0.5 * (m.square() + v.exp() - 1 - v),
            "a quarter is the variance of the noise, not its standard deviation.":
                lambda x, m, v, e: toy_elbo(x, m, v, e) + _line(x, m + (0.5 * v).exp() * e, 2 * NOISE)
                - _line(x, m + (0.5 * v).exp() * e, NOISE),
            "log q(z|x) must be subtracted.": lambda x, m, v, e: toy_elbo(x, m, v, e, entropy=-1.0),
            "log q(z|x) is missing: the bound is an average of log p(x,z) - log q(z|x).":
                lambda x, m, v, e: toy_elbo(x, m, v, e, entropy=0.0),
        },
        hint="log N(x | z, 1/4) + log N(z | 0, 1) - log N(z | mean, exp(log_var)), at z = mean + sigma eps.",
    ),
    "13.11": Exercise(
        cases=_pixel_cases,
        solution=distortion,
        mistakes={
            "this is the snippet: an average over pixels and images. An image costs the sum over its pixels.":
                lambda x, a: F.binary_cross_entropy_with_logits(a, x),
            "still an average over the pixels: that divides the distortion, and with it beta, by D.":
                lambda x, a: distortion(x, a) / x.shape[1],
            "the sum over pixels is right, but keep one number for each image.": lambda x, a: distortion(x, a).sum(),
            "one number for each image was asked for; the average comes later.": lambda x, a: distortion(x, a).mean(),
            "the sign: a distortion is minus a log-probability.": lambda x, a: -distortion(x, a),
        },
        hint="Try an image of one pixel, then the same pixel twice.",
    ),
    "13.12": Exercise(
        cases=_grey_cases,
        solution=grey_log_prob,
        mistakes={
            "this is the snippet: its probabilities of the 17 grey levels do not sum to one.":
                lambda x, a: -distortion(x, a),
            "you normalized over all grey values between 0 and 1: these pixels have 17.": _continuous_grey,
            "the Bernoulli formula was normalized already over 0 and 1: replace its softplus, do not subtract again "
            "the logarithm of 17.": lambda x, a: -distortion(x, a) - math.log(17) * x.shape[1],
            "this is chapter 5's Binomial, with its number of ways and its 16 trials: here only exp(x a) is divided.":
                lambda x, a: torch.distributions.Binomial(16, logits=a).log_prob((16 * x).round()).sum(1),
            "sixteen levels: there are 17, with zero.": lambda x, a: grey_log_prob(x, a, levels=16),
        },
        hint="x a less the logarithm of the sum of exp(v a) over v = 0, 1/16, ..., 1; then the sum over pixels.",
    ),
    "13.13": Exercise(
        cases=_head_cases,
        solution=heads,
        mistakes={
            "this is the snippet: log_var uses the mean's weights.":
                lambda h, a, b, c, d: (h @ a + b, h @ a + d),
            "now log_var is the mean, bias and all.": lambda h, a, b, c, d: (h @ a + b, h @ a + b),
            "the two outputs are exchanged: the mean comes first.": lambda h, a, b, c, d: (h @ c + d, h @ a + b),
            "the biases are exchanged.": lambda h, a, b, c, d: (h @ a + d, h @ c + b),
            "log_var was asked for, not its exponential.": lambda h, a, b, c, d: (h @ a + b, (h @ c + d).exp()),
            "the biases are missing.": lambda h, a, b, c, d: (h @ a, h @ c),
        },
        hint="Each of the four parameters should appear once.",
    ),
    "13.14": Exercise(
        cases=_choice_cases,
        solution=price,
        mistakes={
            "this is the first program: log 10 is right for ten components only.":
                lambda q: torch.xlogy(q, q).sum(1) - math.log(0.1),
            "this is the second program, KL(U || q): it averages over the uniform distribution in place of q.":
                lambda q: -math.log(q.shape[1]) - q.log().mean(1),
            "0 log 0 is 0, but q.log() makes it NaN: use torch.xlogy.":
                lambda q: (q * q.log()).sum(1) + math.log(q.shape[1]),
            "the sign of the entropy is wrong: who is sure pays more.":
                lambda q: -torch.xlogy(q, q).sum(1) + math.log(q.shape[1]),
            "this is minus the entropy alone: log K is missing, and a price below zero.":
                lambda q: torch.xlogy(q, q).sum(1),
            "log K must be added to minus the entropy: a price is never negative.":
                lambda q: torch.xlogy(q, q).sum(1) - math.log(q.shape[1]),
            "an average over components: a KL divergence is a sum.": lambda q: price(q) / q.shape[1],
        },
        hint="sum_k q_k log(q_k / (1/K)).",
    ),
    "13.15": Exercise(
        cases=_raw_cases,
        solution=lambda raw: raw.log_softmax(0),
        mistakes={
            "divided by their sum, negative numbers stay negative, and their logarithm is not a number.":
                lambda raw: (raw / raw.sum()).log(),
            "this is the snippet's idea, cut off below: these weights still sum to anything.":
                lambda raw: raw.clamp_min(1e-6).log(),
            "clipped and divided they sum to one, but a number that was clipped has no gradient and stays dead.":
                lambda raw: (raw.clamp_min(1e-6) / raw.clamp_min(1e-6).sum()).log(),
            "these are logarithms of positive numbers, but their exponentials do not sum to one.": lambda raw: raw,
            "these are the weights: their logarithms were asked for.": lambda raw: raw.softmax(0),
            "each sigmoid is below one, but together they sum to anything.": lambda raw: raw.sigmoid().log(),
            "exp(-2000) is zero and its logarithm minus infinity: torch.log_softmax never leaves the logarithms.":
                lambda raw: raw.softmax(0).log(),
            "softplus makes them positive, but weights proportional to exp(raw) were asked for.":
                lambda raw: (F.softplus(raw) / F.softplus(raw).sum()).log(),
        },
        hint="Every number is allowed, and the exponentials of the result sum to one.",
    ),
    "13.16": Exercise(
        cases=_rate_cases,
        solution=sampled_rate,
        mistakes={
            "you have clipped the innocent. A KL is an average of terms that may be negative; clipped, their average "
            "is too large. The snippet was right.": lambda m, v, e, p: sampled_rate(m, v, e, p).clamp_min(0),
            "you took the absolute value of an innocent's terms: their average is then no KL. The snippet was right.":
                lambda m, v, e, p: sampled_rate(m, v, e, p).abs(),
            "the square is never negative, but its average is no KL. The snippet was right.":
                lambda m, v, e, p: 0.5 * sampled_rate(m, v, e, p).square(),
            "the order was right, log q - log p: where the average is negative now, it was positive before. This was "
            "the innocent one.": lambda m, v, e, p: -sampled_rate(m, v, e, p),
            "the draw had its root already: log_var was halved. You have put case 2's bug into the one snippet that "
            "was right.": partial(sampled_rate, scale=1.0),
            "Eq. (8.8)'s entropy is right as well, and has the same average. But there was nothing to repair: the "
            "snippet was the innocent one.": _entropy_rate,
            "this has the right average, too, and is never negative. But there was nothing to repair: the snippet was "
            "the innocent one.": _positive_rate,
            "this is the rate under N(0, I): the prior was given, and the snippet was right.":
                lambda m, v, e, p: 0.5 * (m.square() + v.exp() - 1 - v).sum(-1),
            "log q(z|x) is missing now: without the entropy it is no rate. The snippet was right.":
                lambda m, v, e, p: -p(m + (0.5 * v).exp() * e),
            "one number for each image was asked for; the average comes later. (It is what must not be negative.)":
                lambda m, v, e, p: sampled_rate(m, v, e, p).mean(),
        },
        hint="A KL divergence is an average over z. Must every term of an average be positive?",
    ),
    "13.17": Exercise(
        cases=_cost_cases,
        solution=gain,
        mistakes={
            "the sign: costs are compared, so a gain is the baseline's less the model's.":
                lambda m, b: (-gain(m, b)[0], gain(m, b)[1]),
            "the images are the same for both, so take the differences first: their spread is much smaller.": _unpaired,
            "this is the spread of single images: the mean's is smaller by the root of N.":
                lambda m, b: (gain(m, b)[0], (b - m).std()),
            "divide by N - 1 when you estimate a variance from its own mean (torch.std does by default).":
                lambda m, b: (gain(m, b)[0], (b - m).std(correction=0) / len(m) ** 0.5),
            "this is the baseline's own spread: take the differences image by image first.":
                lambda m, b: (gain(m, b)[0], b.std() / len(m) ** 0.5),
            "divide by the root of N, not by N.": lambda m, b: (gain(m, b)[0], (b - m).std() / len(m)),
        },
        hint="Differences image by image; their mean; their standard deviation over the root of N.",
    ),
    "13.18": Exercise(
        cases=_label_cases,
        solution=matched_accuracy,
        mistakes={
            "this is the snippet, majority vote: two clusters may take the same class.": _majority,
            "here two classes may take the same cluster: match them one to one.": _purity_of_classes,
            "you gave the fullest cell away first: the best matching of all is another. linear_sum_assignment finds "
            "it.": _greedy,
            "that is a count: divide by the number of points.": lambda y, c: matched_accuracy(y, c) * len(y),
            "the clusters' numbers mean nothing: cluster 0 need not be class 0.":
                lambda y, c: (y == c).double().mean(),
        },
        hint="Count the table (clusters, classes), and let scipy.optimize.linear_sum_assignment maximize.",
    ),
    "13.19": Exercise(
        cases=_split_cases,
        solution=overfitting,
        mistakes={
            "this is the claim's own measure, the KL: a rate says what a code costs, not what was memorized.":
                lambda a, b, c, d: b.mean(),
            "the sign: overfitting makes held-out images dearer than training images.":
                lambda a, b, c, d: -overfitting(a, b, c, d),
            "the distortion alone is half of the cost.": lambda a, b, c, d: c.mean() - a.mean(),
            "the rates alone are half of the cost.": lambda a, b, c, d: d.mean() - b.mean(),
            "sums over sets of different sizes cannot be compared: take means.":
                lambda a, b, c, d: c.sum() + d.sum() - a.sum() - b.sum(),
            "the rate is a cost too: add it to the distortion.":
                lambda a, b, c, d: (c.mean() - d.mean()) - (a.mean() - b.mean()),
            "the signs of distortion and rate differ: both are costs.":
                lambda a, b, c, d: (d.mean() - c.mean()) - (b.mean() - a.mean()),
        },
        hint="D + R of an image is its cost. Compare the mean costs of the two sets.",
    ),
    "13.20": Exercise(
        cases=_run_cases,
        solution=lambda bounds, accuracies: accuracies[bounds.argmax()],
        mistakes={
            "this is the snippet: the test labels have chosen the run that they are to judge.":
                lambda b, a: a.max(),
            "the larger bound is the better one.": lambda b, a: a[b.argmin()],
            "this is the bound of the run, not its accuracy.": lambda b, a: b.max(),
            "this is the number of the run: return its accuracy.": lambda b, a: b.argmax(),
            "the mean over runs is honest too, but it is not the run that one would use.": lambda b, a: a.mean(),
        },
        hint="Choose without looking at the accuracies; then look once.",
    ),
    "13.21": Exercise(
        cases=_test_cases,
        solution=belong_together,
        mistakes={
            "a comparison of means and squares would say as much; a mixture and a product of mixtures may share both. "
            "Count in boxes.": partial(_moments, squares=True),
            "a comparison of means would say as much; means may agree by accident: count in smaller boxes.": _moments,
            "to see whether the density adds up to one would say as much. So does many a wrong one.": _adds_up,
            "your test says yes to everything: a test must be able to fail.": lambda s, f: 1.0,
            "your test says no to everything, also to pairs that belong together.": lambda s, f: 0.0,
        },
        hint="A share in each of many boxes, of draws and of density; and the sum over all boxes.",
    ),
}  # fmt: skip

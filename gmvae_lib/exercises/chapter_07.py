"""Exercises of chapter 7: the prior is the problem."""

import math

import torch

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import LOG_2PI


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _terms(z, mean, log_var):
    """log N of each z (M, 1), image (1, N) and coordinate: (M, N, d)."""
    return -0.5 * (LOG_2PI + log_var + (z.unsqueeze(1) - mean) ** 2 / log_var.exp())


def _log_aggregate(z, mean, log_var):
    return torch.logsumexp(_terms(z, mean, log_var).sum(-1), 1) - math.log(len(mean))


def _codes(n, dim, seed=0):
    return 2 * _normal(n, dim, seed=seed), _normal(n, dim, seed=seed + 1) - 1.5


def _aggregate_cases():
    mean, log_var = _codes(7, 3)
    far = _normal(4, 2, seed=3) + torch.tensor([80.0, -60.0], dtype=torch.float64)
    return [(_normal(5, 3, seed=2), mean, log_var), (2 * _normal(6, 2, seed=4), *_codes(9, 2, seed=5)),
            (far, *_codes(6, 2, seed=7))]


def _table(n, dim, width, seed=0):
    """log q(z_n | x_m), z_n from q(z | x_n): (N, N)."""
    mean, log_var = 2 * _normal(n, dim, seed=seed), torch.full((n, dim), 2 * math.log(width), dtype=torch.float64)
    return _terms(mean + width * _normal(n, dim, seed=seed + 1), mean, log_var).sum(-1)


def _information(log_q):
    return (log_q.diagonal() - log_q.logsumexp(1)).mean() + math.log(len(log_q))


def _moments(mean, log_var):
    apart = mean - mean.mean(0)
    return mean.mean(0), apart.T @ apart / len(mean) + log_var.exp().mean(0).diag()


def _gain(log_r, log_p):
    gains = (log_r - log_p).mean(0)
    return gains.mean(), gains.std() / math.sqrt(len(gains))


def _gain_cases():
    image = _normal(1, 30, seed=1)
    log_p = -10 + 3 * _normal(5, 30)
    return [(log_p + 2 + image + 0.3 * _normal(5, 30, seed=2), log_p),
            (log_p[:, :9] - 1 + 0.5 * _normal(5, 9, seed=4), log_p[:, :9])]


def _best(log_q, log_p):
    return 0.5 + 0.5 * (1 - (log_p - log_q).exp()).clamp_min(0).mean()


def _best_cases():
    wide = 600 * _normal(12, seed=8)
    return [(_normal(9) - 3, _normal(9, seed=1) - 3), (_normal(8, seed=2) + 120, _normal(8, seed=3) + 120),
            (_normal(12, seed=4) - 2500, _normal(12, seed=5) - 2500), (wide, -wide)]


EXERCISES = {
    "7.1": Exercise(
        cases=_aggregate_cases,
        solution=_log_aggregate,
        mistakes={
            "the weights 1/N are missing: subtract log N.":
                lambda z, mean, log_var: torch.logsumexp(_terms(z, mean, log_var).sum(-1), 1),
            "you summed over dimensions after the logsumexp: that is a product of 1-D mixtures, with N^d centers.":
                lambda z, mean, log_var: (torch.logsumexp(_terms(z, mean, log_var), 1) - math.log(len(mean))).sum(-1),
            "this is the mean of the logarithms: the densities are averaged, and then the logarithm is taken.":
                lambda z, mean, log_var: _terms(z, mean, log_var).sum(-1).mean(1),
            "this is the density, not its logarithm.":
                lambda z, mean, log_var: _log_aggregate(z, mean, log_var).exp(),
            "exp underflows far from every code: stay in logarithms (logsumexp).":
                lambda z, mean, log_var: _terms(z, mean, log_var).sum(-1).exp().mean(1).log(),
            "log_var is the logarithm of the variance: you divided by its root.":
                lambda z, mean, log_var: torch.logsumexp((-0.5 * (
                    LOG_2PI + log_var + (z.unsqueeze(1) - mean) ** 2 / (0.5 * log_var).exp())).sum(-1), 1)
                - math.log(len(mean)),
            "log_var is the logarithm of the variance, not of the standard deviation: do not double it.":
                lambda z, mean, log_var: _log_aggregate(z, mean, 2 * log_var),
            "the term log(2 pi) of each dimension is missing.":
                lambda z, mean, log_var: _log_aggregate(z, mean, log_var) + 0.5 * LOG_2PI * mean.shape[1],
            "the log-variances are missing from the logarithm of each Gaussian: its norm depends on them.":
                lambda z, mean, log_var: torch.logsumexp((_terms(z, mean, log_var) + 0.5 * log_var).sum(-1), 1)
                - math.log(len(mean)),
            "divide by the number of images N, not by that of the points M.":
                lambda z, mean, log_var: _log_aggregate(z, mean, log_var) + math.log(len(mean) / len(z)),
            "the squares are divided by the variance: you multiplied.":
                lambda z, mean, log_var: torch.logsumexp((-0.5 * (
                    LOG_2PI + log_var + (z.unsqueeze(1) - mean) ** 2 * log_var.exp())).sum(-1), 1)
                - math.log(len(mean)),
            "the factor one half in front of each Gaussian's exponent is missing.":
                lambda z, mean, log_var: torch.logsumexp(2 * _terms(z, mean, log_var).sum(-1), 1)
                - math.log(len(mean)),
            "you took the mean over dimensions: coordinates multiply, so their logarithms add up.":
                lambda z, mean, log_var: torch.logsumexp(_terms(z, mean, log_var).mean(-1), 1) - math.log(len(mean)),
            "you summed over the points z: the sum runs over the images.":
                lambda z, mean, log_var: torch.logsumexp(_terms(z, mean, log_var).sum(-1), 0) - math.log(len(mean)),
        },
        hint="With one image it must be log_prob_diag.",
    ),
    "7.2": Exercise(
        cases=lambda: [(_table(8, 2, 0.7),), (_table(12, 3, 1.5, seed=4),), (_table(6, 2, 1e-3, seed=8),)],
        solution=_information,
        mistakes={
            "log N is missing: q(z) has the weights 1/N.":
                lambda log_q: (log_q.diagonal() - log_q.logsumexp(1)).mean(),
            "log N enters with the other sign: q(z) is the sum divided by N.":
                lambda log_q: (log_q.diagonal() - log_q.logsumexp(1)).mean() - math.log(len(log_q)),
            "the sum in q(z) runs over the images, the columns: you summed over the draws.":
                lambda log_q: (log_q.diagonal() - log_q.logsumexp(0)).mean() + math.log(len(log_q)),
            "a draw counts under its own image only, the diagonal: you averaged over all pairs.":
                lambda log_q: (log_q - log_q.logsumexp(1, keepdim=True)).mean() + math.log(len(log_q)),
            "the draw's own image belongs to q(z) too: you left the diagonal out of the sum.":
                lambda log_q: (log_q.diagonal() - (log_q - torch.diag(torch.full((len(log_q),), math.inf).to(log_q)))
                               .nan_to_num(nan=-math.inf, neginf=-math.inf).logsumexp(1)).mean()
                + math.log(len(log_q)),
            "q(z) is the mean of densities: you took the mean of their logarithms.":
                lambda log_q: (log_q.diagonal() - log_q.mean(1)).mean(),
            "average over the images: you summed.":
                lambda log_q: len(log_q) * _information(log_q),
            "the sign is wrong: information is not negative on average.": lambda log_q: -_information(log_q),
            "this is Eq. (7.6), by the entropy of each row: right on average, but not Eq. (7.4) at these draws.":
                lambda log_q: math.log(len(log_q)) - torch.special.entr(log_q.softmax(1)).sum(1).mean(),
            "this is the entropy part, the average of log q(z|x): divide by q(z).":
                lambda log_q: log_q.diagonal().mean(),
        },
        hint="For Gaussians that do not overlap it must be log N.",
    ),
    "7.3": Exercise(
        cases=lambda: [_codes(9, 3), _codes(5, 2, seed=6)],
        solution=_moments,
        mistakes={
            "the mean of the variances is missing: this is the covariance of the means alone.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov(correction=0)),
            "the mean of the variances is missing, and the sum is divided by N - 1.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov()),
            "divide by N, not by N - 1: all N Gaussians are there, nothing is estimated.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov() + log_var.exp().mean(0).diag()),
            "you added standard deviations: variances add up.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov(correction=0) + (0.5 * log_var).exp().mean(0).diag()),
            "average the variances, not their logarithms.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov(correction=0) + log_var.mean(0).exp().diag()),
            "log_var holds logarithms: take exp before you average.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov(correction=0) + log_var.mean(0).diag()),
            "the second moment about zero is no covariance: subtract the mean first.":
                lambda mean, log_var: (mean.mean(0), mean.T @ mean / len(mean) + log_var.exp().mean(0).diag()),
            "the scatter of the means is missing: this is the mean covariance of the Gaussians.":
                lambda mean, log_var: (mean.mean(0), log_var.exp().mean(0).diag()),
            "the variances belong on the diagonal only: you added them to whole rows.":
                lambda mean, log_var: (mean.mean(0), mean.T.cov(correction=0) + log_var.exp().mean(0)),
        },
        hint="If all means are equal, the covariance must be diagonal, with the mean variances.",
    ),
    "7.4": Exercise(
        cases=_gain_cases,
        solution=_gain,
        mistakes={
            "the error is that of L N independent draws: but draws of one image say nothing about other images.":
                lambda log_r, log_p: ((log_r - log_p).mean(), (log_r - log_p).std() / math.sqrt(log_r.numel())),
            "this is the standard deviation over images: divide by the root of N.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0], (log_r - log_p).mean(0).std()),
            "divide the standard deviation by the root of N, not by N.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0], (log_r - log_p).mean(0).std() / log_r.shape[1]),
            "the error is that of the draws, for these very images: new images differ more.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0],
                                      (log_r - log_p).mean(1).std() / math.sqrt(len(log_r))),
            "take the difference first: both priors have the same draws, and what they share cancels.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0], torch.hypot(
                    log_r.mean(0).std(), log_p.mean(0).std()) / math.sqrt(log_r.shape[1])),
            "divide by the root of the number of images, not of draws.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0], (log_r - log_p).mean(0).std() / math.sqrt(len(log_r))),
            "the sign is wrong: the gain is log r minus log p.":
                lambda log_r, log_p: (-_gain(log_r, log_p)[0], _gain(log_r, log_p)[1]),
            "the standard deviation divides by N - 1 (or the error by N (N - 1)): you divided by N.":
                lambda log_r, log_p: (_gain(log_r, log_p)[0],
                                      (log_r - log_p).mean(0).std(correction=0) / math.sqrt(log_r.shape[1])),
        },
        hint="With one draw an image it is the mean of N differences and that mean's standard error.",
    ),
    "7.5": Exercise(
        cases=_best_cases,
        solution=_best,
        mistakes={
            "the other half is missing: without any difference the accuracy is one half.":
                lambda log_q, log_p: 0.5 * (1 - (log_p - log_q).exp()).clamp_min(0).mean(),
            "this is the total variation: the accuracy is one half plus half of it.":
                lambda log_q, log_p: (1 - (log_p - log_q).exp()).clamp_min(0).mean(),
            "only places where q is larger count (clamp at zero): else the mean is zero, whatever p and q.":
                lambda log_q, log_p: 0.5 + 0.5 * (1 - (log_p - log_q).exp()).mean(),
            "the whole of |p - q| needs draws from p too; with draws of q, places where p is larger are seen too "
            "seldom: use only those where q is larger.":
                lambda log_q, log_p: 0.5 + 0.25 * (1 - (log_p - log_q).exp()).abs().mean(),
            "max(p, q) needs draws from p too: where p is larger, draws from q are too few. Use only places where q is "
            "larger.":
                lambda log_q, log_p: 0.5 * (log_p - log_q).exp().clamp_min(1).mean(),
            "the ratio is upside down: it is p over q, since the draws are from q.":
                lambda log_q, log_p: 0.5 + 0.5 * (1 - (log_q - log_p).exp()).clamp_min(0).mean(),
            "exp of the log-densities under- or overflows: take the exp of their difference.":
                lambda log_q, log_p: 0.5 + 0.5 * (1 - log_p.exp() / log_q.exp()).clamp_min(0).mean(),
            "exp of the log-densities under- or overflows, and your repair hides it: take the exp of their difference.":
                lambda log_q, log_p: 0.5 + 0.5 * (1 - log_p.exp() / log_q.exp()).nan_to_num(0, 0, 0).clamp_min(0)
                .mean(),
            "this is the difference of log-densities: a total variation needs the densities themselves.":
                lambda log_q, log_p: 0.5 + 0.5 * (log_q - log_p).clamp_min(0).mean(),
            "the share of draws where q is larger is the accuracy on draws from q only; half of the draws are from p.":
                lambda log_q, log_p: (log_q > log_p).double().mean(),
        },
        hint="For equal densities it must be one half, and for log_q far above log_p everywhere it must be one.",
    ),
}

"""Exercises of chapter 5: the variational autoencoder."""

import math

import torch
from torch.nn.functional import softplus

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import kl_standard


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _counts(*shape, n, seed=0):
    return torch.randint(n + 1, shape, generator=torch.Generator().manual_seed(seed)).double()


def _binomial(x, logits, n):
    log_choices = math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
    return (log_choices + x * logits - n * softplus(logits)).sum(-1)


def _gradient(mean, log_var, eps, inner=0.5):
    """Of E[sin z]; `inner` is the factor in d sigma / d log_var = sigma / 2."""
    sigma = (0.5 * log_var).exp()
    slope = (mean + sigma * eps).cos()
    return slope.mean(), (slope * inner * sigma * eps).mean()


def _gradient_exp(mean, log_var, eps):
    sigma = log_var.exp()
    slope = (mean + sigma * eps).cos()
    return slope.mean(), (slope * sigma * eps).mean()


def _bound(log_ratio):
    return torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))


def _share(low, high, x_hat, sigma):
    a, b = (low - x_hat) / sigma, (high - x_hat) / sigma
    a, b = torch.where(a + b > 0, -b, a), torch.where(a + b > 0, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return log_b + torch.log(-torch.expm1(log_a - log_b))


def _plain(low, high, x_hat, sigma):
    return (torch.special.ndtr((high - x_hat) / sigma) - torch.special.ndtr((low - x_hat) / sigma)).log()


def _density(x, x_hat, sigma):
    return -0.5 * ((x - x_hat) / sigma).square() - math.log(sigma) - 0.5 * math.log(2 * math.pi)


def _inside(x, x_hat, sigma):
    return _share(0 * x - 0.5, 0 * x + 16.5, x_hat, sigma)


def _truncated(x, x_hat, sigma):
    return (_share(x - 0.5, x + 0.5, x_hat, sigma) - _inside(x, x_hat, sigma)).sum(-1)


EXERCISES = {
    "5.1": Exercise(
        cases=lambda: [(_normal(5, 3), _normal(5, 3, seed=1)), (_normal(2, 4, seed=2), _normal(2, 4, seed=3) - 2)],
        solution=kl_standard,
        mistakes={
            "you used sigma where log sigma² is meant: log_var is the logarithm of the variance.":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.square() - 1 - log_var.square().log()).sum(-1),
            "you took exp(log_var) for sigma and squared it: exp(log_var) is sigma² already.":
                lambda mean, log_var: 0.5 * (mean.square() + (2 * log_var).exp() - 1 - 2 * log_var).sum(-1),
            "you squared exp(log_var): it is sigma² already.":
                lambda mean, log_var: 0.5 * (mean.square() + (2 * log_var).exp() - 1 - log_var).sum(-1),
            "the last term is log sigma², which is log_var itself: you halved it.":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.exp() - 1 - 0.5 * log_var).sum(-1),
            "the second term is sigma², which is exp(log_var): you took sigma.":
                lambda mean, log_var: 0.5 * (mean.square() + (0.5 * log_var).exp() - 1 - log_var).sum(-1),
            "you used sigma and log sigma: the rate has sigma² and log sigma².":
                lambda mean, log_var: 0.5 * (mean.square() + (0.5 * log_var).exp() - 1 - 0.5 * log_var).sum(-1),
            "you averaged over dimensions: the rate is their sum.":
                lambda mean, log_var: kl_standard(mean, log_var) / mean.shape[-1],
            "the half is missing.": lambda mean, log_var: 2 * kl_standard(mean, log_var),
            "you summed over the points too: keep one rate for each, of shape (N,).":
                lambda mean, log_var: kl_standard(mean, log_var).sum(),
            "you averaged over the points: keep one rate for each, of shape (N,).":
                lambda mean, log_var: kl_standard(mean, log_var).mean(),
            "you did not sum over the dimensions: the result has shape (N,).":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.exp() - 1 - log_var),
            "you summed over points (axis 0) in place of dimensions (the last axis).":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(0),
            "the sign is wrong: a KL divergence is never negative.": lambda mean, log_var: -kl_standard(mean, log_var),
            "the sign of log_var is wrong: the rate must grow as sigma shrinks.":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.exp() - 1 + log_var).sum(-1),
            "the mean must be squared.": lambda mean, log_var: 0.5 * (mean + log_var.exp() - 1 - log_var).sum(-1),
            "the -1 is missing: the rate must be zero for mean 0 and log_var 0.":
                lambda mean, log_var: 0.5 * (mean.square() + log_var.exp() - log_var).sum(-1),
        },
        hint="It must be zero for mean 0 and log_var 0, and positive everywhere else.",
    ),
    "5.2": Exercise(
        cases=lambda: [(_counts(4, 6, n=16), 2 * _normal(4, 6), 16), (_counts(3, 5, n=4), _normal(3, 5), 4),
                       (_counts(2, 3, n=16), 3000 * _normal(2, 3, seed=5), 16)],
        solution=_binomial,
        mistakes={
            "log C(n, x) is missing: without it the probabilities of a pixel's values do not sum to one.":
                lambda x, logits, n: (x * logits - n * softplus(logits)).sum(-1),
            "you averaged over pixels: the log-probabilities of independent pixels add up.":
                lambda x, logits, n: _binomial(x, logits, n) / x.shape[-1],
            "you summed over the points too: the result has shape (N,).":
                lambda x, logits, n: _binomial(x, logits, n).sum(),
            "you did not sum over the pixels: the result has shape (N,).":
                lambda x, logits, n: torch.stack([_binomial(a.unsqueeze(-1), b.unsqueeze(-1), n)
                                                  for a, b in zip(x, logits, strict=True)]),
            "softplus must be multiplied by n: there are n trials, not one.":
                lambda x, logits, n: (_binomial(x, logits, n) + (n - 1) * softplus(logits).sum(-1)),
            "the sign is wrong: this is the distortion, not the log-likelihood.":
                lambda x, logits, n: -_binomial(x, logits, n),
            "you averaged over the points: the result has shape (N,).":
                lambda x, logits, n: _binomial(x, logits, n).mean(),
            "log C(n, x) lacks (n - x)! in its denominator.":
                lambda x, logits, n: _binomial(x, logits, n) + torch.lgamma(n - x + 1).sum(-1),
            "log C(n, x) has the wrong sign.":
                lambda x, logits, n: 2 * (x * logits - n * softplus(logits)).sum(-1) - _binomial(x, logits, n),
            "you fixed n at 16: it is the argument n.": lambda x, logits, n: _binomial(x, logits, 16),
            "exp(logits) overflows for large logits: use softplus.":
                lambda x, logits, n: (math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
                                      + x * logits - n * (1 + logits.exp()).log()).sum(-1),
            "the sigmoid is rounded to 0 or 1 for large logits: use softplus, or logits=...":
                lambda x, logits, n: torch.distributions.Binomial(n, probs=logits.sigmoid()).log_prob(x).sum(-1),
            "lgamma(k) is log (k-1)!: use lgamma(k + 1) for log k!.":
                lambda x, logits, n: (math.lgamma(n) - torch.lgamma(x) - torch.lgamma(n - x) + x * logits
                                      - n * softplus(logits)).sum(-1),
            "log(sigmoid) breaks down for large logits (the logarithm of a rounded zero): use softplus.":
                lambda x, logits, n: (math.lgamma(n + 1) - torch.lgamma(x + 1) - torch.lgamma(n - x + 1)
                                      + x * logits.sigmoid().log() + (n - x) * (1 - logits.sigmoid()).log()).sum(-1),
        },
        hint="Try one pixel: over x = 0..n the probabilities must sum to one.",
    ),
    "5.3": Exercise(
        cases=lambda: [(1 + 3 * _normal(20, 6), _normal(20, 6, seed=1)),
                       (_normal(5, 50), 0.5 * _normal(5, 50, seed=2))],
        solution=lambda x, x_hat: (x - x_hat).square().mean().sqrt(),
        mistakes={
            "this is sigma², the variance: return its square root.": lambda x, x_hat: (x - x_hat).square().mean(),
            "you averaged the errors' sizes: average their squares, then take the root.":
                lambda x, x_hat: (x - x_hat).abs().mean(),
            "you summed over the pixels and averaged over points only: one sigma serves all N·D pixels.":
                lambda x, x_hat: (x - x_hat).square().sum(1).mean().sqrt(),
            "you averaged over pixels and summed over the points: one sigma serves all N·D pixels.":
                lambda x, x_hat: (x - x_hat).square().mean(1).sum().sqrt(),
            "you summed the squares: divide by N·D.": lambda x, x_hat: (x - x_hat).square().sum().sqrt(),
            "you subtracted the errors' mean: a constant error is an error too. Divide the plain squares by N·D.":
                lambda x, x_hat: (x - x_hat).std(),
            "you subtracted the errors' mean (and divided by N·D): a constant error is an error too.":
                lambda x, x_hat: (x - x_hat).std(correction=0),
            "this is log sigma.": lambda x, x_hat: (x - x_hat).square().mean().sqrt().log(),
            "you took a sigma for each pixel: the decoder has one for all.":
                lambda x, x_hat: (x - x_hat).square().mean(0).sqrt(),
            "you averaged one root for each point: average all squares first, then take the root.":
                lambda x, x_hat: (x - x_hat).square().mean(1).sqrt().mean(),
        },
        hint="Compare the mean log-likelihood at your sigma with that slightly above and below it.",
    ),
    "5.4": Exercise(
        cases=lambda: [(torch.tensor(0.3, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64), _normal(500)),
                       (torch.tensor(-1.2, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64),
                        _normal(50, seed=1))],
        solution=_gradient,
        mistakes={
            "the second is the derivative with respect to sigma: with respect to log sigma² there is another factor "
            "sigma / 2.": lambda mean, log_var, eps: (
                (slope := (mean + (0.5 * log_var).exp() * eps).cos()).mean(), (slope * eps).mean()),
            "the half is missing: sigma = exp(log_var / 2), so its derivative is sigma / 2.":
                lambda mean, log_var, eps: _gradient(mean, log_var, eps, inner=1.0),
            "you used exp(log_var) as sigma: it is sigma².": _gradient_exp,
            "you summed over the draws: average.": lambda mean, log_var, eps: tuple(
                len(eps) * part for part in _gradient(mean, log_var, eps)),
            "the derivative of sin z is cos z.": lambda mean, log_var, eps: (
                (value := (mean + (0.5 * log_var).exp() * eps).sin()).mean(),
                (value * 0.5 * (0.5 * log_var).exp() * eps).mean()),
            "you forgot the draw: z is mean + sigma * eps, not mean.": lambda mean, log_var, eps: (
                mean.cos(), torch.zeros_like(mean)),
            "in the second, eps is missing: the derivative of z by sigma is eps.": lambda mean, log_var, eps: (
                (slope := (mean + (0.5 * log_var).exp() * eps).cos()).mean(),
                (slope * 0.5 * (0.5 * log_var).exp()).mean()),
            "the two results are exchanged: first that for mean, then that for log_var.":
                lambda mean, log_var, eps: _gradient(mean, log_var, eps)[::-1],
        },
        hint="Chain rule: f'(z) times the derivative of z = mean + exp(log_var / 2) * eps, averaged over eps.",
    ),
    "5.5": Exercise(
        cases=lambda: [(3 * _normal(7, 4),), (_normal(50, 3, seed=1) - 2000,)],
        solution=_bound,
        mistakes={
            "this is the ELBO, the mean of the logarithms: take the logarithm of the mean.": lambda r: r.mean(0),
            "log S is missing: the sum of S ratios is not yet their mean.": lambda r: torch.logsumexp(r, 0),
            "the numbers underflow: exp of -2000 is a rounded zero. Use torch.logsumexp.":
                lambda r: r.exp().mean(0).log(),
            "you averaged over the points (the last axis) in place of the draws (axis 0).":
                lambda r: torch.logsumexp(r, 1) - math.log(r.shape[1]),
            "you divided by N, the number of points: divide by S, the number of draws.":
                lambda r: torch.logsumexp(r, 0) - math.log(r.shape[1]),
            "you divided the logarithm by S: subtract log S.": lambda r: torch.logsumexp(r, 0) / len(r),
            "you divided by S·N: for each point there are S ratios to average.":
                lambda r: torch.logsumexp(r, 0) - math.log(r.numel()),
            "you added log S: subtract it.": lambda r: torch.logsumexp(r, 0) + math.log(len(r)),
            "you averaged over the points too: the result has shape (N,).": lambda r: _bound(r).mean(),
            "this is the best draw alone: average over all.": lambda r: r.amax(0),
            "the largest ratio that you subtracted must be added again after the logarithm.":
                lambda r: (r - r.amax(0)).exp().mean(0).log(),
            "the largest ratio of all that you subtracted must be added again after the logarithm.":
                lambda r: (r - r.max()).exp().mean(0).log(),
        },
        hint="With S = 1 it must return log_ratio's only row.",
    ),
    "5.6": Exercise(
        cases=lambda: [(_counts(4, 3, n=16), 8 + 4 * _normal(4, 3, seed=1), 1.9),
                       (_counts(3, 5, n=16, seed=2), 8 + 10 * _normal(3, 5, seed=3), 0.7)],
        solution=_truncated,
        mistakes={
            "this is Eq. (5.18), which spends some of its probability outside of 0..16: divide by what lies inside.":
                lambda x, x_hat, sigma: _share(x - 0.5, x + 0.5, x_hat, sigma).sum(-1),
            "this is Eq. (5.21): the ends have taken what should be thrown away.":
                lambda x, x_hat, sigma: _share(torch.where(x > 0, x - 0.5, -1e3), torch.where(x < 16, x + 0.5, 1e3),
                                               x_hat, sigma).sum(-1),
            "the part that is kept runs from -1/2 to 16 1/2: with 0 and 16 half of the outer bins is missing.":
                lambda x, x_hat, sigma: (_share(x - 0.5, x + 0.5, x_hat, sigma)
                                         - _share(0 * x, 0 * x + 16, x_hat, sigma)).sum(-1),
            "the part that is kept runs from -1/2 to 16 1/2: the outer bins have two sides.":
                lambda x, x_hat, sigma: (_share(x - 0.5, x + 0.5, x_hat, sigma)
                                         - _share(0 * x - 0.5, 0 * x + 15.5, x_hat, sigma)).sum(-1),
            "you multiplied by the part that is kept: divide by it, that is, subtract its logarithm.":
                lambda x, x_hat, sigma: (_share(x - 0.5, x + 0.5, x_hat, sigma) + _inside(x, x_hat, sigma)).sum(-1),
            "you divided by a probability where its logarithm must be subtracted.":
                lambda x, x_hat, sigma: (_share(x - 0.5, x + 0.5, x_hat, sigma)
                                         / _inside(x, x_hat, sigma).exp()).sum(-1),
            "this is a density: take the bin's share in place of the density at its centre.":
                lambda x, x_hat, sigma: (_density(x, x_hat, sigma) - _inside(x, x_hat, sigma)).sum(-1),
            "a bin reaches half a level to each side: you took a whole one.":
                lambda x, x_hat, sigma: (_share(x - 1, x + 1, x_hat, sigma) - _inside(x, x_hat, sigma)).sum(-1),
            "a bin reaches from half a level below to half a level above: you began at the level itself.":
                lambda x, x_hat, sigma: (_share(x, x + 1, x_hat, sigma) - _inside(x, x_hat, sigma)).sum(-1),
            "in the tails the difference of two distribution functions is a rounded zero: use log_share.":
                lambda x, x_hat, sigma: (_plain(x - 0.5, x + 0.5, x_hat, sigma)
                                         - _plain(0 * x - 0.5, 0 * x + 16.5, x_hat, sigma)).sum(-1),
            "you made the densities at the 17 levels sum to one: take what the density holds in each bin.":
                lambda x, x_hat, sigma: (_density(x, x_hat, sigma) - torch.logsumexp(
                    _density(torch.arange(17.0, dtype=x.dtype), x_hat.unsqueeze(-1), sigma), -1)).sum(-1),
            "the ends must not pile up here: all 17 bins have the width one, and what lies outside is thrown away.":
                lambda x, x_hat, sigma: (_share(torch.where(x > 0, x - 0.5, -1e3), torch.where(x < 16, x + 0.5, 1e3),
                                                x_hat, sigma) - _inside(x, x_hat, sigma)).sum(-1),
            "you moved x_hat into 0..16: the Gaussian's mean may lie outside.":
                lambda x, x_hat, sigma: _truncated(x, x_hat.clamp(0, 16), sigma),
            "a small number added before the logarithm changes the answer in the tails: use log_share.":
                lambda x, x_hat, sigma: ((_plain(x - 0.5, x + 0.5, x_hat, sigma).exp() + 1e-10).log() - (
                    _plain(0 * x - 0.5, 0 * x + 16.5, x_hat, sigma).exp() + 1e-10).log()).sum(-1),
            "the sign is wrong: this is the distortion, not the log-likelihood.":
                lambda x, x_hat, sigma: -_truncated(x, x_hat, sigma),
            "you divided by sigma² where sigma is meant.":
                lambda x, x_hat, sigma: _truncated(x, x_hat, sigma**2),
            "you averaged over the pixels: a log-likelihood is their sum.":
                lambda x, x_hat, sigma: _truncated(x, x_hat, sigma) / x.shape[-1],
            "you did not sum over the pixels: the result has shape (N,).":
                lambda x, x_hat, sigma: _share(x - 0.5, x + 0.5, x_hat, sigma) - _inside(x, x_hat, sigma),
            "you summed over the images too: the result has shape (N,).":
                lambda x, x_hat, sigma: _truncated(x, x_hat, sigma).sum(),
        },
        hint="For one pixel, the probabilities of 0..16 must sum to one.",
    ),
}

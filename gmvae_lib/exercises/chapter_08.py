"""Chapter 8: the mixture-prior VAE."""

import torch

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import log_prob_diag


def _mixture(seed, n_components=3, dim=2):
    """Weights (K,), means (K, d), log-variances (K, d), all unequal."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(n_components, generator=generator, dtype=torch.float64) + 0.2
    means, log_var = torch.randn(2, n_components, dim, generator=generator, dtype=torch.float64)
    return weights / weights.sum(), 2 * means, log_var


def _kl_cases():
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    near = torch.tensor([[1.0, 2.0, 0.5], [0.2, 3.0, 1.0], [4.0, 0.3, 2.0], [2.0, 2.0, 0.1]], dtype=torch.float64)
    return near, near + 1000, weights  # far from everything, exp(-kl) underflows


def _responsibility_cases():
    near, far, weights = _kl_cases()
    return [(near, weights), (far, weights)]


def responsibilities(kl, weights):
    """Eq. (8.15)."""
    return (weights.log() - kl).softmax(1)


def _linear_space(kl, weights):
    joint = weights * (-kl).exp()
    return joint / joint.sum(1, keepdim=True)


def _linear_space_padded(kl, weights):
    joint = weights * (-kl).exp() + 1e-10
    return joint / joint.sum(1, keepdim=True)


def _rate_cases():
    near, far, weights = _kl_cases()
    resp = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return [(near[:2], weights, resp[:2]), (near, weights, resp), (far, weights, resp)]


def joint_rate(kl, weights, resp):
    """Eq. (8.13)."""
    return (resp * (kl - weights.log()) + torch.xlogy(resp, resp)).sum(1)


def _gaussian_cases():
    cases = []
    for seed, dim in ((0, 1), (1, 3), (2, 4)):
        generator = torch.Generator().manual_seed(seed)
        mean, log_var, mu = torch.randn(3, dim, generator=generator, dtype=torch.float64)
        root = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
        cases.append((mean, log_var, mu, root @ root.T + 0.5 * torch.eye(dim, dtype=torch.float64)))
    return cases[1:] + cases[:1]


def kl_full(mean, log_var, mu, sigma):
    """Eq. (8.11)."""
    return _kl(log_var.exp(), mean - mu, sigma, torch.linalg.inv(sigma) @ torch.diag(log_var.exp()))


def _kl(var, apart, sigma, inside, log_det=1.0, constant=1.0):
    distance = apart @ torch.linalg.solve(sigma, apart)
    trace = inside.diagonal().sum()
    return 0.5 * (log_det * torch.logdet(sigma) - var.log().sum() + distance + trace - constant * len(var))


def _kl_reversed(mean, log_var, mu, sigma):
    precision, apart = torch.diag((-log_var).exp()), mean - mu
    distance = apart @ precision @ apart
    return 0.5 * (log_var.sum() - torch.logdet(sigma) + distance + (precision @ sigma).trace() - len(mu))


def _group_cases():
    cases = []
    for seed, n, n_components, dim in ((0, 8, 3, 2), (1, 20, 2, 3)):
        generator = torch.Generator().manual_seed(seed)
        mean, log_var = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
        resp = torch.randn(n, n_components, generator=generator, dtype=torch.float64).softmax(1)
        cases.append((mean, log_var, resp))
    return cases


def m_step(mean, log_var, resp):
    """Eqs. (8.22), (8.23) and (8.25)."""
    return _m_step(mean, log_var.exp(), resp)


def _m_step(mean, extra, resp, counts=None):
    counts = resp.sum(0) if counts is None else counts
    means = resp.T @ mean / counts[:, None]
    scatter = (resp.unsqueeze(2) * ((mean.unsqueeze(1) - means).square() + extra.unsqueeze(1))).sum(0)
    return resp.mean(0), means, scatter / counts[:, None]


def _global_center(mean, log_var, resp):
    weights, means, _ = m_step(mean, log_var, resp)
    scatter = (mean - mean.mean(0)).square() + log_var.exp()
    return weights, means, resp.T @ scatter / resp.sum(0)[:, None]


def _gap_cases():
    cases = []
    for seed in (0, 1):
        weights, means, log_var = _mixture(seed)
        generator = torch.Generator().manual_seed(10 + seed)
        z = torch.randn(50, 2, generator=generator, dtype=torch.float64)
        resp = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]][seed], dtype=torch.float64)
        cases.append((resp, z, weights, means, log_var))
    return cases


def gap(resp, z, weights, means, log_var):
    """The gap in Eq. (8.18)."""
    log_c = _log_posterior(z, weights, means, log_var)
    return torch.xlogy(resp, resp).sum() - (log_c @ resp).mean()


def _log_posterior(z, weights, means, log_var):
    return (weights.log() + log_prob_diag(z.unsqueeze(1), means, log_var)).log_softmax(1)


def _gap_reversed(resp, z, weights, means, log_var):
    log_c = _log_posterior(z, weights, means, log_var)
    return (log_c.exp() * (log_c - resp.log())).sum(1).mean()


def _gap_of_mean(resp, z, weights, means, log_var):
    log_c = _log_posterior(z, weights, means, log_var)
    return torch.xlogy(resp, resp).sum() - resp @ log_c.exp().mean(0).log()


def _gap_without_weights(resp, z, weights, means, log_var):
    return gap(resp, z, torch.ones_like(weights), means, log_var)


def _gap_unnormalized(resp, z, weights, means, log_var):
    log_joint = weights.log() + log_prob_diag(z.unsqueeze(1), means, log_var)
    return torch.xlogy(resp, resp).sum() - (log_joint @ resp).mean()


EXERCISES = {
    "8.1": Exercise(
        cases=_responsibility_cases,
        solution=responsibilities,
        mistakes={
            "you left out the weights: Eq. (8.15) has pi_k before the exponential.": lambda kl, w: (-kl).softmax(1),
            "the sign of the KL is wrong: a far component must get less, so it is log pi_k - KL_k.":
                lambda kl, w: (w.log() + kl).softmax(1),
            "you normalized over the images (dim 0): each image's row must sum to one.":
                lambda kl, w: (w.log() - kl).softmax(0),
            "these are the logarithms of the responsibilities.": lambda kl, w: (w.log() - kl).log_softmax(1),
            "the rows must sum to one: divide by their sum (softmax).": lambda kl, w: w * (-kl).exp(),
            "you divided by the weights: a heavy component gets more.": lambda kl, w: (-w.log() - kl).softmax(1),
            "you added pi_k instead of its logarithm.": lambda kl, w: (w - kl).softmax(1),
            "exp(-KL) underflows for far encoders: subtract in log space, and let softmax or logsumexp do the rest.":
                _linear_space,
            "a small constant against division by zero gives far encoders uniform responsibilities, which are wrong: "
            "stay in log space instead.": _linear_space_padded,
        },
        hint="It is a softmax over k of log pi_k - KL_k.",
    ),
    "8.2": Exercise(
        cases=_rate_cases,
        solution=joint_rate,
        mistakes={
            "you forgot the price of the choice, KL(gamma || pi).": lambda kl, w, r: (r * kl).sum(1),
            "you took KL(pi || gamma): the responsibilities come first.":
                lambda kl, w, r: (r * kl + w * (w.log() - r.log())).sum(1),
            "0 log 0 is 0, but resp.log() makes it NaN: use torch.xlogy.":
                lambda kl, w, r: (r * (kl + r.log() - w.log())).sum(1),
            "you assumed equal weights, log K in place of -log pi_k.":
                lambda kl, w, r: (r * kl + torch.xlogy(r, r)).sum(1) + torch.tensor(float(len(w))).log(),
            "the sign of the entropy of gamma is wrong: the term is + sum_k gamma_k log gamma_k.":
                lambda kl, w, r: (r * (kl - w.log()) - torch.xlogy(r, r)).sum(1),
            "you forgot the entropy of gamma: sum_k gamma_k log gamma_k belongs to the price of the choice.":
                lambda kl, w, r: (r * (kl - w.log())).sum(1),
            "the sign of KL(gamma || pi) is wrong: it has the logarithm of gamma over pi.":
                lambda kl, w, r: (r * (kl + w.log()) - torch.xlogy(r, r)).sum(1),
            "this is the collapsed rate, which holds for the best responsibilities only: here any are given.":
                lambda kl, w, r: -(w.log() - kl).logsumexp(1),
            "you averaged over the components: both terms are sums.":
                lambda kl, w, r: (r * (kl - w.log()) + torch.xlogy(r, r)).mean(1),
            "you summed over the images (dim 0): the sum is over components.":
                lambda kl, w, r: (r * (kl - w.log()) + torch.xlogy(r, r)).sum(0),
        },
        hint="Two terms: sum_k gamma_k KL_k, and sum_k gamma_k log(gamma_k / pi_k).",
    ),
    "8.3": Exercise(
        cases=_gaussian_cases,
        solution=kl_full,
        mistakes={
            "you computed the KL the other way round, from the component to the encoder's Gaussian.": _kl_reversed,
            "the trace is of Sigma^-1 S, not of S alone.":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.diag(v.exp())),
            "you forgot the trace, the price of the encoder's own width.":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.zeros_like(s)),
            "in the trace you used exp(log_var / 2), a standard deviation: S holds variances, exp(log_var).":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.linalg.inv(s) @ torch.diag((0.5 * v).exp())),
            "you forgot - d, which makes the KL of a Gaussian to itself zero.":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.linalg.inv(s) @ torch.diag(v.exp()), constant=0.0),
            "the log-determinant must stand inside the bracket, once: it is halved with the rest.":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.linalg.inv(s) @ torch.diag(v.exp()), log_det=2.0),
            "the factor 1/2 in front is missing.": lambda m, v, u, s: 2 * kl_full(m, v, u, s),
            "you divided by the diagonal of Sigma: the diagonal of Sigma^-1 is another thing, invert the whole matrix.":
                lambda m, v, u, s: _kl(v.exp(), m - u, s, torch.diag(v.exp() / s.diagonal())),
            "the distance is measured with Sigma^-1: you multiplied by Sigma.":
                lambda m, v, u, s: kl_full(m, v, u, s)
                + 0.5 * (m - u) @ (s @ (m - u) - torch.linalg.solve(s, m - u)),
            "log_var is log sigma^2 already: inside the bracket its sum is not halved.":
                lambda m, v, u, s: kl_full(m, v, u, s) + 0.25 * v.sum(),
            "the sign of the component's log-determinant is wrong: a wide component costs log |Sigma| more.":
                lambda m, v, u, s: kl_full(m, v, u, s) - torch.logdet(s),
            "the sign of the encoder's log-determinant is wrong: it is - sum_i log sigma_i^2.":
                lambda m, v, u, s: kl_full(m, v, u, s) + v.sum(),
        },
        hint="Compare with torch.distributions.kl_divergence of two MultivariateNormal, term by term.",
    ),
    "8.4": Exercise(
        cases=_group_cases,
        solution=m_step,
        mistakes={
            "you forgot each point's own variance: this is chapter 2's M-step, for points without width.":
                lambda m, v, r: _m_step(m, torch.zeros_like(m), r),
            "you added exp(log_var / 2), a standard deviation, where the variance exp(log_var) belongs.":
                lambda m, v, r: _m_step(m, (0.5 * v).exp(), r),
            "you added log_var itself: the variance is exp(log_var).": lambda m, v, r: _m_step(m, v, r),
            "you divided by N: means and variances are divided by N_k, the sum of the component's responsibilities.":
                lambda m, v, r: _m_step(m, v.exp(), r, torch.full_like(r.sum(0), len(m))),
            "the scatter must be taken about each component's own new mean, not about the mean of all points.":
                _global_center,
            "this is the second moment: subtract the mean before you square.":
                lambda m, v, r: (*m_step(m, v, r)[:2], r.T @ (m.square() + v.exp()) / r.sum(0)[:, None]),
            "you averaged the points' own variances over all points: each counts with its responsibility.":
                lambda m, v, r: _m_step(m, v.exp().mean(0).expand_as(v), r),
            "you returned standard deviations: variances were asked for.":
                lambda m, v, r: (*m_step(m, v, r)[:2], m_step(m, v, r)[2].sqrt()),
            "you returned the logarithms of the variances.":
                lambda m, v, r: (*m_step(m, v, r)[:2], m_step(m, v, r)[2].log()),
            "divide the scatter by N_k, not by N_k - 1: this is the maximum of the bound.":
                lambda m, v, r: (*m_step(m, v, r)[:2],
                                 m_step(m, v, r)[2] * (r.sum(0) / (r.sum(0) - 1)).unsqueeze(1)),
            "the weights are N_k / N: you divided by K.":
                lambda m, v, r: (r.sum(0) / r.shape[1], *m_step(m, v, r)[1:]),
            "the weights are N_k / N: yours are the counts N_k.":
                lambda m, v, r: (r.sum(0), *m_step(m, v, r)[1:]),
        },
        hint="Check one component by hand: its weight, then its mean, then its variance.",
    ),
    "8.5": Exercise(
        cases=_gap_cases,
        solution=gap,
        mistakes={
            "you took KL(p(c|z) || gamma): the responsibilities of the image come first.": _gap_reversed,
            "you averaged p(c|z) over the draws before taking the KL: Eq. (8.18) has the average outside.":
                _gap_of_mean,
            "you left the weights out of p(c|z).": _gap_without_weights,
            "you used log pi_k + log N(z | mu_k) as it is: p(c|z) must be normalized over the components.":
                _gap_unnormalized,
            "0 log 0 is 0, but resp.log() makes it NaN: use torch.xlogy.":
                lambda r, z, w, m, v: (r * (r.log() - _log_posterior(z, w, m, v))).sum(1).mean(),
            "you averaged over the components too: a KL is a sum over them.":
                lambda r, z, w, m, v: gap(r, z, w, m, v) / len(r),
            "sum_k gamma_k log gamma_k is missing: this is the cross-entropy alone.":
                lambda r, z, w, m, v: -(_log_posterior(z, w, m, v) @ r).mean(),
            "the sign is wrong: a gap is a KL divergence, and never negative.":
                lambda r, z, w, m, v: -gap(r, z, w, m, v),
            "you summed over the draws: an expectation is their mean.":
                lambda r, z, w, m, v: len(z) * gap(r, z, w, m, v),
        },
        hint="First log p(c|z) for each draw, (L, K), by log_softmax; then the KL of each draw; then the mean.",
    ),
}  # fmt: skip

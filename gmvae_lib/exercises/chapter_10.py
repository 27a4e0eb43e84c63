"""Chapter 10: the family."""

import math

import torch

from gmvae_lib.exercises import Exercise
from gmvae_lib.gaussian import log_prob_diag


def _table(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).softmax(-1)


def _kl(q, p):
    return (q * (q / p).log()).sum(-1)


def _vade_cases():
    cases = []
    for seed, n_classes, n_codes in ((0, 3, 5), (1, 4, 3)):
        g = torch.Generator().manual_seed(seed)
        cases.append((_table(g, n_codes, 6)[:, 2].log(), _table(g, n_codes), _table(g, n_classes), _table(g, n_classes),
                      _table(g, n_classes, n_codes)))
    return cases


def vade(log_px_z, q_z, q_c, pi, p_z_c):
    """Eq. (10.5)."""
    return q_z @ log_px_z - q_c @ _kl(q_z, p_z_c) - _kl(q_c, pi)


def _shu_cases():
    cases = []
    for seed, n_classes, n_codes in ((2, 3, 5), (3, 4, 3)):
        g = torch.Generator().manual_seed(seed)
        cases.append((_table(g, n_codes, 6)[:, 2].log(), _table(g, n_classes, n_codes), _table(g, n_classes),
                      _table(g, n_classes), _table(g, n_classes, n_codes)))
    return cases


def shu(log_px_z, q_z_xc, q_c, pi, p_z_c):
    """Eq. (10.15)."""
    return q_c @ (q_z_xc @ log_px_z - _kl(q_z_xc, p_z_c)) - _kl(q_c, pi)


def _averaged_code(log_px_z, q_z_xc, q_c, pi, p_z_c):
    return vade(log_px_z, q_c @ q_z_xc, q_c, pi, p_z_c)


def _vamp_cases():
    cases = []
    for seed, shift in ((4, 0.0), (5, 60.0)):  # far from everything, densities underflow
        g = torch.Generator().manual_seed(seed)
        mean, log_var = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
        cases.append((torch.randn(6, 3, generator=g, dtype=torch.float64) + shift, mean, log_var))
    return cases


def vamp(z, mean, log_var):
    """Eq. (10.9)."""
    return torch.logsumexp(log_prob_diag(z.unsqueeze(1), mean, log_var), 1) - math.log(len(mean))


def _vamp_each(z, mean, log_var):
    each = -0.5 * (math.log(2 * math.pi) + log_var + (z.unsqueeze(1) - mean).square() * (-log_var).exp())
    return (torch.logsumexp(each, 1) - math.log(len(mean))).sum(1)


def _score_cases():
    cases = []
    for seed, n, n_classes in ((6, 5, 3), (7, 12, 4)):
        g = torch.Generator().manual_seed(seed)
        q = _table(g, n_classes)
        c = torch.multinomial(q, n, replacement=True, generator=g)
        cases.append((c, 100 + 5 * torch.randn(n_classes, generator=g, dtype=torch.float64)[c], q))
    return cases


def _scores(c, q):
    return torch.eye(len(q), dtype=q.dtype)[c] - q


def score_gradient(c, costs, q):
    """Eq. (10.21) with the mean of the other draws' costs as baseline."""
    others = (costs.sum() - costs) / (len(costs) - 1)
    return ((costs - others)[:, None] * _scores(c, q)).mean(0)


def _rate_cases():
    cases = []
    for seed, n_styles, n_classes, n_codes in ((8, 2, 3, 5), (9, 3, 2, 4)):
        g = torch.Generator().manual_seed(seed)
        cases.append((_table(g, n_codes), _table(g, n_styles), _table(g, n_styles), _table(g, n_classes),
                      _table(g, n_styles, n_classes, n_codes)))
    return cases


def rate_bound(q_z, q_w, p_w, pi, p_z_wc):
    """E_{q(w|x)} min_c (KL(q(z|x) || p(z|c,w)) - log pi_c) + KL(q(w|x) || p(w))."""
    return q_w @ (_kl(q_z, p_z_wc) - pi.log()).amin(1) + _kl(q_w, p_w)


def _rate_itself(q_z, q_w, p_w, pi, p_z_wc):
    return q_w @ _kl(q_z, torch.einsum("c,wcz->wz", pi, p_z_wc)) + _kl(q_w, p_w)


EXERCISES = {
    "10.1": Exercise(
        cases=_vade_cases,
        solution=vade,
        mistakes={
            "you summed the class out, sum_c pi_c p(z|c): that is the plain mixture prior, Eq. (10.4).":
                lambda ll, qz, qc, pi, pz: qz @ ll - _kl(qz, pi @ pz),
            "you took KL(p(z|c) || q(z|x)): the encoder comes first.":
                lambda ll, qz, qc, pi, pz: qz @ ll - qc @ _kl(pz, qz) - _kl(qc, pi),
            "you took KL(pi || q(c|x)): q comes first.":
                lambda ll, qz, qc, pi, pz: qz @ ll - qc @ _kl(qz, pz) - _kl(pi, qc),
            "you forgot the price of the choice, KL(q(c|x) || pi).":
                lambda ll, qz, qc, pi, pz: qz @ ll - qc @ _kl(qz, pz),
            "the KLs to the components are averaged with q(c|x): you took the weights pi.":
                lambda ll, qz, qc, pi, pz: qz @ ll - pi @ _kl(qz, pz) - _kl(qc, pi),
            "the KLs to the components are averaged with q(c|x): you added them up.":
                lambda ll, qz, qc, pi, pz: qz @ ll - _kl(qz, pz).sum() - _kl(qc, pi),
            "the sign is wrong: this is the loss, and the bound was asked for.":
                lambda ll, qz, qc, pi, pz: -vade(ll, qz, qc, pi, pz),
            "you put log p(x|z) in without averaging it over q(z|x).":
                lambda ll, qz, qc, pi, pz: ll.sum() - qc @ _kl(qz, pz) - _kl(qc, pi),
        },
        hint="Three terms: an average of log p(x|z), an average of K divergences, and one divergence between classes.",
    ),
    "10.2": Exercise(
        cases=_shu_cases,
        solution=shu,
        mistakes={
            "you averaged q(z|x,c) over c first: that is VaDE's bound, with one code for all classes.": _averaged_code,
            "you forgot the price of the choice, KL(q(c|x) || pi).":
                lambda ll, qz, qc, pi, pz: qc @ (qz @ ll - _kl(qz, pz)),
            "you weighted the classes with pi: their bounds are averaged with q(c|x).":
                lambda ll, qz, qc, pi, pz: pi @ (qz @ ll - _kl(qz, pz)) - _kl(qc, pi),
            "you took KL(p(z|c) || q(z|x,c)): the encoder comes first.":
                lambda ll, qz, qc, pi, pz: qc @ (qz @ ll - _kl(pz, qz)) - _kl(qc, pi),
            "you took KL(pi || q(c|x)): q comes first.":
                lambda ll, qz, qc, pi, pz: qc @ (qz @ ll - _kl(qz, pz)) - _kl(pi, qc),
            "each q(z|x,c) is compared with its own p(z|c): yours meets the whole mixture.":
                lambda ll, qz, qc, pi, pz: qc @ (qz @ ll - _kl(qz, pi @ pz)) - _kl(qc, pi),
            "you used the best q(c|x), Eq. (10.16): the one that is given was asked for.":
                lambda ll, qz, qc, pi, pz: torch.logsumexp(qz @ ll - _kl(qz, pz) + pi.log(), 0),
        },
        hint="First A_c, one ELBO for each class; then their average under q(c|x); then the price of the choice.",
    ),
    "10.3": Exercise(
        cases=_vamp_cases,
        solution=vamp,
        mistakes={
            "you forgot the weights 1/K: subtract log K.":
                lambda z, m, v: torch.logsumexp(log_prob_diag(z.unsqueeze(1), m, v), 1),
            "you averaged the logarithms: the average is taken over densities.":
                lambda z, m, v: log_prob_diag(z.unsqueeze(1), m, v).mean(1),
            "exp underflows for far points: use logsumexp.":
                lambda z, m, v: log_prob_diag(z.unsqueeze(1), m, v).exp().mean(1).log(),
            "the log-sum-exp came before the sum over dimensions: all coordinates of z share one pseudo-input.":
                _vamp_each,
            "you took exp(log_var) for a standard deviation: it is the variance.":
                lambda z, m, v: vamp(z, m, 2 * v),
            "you divided by K after the logarithm.":
                lambda z, m, v: torch.logsumexp(log_prob_diag(z.unsqueeze(1), m, v), 1) / len(m),
        },
        hint="First log q(z | u_k), (N, K), summed over dimensions; then logsumexp over k.",
    ),
    "10.4": Exercise(
        cases=_score_cases,
        solution=score_gradient,
        mistakes={
            "your baseline is the mean of all draws, which depends on the draw itself: leave it out.":
                lambda c, f, q: ((f - f.mean())[:, None] * _scores(c, q)).mean(0),
            "there is no baseline yet.": lambda c, f, q: (f[:, None] * _scores(c, q)).mean(0),
            "the sign of the score is wrong: it is e_c - q.": lambda c, f, q: -score_gradient(c, f, q),
            "you summed over the draws: average them.": lambda c, f, q: len(c) * score_gradient(c, f, q),
            "the others are S - 1: you divided their sum by S.":
                lambda c, f, q: ((f - (f.sum() - f) / len(f))[:, None] * _scores(c, q)).mean(0),
        },
        hint="The mean of the others is (sum of all costs - own cost) / (S - 1).",
    ),
    "10.5": Exercise(
        cases=_rate_cases,
        solution=rate_bound,
        mistakes={
            "this is the rate itself: replace the sum over c by its best term.": _rate_itself,
            "you forgot - log pi_c, the price of naming the component.":
                lambda qz, qw, pw, pi, pz: qw @ _kl(qz, pz).amin(1) + _kl(qw, pw),
            "you assumed equal weights: the price of naming c is - log pi_c, not log K.":
                lambda qz, qw, pw, pi, pz: qw @ _kl(qz, pz).amin(1) + math.log(len(pi)) + _kl(qw, pw),
            "you forgot the price of the style, KL(q(w|x) || p(w)).":
                lambda qz, qw, pw, pi, pz: qw @ (_kl(qz, pz) - pi.log()).amin(1),
            "the best class may be another for each w: take the minimum before the average over w.":
                lambda qz, qw, pw, pi, pz: (qw @ (_kl(qz, pz) - pi.log())).amin() + _kl(qw, pw),
            "w is drawn from q(w|x): you averaged with p(w).":
                lambda qz, qw, pw, pi, pz: pw @ (_kl(qz, pz) - pi.log()).amin(1) + _kl(qw, pw),
            "you took the KLs from the components to q(z|x): the encoder comes first.":
                lambda qz, qw, pw, pi, pz: qw @ (_kl(pz, qz) - pi.log()).amin(1) + _kl(qw, pw),
        },
        hint="For one w: a mixture is at least pi_c p(z|c,w), for each c. Then average over q(w|x), and add w's price.",
    ),
}  # fmt: skip

"""The checks of chapter 10's exercises know right answers from wrong ones, and one mistake from another."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.exercises import diagnose


def counted(pairs):
    """sum q log(p / q) over cells (q, p)."""
    return sum(q * math.log(p / q) for q, p in pairs)


def vade(log_px_z, q_z, q_c, pi, p_z_c):
    cells = itertools.product(range(len(q_c)), range(len(q_z)))
    return counted((float(q_c[c] * q_z[z]), float(pi[c] * p_z_c[c, z] * log_px_z[z].exp())) for c, z in cells)


def shu(log_px_z, q_z_xc, q_c, pi, p_z_c):
    cells = itertools.product(range(len(q_c)), range(q_z_xc.shape[1]))
    return counted((float(q_c[c] * q_z_xc[c, z]), float(pi[c] * p_z_c[c, z] * log_px_z[z].exp())) for c, z in cells)


def vamp(z, mean, log_var):
    components = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(mean), dtype=mean.dtype)), components).log_prob(z)


def score_gradient(c, costs, q):
    result = torch.zeros_like(q)
    for s in range(len(c)):
        others = [float(costs[t]) for t in range(len(c)) if t != s]
        score = -q.clone()
        score[c[s]] += 1
        result += (costs[s] - sum(others) / len(others)) * score
    return result / len(c)


def rate_bound(q_z, q_w, p_w, pi, p_z_wc):
    result = 0.0
    for w in range(len(q_w)):
        prices = [-counted(zip(q_z.tolist(), (pi[c] * p_z_wc[w, c]).tolist(), strict=True)) for c in range(len(pi))]
        result += float(q_w[w]) * (min(prices) + math.log(q_w[w] / p_w[w]))
    return result


INDEPENDENT = {"10.1": vade, "10.2": shu, "10.3": vamp, "10.4": score_gradient, "10.5": rate_bound}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")

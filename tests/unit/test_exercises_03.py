"""The checks of chapter 03's exercises accept other ways of writing the right answer, and help where they can."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import rel_entr

from gmvae_lib.exercises import diagnose

NAMES = ("3.1", "3.2", "3.3", "3.4", "3.5", "3.6")


def compare(s, t):
    values = [float(a - b) for a, b in zip(s, t)]
    return np.mean(values), stats.sem(values)


def free_parameters(n_components, dim, family):
    weights, means = n_components - 1, n_components * dim
    symmetric = len(np.triu_indices(dim)[0])
    return weights + means + {"full": symmetric * n_components, "tied": symmetric, "diag": dim * n_components,
                              "spherical": n_components}[family]


def completed(log_joint, n_parameters):
    resp = torch.exp(log_joint - torch.logsumexp(log_joint, 1, keepdim=True)).numpy()
    expected = np.where(resp > 0, resp * log_joint.numpy(), 0).sum()  # Q, directly
    assert np.isclose(-rel_entr(resp, 1).sum() + expected, torch.logsumexp(log_joint, 1).sum())
    return -2 * expected + n_parameters * np.log(len(resp))


def map_weights(counts, alpha):
    alive = [max(0.0, float(n) - (1 - alpha)) for n in counts]
    return np.array(alive) / sum(alive)


def smallest_within_one_error(scores):
    means = scores.mean(1).tolist()
    best = means.index(max(means))
    for row, mean in enumerate(means):
        if row == best or means[best] - mean <= stats.sem((scores[best] - scores[row]).numpy()):
            return row + 1


def evidence(x, tau):
    peak = float(stats.norm(float(x.sum()) / (len(x) + tau**-2)).logpdf(x).sum())

    def integrand(mu):
        return math.exp(stats.norm(mu).logpdf(x).sum() - peak) * stats.norm(0, tau).pdf(mu)

    return peak + math.log(integrate.quad(integrand, -12, 12, epsabs=1e-14, points=[float(x.mean())])[0])


INDEPENDENT = dict(zip(NAMES, (compare, free_parameters, completed, map_weights, smallest_within_one_error, evidence)))


@pytest.mark.parametrize("name", NAMES)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_laplaces_method_with_the_prior_inside_is_exact():
    def laplace(x, tau):
        precision = len(x) + tau**-2
        mode = x.sum() / precision
        height = -0.5 * ((x - mode).square().sum() + len(x) * math.log(2 * math.pi))
        prior = -0.5 * (mode / tau)**2 - math.log(tau) - 0.5 * math.log(2 * math.pi)
        return height + prior + 0.5 * math.log(2 * math.pi / precision)

    assert diagnose("3.6", laplace) == ("right", "correct.")


def test_a_small_constant_in_place_of_the_limit_is_right_to_the_tolerance():
    def padded(log_joint, n_parameters):
        resp = log_joint.softmax(1)
        entropy = -(resp * (resp + 1e-300).log()).sum()
        return -2 * log_joint.logsumexp(1).sum() + n_parameters * math.log(len(resp)) + 2 * entropy

    assert diagnose("3.3", padded)[0] == "right"


def test_nan_is_named_even_where_no_known_mistake_fits():
    verdict, sentence = diagnose("3.4", lambda counts, alpha: counts * float("nan"))
    assert verdict == "wrong"
    assert "NaN" in sentence

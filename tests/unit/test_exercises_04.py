"""The checks of chapter 04's exercises accept other ways of writing the right answer, and help where they can."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from torch.distributions import MultivariateNormal, kl_divergence

from gmvae_lib.exercises import diagnose

NAMES = ("4.1", "4.2", "4.3", "4.4", "4.5", "4.6")


def by_torch(m, V, mu, Sigma):
    return kl_divergence(MultivariateNormal(m, V), MultivariateNormal(mu, Sigma))


def by_conditioning(x, W, b, sigma2, tau2):
    """The conditional of the joint Gaussian of (z, x), with the large covariance."""
    C = tau2 * W @ W.T + sigma2 * torch.eye(len(W)).double()
    gain = tau2 * W.T @ torch.linalg.inv(C)
    return (x - b) @ gain.T, tau2 * torch.eye(W.shape[1]).double() - tau2 * gain @ W


def by_search(Sigma):
    mean = torch.zeros(len(Sigma)).double()
    p = MultivariateNormal(mean, Sigma)

    def best(divergence):
        def loss(log_v):
            return float(divergence(MultivariateNormal(mean, torch.as_tensor(log_v).exp().diag())))

        return np.exp(optimize.minimize(loss, np.zeros(len(Sigma)), tol=1e-12, options={"gtol": 1e-9}).x)

    return best(lambda q: kl_divergence(q, p)), best(lambda q: kl_divergence(p, q))


def one_by_one(values, scores):
    total = torch.zeros(scores.shape[1]).double()
    for s in range(len(values)):
        others = torch.cat([values[:s], values[s + 1:]])
        total += (values[s] - others.mean()) * scores[s]
    return total / len(values)


def by_trapezoid(log_joint, z):
    peak = float(log_joint.max())
    joint, z = np.exp(log_joint.numpy() - peak), z.numpy()
    total = np.trapezoid(joint, z)
    mean = np.trapezoid(joint * z, z) / total
    return peak + math.log(total), mean, math.sqrt(np.trapezoid(joint * (z - mean)**2, z) / total)


def by_integration(omega):
    def moment(function):
        return integrate.quad(lambda e: function(e) * stats.norm.pdf(e), -12, 12, limit=400, epsabs=1e-12)[0]

    score, path = (lambda e: math.sin(omega * e) * e), (lambda e: omega * math.cos(omega * e))
    return tuple(moment(lambda e, g=g: g(e)**2) - moment(g)**2 for g in (score, path))


INDEPENDENT = dict(zip(NAMES, (by_torch, by_conditioning, by_search, one_by_one, by_trapezoid, by_integration)))


@pytest.mark.parametrize("name", NAMES)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_the_average_of_all_draws_scaled_up_is_the_leave_one_out_estimate():
    def scaled(values, scores):
        size = len(values)
        return ((values - values.mean())[:, None] * scores).sum(0) / (size - 1)

    assert diagnose("4.4", scaled) == ("right", "correct.")


def test_a_sampled_answer_is_not_near_enough_but_told_where_to_look():
    verdict, sentence = diagnose("4.6", lambda omega: (1.0, omega**2 / 2))
    assert verdict == "wrong"
    assert "t = 2 omega" in sentence

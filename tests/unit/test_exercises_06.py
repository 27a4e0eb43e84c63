"""Chapter 6's exercises: solutions pass, each planted mistake gets its own diagnosis."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal, kl_divergence

from gmvae_lib.exercises import diagnose
from gmvae_lib.exercises.chapter_06 import EXERCISES


def information(joint):
    joint = joint.numpy()
    return stats.entropy(joint.sum(0)) + stats.entropy(joint.sum(1)) - stats.entropy(joint.ravel())


def water(eigenvalues, sigma2, beta):
    rate = error = 0.0
    for value in eigenvalues.tolist():
        if value > beta * sigma2:
            rate, error = rate + np.log(value / (beta * sigma2)) / 2, error + beta * sigma2
        else:
            error += value
    return rate, error / (2 * sigma2)


def e_step(log_prior, log_likelihood, beta):
    joint = log_prior + log_likelihood / beta
    return (joint - joint.logsumexp(1, keepdim=True)).exp()


def free_bits(mean, log_var, alpha):
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    rates = kl_divergence(Normal(mean, (0.5 * log_var).exp()), prior)
    return sum(max(alpha, float(rate.mean())) for rate in rates.T)


INDEPENDENT = {"6.1": information, "6.2": water, "6.3": e_step, "6.4": free_bits}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")

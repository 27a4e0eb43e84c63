"""The checks of chapter 01's exercises know right answers from wrong ones, written by somebody else."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.exercises import diagnose, find


def log_density(x, weights, means, variances):
    return MixtureSameFamily(Categorical(weights), Independent(Normal(means, variances.sqrt()), 1)).log_prob(x)


def moments(weights, means, covariances):
    m = sum(w * mean for w, mean in zip(weights, means))
    parts = (w * (cov + torch.outer(mean - m, mean - m)) for w, mean, cov in zip(weights, means, covariances))
    return m, sum(parts)


def from_noise(c, eps, means, covariances):
    rows = [means[k] + torch.linalg.cholesky(covariances[k]) @ e for k, e in zip(c.tolist(), eps)]
    return torch.stack(rows)


def map_covariance(x, mean, psi, nu):
    total = sum(torch.outer(point - mean, point - mean) for point in x)
    return (total + psi) / (len(x) + nu + x.shape[1] + 1)


def second_given_first(first, weights, means, covariances):
    """By the conditional Gaussian's textbook form, and SciPy's densities."""
    answers = []
    for value in first.numpy():
        joint = [np.log(w) + stats.norm.logpdf(value, m[0], s[0, 0] ** 0.5)
                 for w, m, s in zip(weights.numpy(), means.numpy(), covariances.numpy())]
        inner = [m[1] + s[1, 0] / s[0, 0] * (value - m[0]) for m, s in zip(means.numpy(), covariances.numpy())]
        answers.append(special.softmax(joint) @ inner)
    return np.array(answers)


INDEPENDENT = {"1.1": log_density, "1.2": moments, "1.3": from_noise, "1.4": map_covariance,
               "1.5": second_given_first}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_the_conditional_mean_is_the_integral_that_defines_it():
    first, *theta = find("1.5").cases()[0]
    weights, means, covariances = (value.numpy() for value in theta)

    def joint(second, value):
        return sum(w * stats.multivariate_normal(m, s).pdf([value, second])
                   for w, m, s in zip(weights, means, covariances))

    def integral(power, value):
        return integrate.quad(lambda t: t**power * joint(t, value), -25, 25, limit=200, points=means[:, 1])[0]

    for value in first[:3].tolist():
        top, bottom = integral(1, value), integral(0, value)
        assert find("1.5").solution(torch.tensor([value]).double(), *theta) == pytest.approx(top / bottom, abs=1e-6)


def test_an_attempt_that_fails_only_far_out_is_told_how_far_it_came():
    def clipped(x, weights, means, variances):
        return log_density(x, weights, means, variances).clamp_min(-700)

    verdict, sentence = diagnose("1.1", clipped)
    assert verdict == "wrong"
    assert "right in 2 of 3 cases" in sentence

"""Chapter 11's exercises: independently written solutions pass, each planted mistake gets its own diagnosis."""

import numpy as np
import pytest
from scipy import special, stats

from gmvae_lib.exercises import diagnose
from gmvae_lib.exercises.chapter_11 import EXERCISES


def estimate(log_w):
    share = special.softmax(log_w.numpy(), axis=0)
    return special.logsumexp(log_w.numpy(), axis=0, b=1 / len(log_w)), 1 / (share**2).sum(0)


def comparison(a, b):
    return stats.describe(b - a).mean, stats.sem(b - a)


def choice(scores, n):
    scores = scores.numpy()
    best = max(range(len(scores)), key=lambda m: sum(scores[m, :n]))
    return np.mean(scores[best, n:]), np.mean(scores[best, :n]) - np.mean(scores[best, n:])


def errors(scores):
    means = [float(row.sum()) / len(row) for row in scores]
    return stats.sem(scores[0]), stats.sem(means), np.std(means, ddof=1)


def defence(log_given, log_prior, log_q, alpha):
    weights = np.log(np.array([1 - alpha, alpha]))[:, None]
    below = special.logsumexp(np.stack([log_q, log_prior]) + weights, axis=0)
    return special.logsumexp(log_given.numpy() + log_prior.numpy() - below) - np.log(len(log_q))


INDEPENDENT = {"11.1": estimate, "11.2": comparison, "11.3": choice, "11.4": errors, "11.5": defence}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")

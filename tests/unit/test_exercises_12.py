"""Chapter 12's exercises: independently written solutions pass, each planted mistake gets its own diagnosis."""

import numpy as np
import pytest
from scipy import special

from gmvae_lib.exercises import diagnose
from gmvae_lib.exercises.chapter_12 import EXERCISES


def longest_wait(asked, work):  # the closed form, where the exercise's own solution runs through the operations
    return max(asked[j] + work[j:].sum() for j in range(len(work)))


def share(asked, work):
    asked, work = asked.numpy(), work.numpy()
    return work.sum() / longest_wait(asked, work)


def log_prob(grey, logits):
    g, a = grey.numpy() / 255, logits.numpy()
    return (g * special.log_expit(a) + (1 - g) * special.log_expit(-a)).sum(1)


def gradient(gradients, sizes):
    return np.average(gradients.numpy(), axis=0, weights=sizes.numpy())


def m_step(counts, sums, squares):
    total = counts.numpy().sum(0)
    means = sums.numpy().sum(0) / total[:, None]
    covariances = [q / n - np.outer(m, m) for q, n, m in zip(squares.numpy().sum(0), total, means, strict=True)]
    return total / total.sum(), means, np.stack(covariances)


def times(ask, work, n, steps):
    each = ask * np.arange(1, n * steps + 1)
    recorded = ask * np.repeat(np.arange(1, steps + 1), n)
    return [longest_wait(asked, np.full(n * steps, w)) for asked in (each, recorded) for w in (work, work / 2)]


INDEPENDENT = {"12.1": share, "12.2": log_prob, "12.3": gradient, "12.4": m_step, "12.5": times}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")

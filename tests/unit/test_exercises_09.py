"""Chapter 9's exercises: independently written solutions pass, each planted mistake gets its own diagnosis."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import special

from gmvae_lib.exercises import diagnose
from gmvae_lib.exercises.chapter_09 import EXERCISES


def accuracy(y, c):
    """All one-to-one maps, by trial."""
    y, c = y.tolist(), c.tolist()
    size = max(max(y), max(c)) + 1
    return max(np.mean([sigma[k] == j for k, j in zip(c, y, strict=True)]) for sigma in permutations(range(size)))


def responsibilities(log_normal, weights):
    joint = np.log(weights.numpy()) + log_normal.numpy().sum(1)
    return np.exp(joint - special.logsumexp(joint, axis=1, keepdims=True))


def rate(kl, weights):
    n, v, _ = kl.shape
    return np.array([-special.logsumexp(-kl[i].numpy().sum(0), b=weights.numpy()) / v for i in range(n)])


def agreement(resp, weights):
    log_odds = np.log(resp.numpy()).sum(1)
    return special.logsumexp(log_odds + (1 - resp.shape[1]) * np.log(weights.numpy()), axis=1)


def chance(y, c, orders):
    total = 0.0
    for order in orders:
        shuffled = y[order]
        total += sum(int(shuffled[c == k].bincount().max()) for k in c.unique()) / len(y)
    return total / len(orders)


INDEPENDENT = {"9.1": accuracy, "9.2": responsibilities, "9.3": rate, "9.4": agreement, "9.5": chance}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_densities_that_underflow_get_a_hint():
    def linear(log_normal, weights):
        joint = weights * log_normal.exp().prod(1)
        return joint / joint.sum(1, keepdim=True)

    verdict, sentence = diagnose("9.2", linear)
    assert verdict == "wrong" and "logarithms" in sentence

    def linear_rate(kl, weights):
        return -(weights * (-kl.sum(1)).exp()).sum(1).log() / kl.shape[1]

    verdict, sentence = diagnose("9.3", linear_rate)
    assert verdict == "wrong" and "underflowed" in sentence


def test_rows_are_tensors():
    assert all(isinstance(case[0], torch.Tensor) for e in EXERCISES.values() for case in e.cases())

"""Chapter 5's exercises: solutions pass, each planted mistake gets its own diagnosis."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from gmvae_lib.exercises import diagnose
from gmvae_lib.exercises.chapter_05 import EXERCISES


def rate(mean, log_var):
    q = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    p = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return torch.distributions.kl_divergence(q, p).sum(1)


def binomial(x, logits, n):
    return torch.distributions.Binomial(n, logits=logits).log_prob(x).sum(1)


def sigma(x, x_hat):
    return torch.linalg.norm(x - x_hat) / math.sqrt(x.numel())


def gradient(mean, log_var, eps):
    mean, log_var = mean.requires_grad_(), log_var.requires_grad_()
    return torch.autograd.grad((mean + (log_var / 2).exp() * eps).sin().mean(), (mean, log_var))


def bound(log_ratio):
    peak = log_ratio.max(0).values
    return peak + (log_ratio - peak).exp().mean(0).log()


def truncated(x, x_hat, sigma):  # by quadrature within each of the 17 bins
    within = (np.arange(4000) + 0.5) / 4000 - 0.5
    levels = np.arange(17.0).reshape(-1, 1, 1, 1)
    logs = special.logsumexp(stats.norm.logpdf(levels + within, x_hat.numpy()[..., None], sigma), axis=-1)
    chosen = np.take_along_axis(logs, x.numpy().astype(int)[None], axis=0)[0]
    return torch.as_tensor((chosen - special.logsumexp(logs, axis=0)).sum(1))


INDEPENDENT = {"5.1": rate, "5.2": binomial, "5.3": sigma, "5.4": gradient, "5.5": bound, "5.6": truncated}


@pytest.mark.parametrize("name", EXERCISES)
def test_an_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_an_unforeseen_mistake_gets_the_hint():
    verdict, sentence = diagnose("5.1", lambda mean, log_var: mean.sum(-1))
    assert verdict == "wrong" and EXERCISES["5.1"].hint in sentence

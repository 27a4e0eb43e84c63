"""The checks of chapter 8's exercises know right answers from wrong ones, and one mistake from another."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from gmvae_lib.exercises import diagnose

NAMES = ("8.1", "8.2", "8.3", "8.4", "8.5")


def responsibilities(kl, weights):
    joint = torch.log(weights)[None] - kl
    return torch.exp(joint - torch.logsumexp(joint, dim=1, keepdim=True))


def joint_rate(kl, weights, resp):
    choice = torch.stack([sum(r * torch.log(r / w) for r, w in zip(row, weights, strict=True) if r > 0)
                          for row in resp])
    return torch.einsum("nk,nk->n", resp, kl) + choice


def kl_full(mean, log_var, mu, sigma):
    return kl_divergence(MultivariateNormal(mean, torch.diag(log_var.exp())), MultivariateNormal(mu, sigma))


def m_step(mean, log_var, resp):
    counts = resp.sum(0)
    means = (resp[:, :, None] * mean[:, None]).sum(0) / counts[:, None]
    squares = (resp[:, :, None] * (mean.square() + log_var.exp())[:, None]).sum(0) / counts[:, None]
    return counts / len(mean), means, squares - means.square()


def gap(resp, z, weights, means, log_var):
    components = Independent(Normal(means, (0.5 * log_var).exp()), 1)
    marginal = MixtureSameFamily(Categorical(weights), components).log_prob(z)
    log_c = weights.log() + components.log_prob(z[:, None]) - marginal[:, None]
    return torch.stack([kl_divergence(Categorical(resp), Categorical(logits=row)) for row in log_c]).mean()


INDEPENDENT = dict(zip(NAMES, (responsibilities, joint_rate, kl_full, m_step, gap), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")

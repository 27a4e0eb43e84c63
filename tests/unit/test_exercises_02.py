"""The checks of chapter 02's exercises know right answers from wrong ones, and one mistake from another."""

import pytest
import torch
from scipy import special
from torch.distributions import MultivariateNormal

from gmvae_lib.exercises import diagnose

NAMES = ("2.1", "2.2", "2.3", "2.4", "2.5")


def mean_bound(q, log_joint):
    """log p(x) minus a KL divergence, by scipy."""
    posterior = log_joint.softmax(1)
    return log_joint.logsumexp(1).mean() - special.rel_entr(q.numpy(), posterior.numpy()).sum(1).mean()


def update_means(x, resp):
    return torch.stack([(r[:, None] * x).sum(0) / r.sum() for r in resp.unbind(1)])


def update_variances(x, resp, old_means):
    y = x - x.mean(0)  # moved to the origin, E[y²] - E[y]² keeps its digits
    first, second = (torch.stack([torch.einsum("n,nd->d", r / r.sum(), power) for r in resp.T]) for power in (y, y * y))
    return second - first**2


def tied_step(x, weights, means, covariance):
    joint = torch.stack([w.log() + MultivariateNormal(m, covariance).log_prob(x) for w, m in zip(weights, means)], 1)
    resp = torch.exp(joint - torch.logsumexp(joint, 1, keepdim=True))
    new = update_means(x, resp)
    second = x.T @ x - sum(n * torch.outer(m, m) for n, m in zip(resp.sum(0), new))
    return resp.mean(0), new, second / len(x)


def merge(counts_a, means_a, covariances_a, counts_b, means_b, covariances_b):
    counts, means, covariances = [], [], []
    for n, m, s, n_b, m_b, s_b in zip(counts_a, means_a, covariances_a, counts_b, means_b, covariances_b):
        first = n * m + n_b * m_b
        second = n * (s + torch.outer(m, m)) + n_b * (s_b + torch.outer(m_b, m_b))
        counts.append(n + n_b)
        means.append(first / counts[-1])
        covariances.append(second / counts[-1] - torch.outer(means[-1], means[-1]))
    return torch.stack(counts), torch.stack(means), torch.stack(covariances)


INDEPENDENT = dict(zip(NAMES, (mean_bound, update_means, update_variances, tied_step, merge)))


@pytest.mark.parametrize("name", NAMES)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_variance_by_the_difference_of_large_squares_is_found_and_hinted_at():
    def multiplied_out(x, resp, old_means):
        means = update_means(x, resp)
        return update_means(x * x, resp) - means**2

    verdict, sentence = diagnose("2.3", multiplied_out)
    assert verdict == "wrong"
    assert "two large squares" in sentence
    assert "right in 2 of 3 cases" in sentence

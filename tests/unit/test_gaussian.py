"""Densities, entropies and divergences against torch.distributions, quadrature and autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from gmvae_lib import gaussian


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(k, dim, seed=1):
    a = draw(k, dim, 2 * dim, seed=seed)
    return torch.linalg.cholesky(a @ a.mT / dim)


def diagonal(mean, log_var):
    return Independent(Normal(mean, (0.5 * log_var).exp()), 1)


def test_diagonal_log_density_equals_torchs():
    x, mean, log_var = draw(20, 5), draw(20, 5, seed=1), draw(20, 5, seed=2)
    assert torch.allclose(gaussian.log_prob_diag(x, mean, log_var), diagonal(mean, log_var).log_prob(x))


def test_full_log_density_equals_torchs_for_one_and_for_several():
    x, means, tril = draw(20, 4), draw(3, 4, seed=1), factors(3, 4)
    expected = torch.stack([MultivariateNormal(m, scale_tril=f).log_prob(x) for m, f in zip(means, tril, strict=True)])
    assert torch.allclose(gaussian.log_prob_full(x, means, tril), expected)
    assert torch.allclose(gaussian.log_prob_full(x, means[0], tril[0]), expected[0])


def test_densities_integrate_to_one():
    def density(t):
        return gaussian.log_prob_diag(torch.tensor([t]), torch.tensor([0.4]), torch.tensor([-1.2])).exp().item()

    assert quad(density, -8, 8)[0] == pytest.approx(1, abs=1e-6)


def test_entropy_equals_torchs():
    log_var = draw(6, 5)
    assert torch.allclose(gaussian.entropy_diag(log_var), diagonal(torch.zeros(6, 5), log_var).entropy())


def test_divergences_equal_torchs():
    mean, log_var, mean_p, log_var_p = (draw(30, 4, seed=i) for i in range(4))
    q = diagonal(mean, log_var)
    standard = diagonal(torch.zeros(30, 4).double(), torch.zeros(30, 4).double())
    assert torch.allclose(gaussian.kl_standard(mean, log_var), kl_divergence(q, standard))
    assert torch.allclose(gaussian.kl_diag(mean, log_var, mean_p, log_var_p),
                          kl_divergence(q, diagonal(mean_p, log_var_p)))
    means, tril = draw(3, 4, seed=5), factors(3, 4)
    full = MultivariateNormal(mean, covariance_matrix=torch.diag_embed(log_var.exp()))
    expected = torch.stack([kl_divergence(full, MultivariateNormal(m.expand(30, 4), scale_tril=f.expand(30, 4, 4)))
                            for m, f in zip(means, tril, strict=True)])
    assert torch.allclose(gaussian.kl_diag_full(mean, log_var, means, tril), expected)
    assert torch.allclose(gaussian.kl_diag_full(mean, log_var, means[0], tril[0]), expected[0])


numbers = st.lists(st.floats(-6, 6), min_size=3, max_size=3)


@given(numbers, numbers, numbers, numbers)
def test_divergences_are_never_negative_and_zero_only_between_equals(mean, log_var, mean_p, log_var_p):
    mean, log_var, mean_p, log_var_p = (torch.tensor([v], dtype=torch.float64)
                                        for v in (mean, log_var, mean_p, log_var_p))
    tril = torch.diag_embed((0.5 * log_var_p).exp())
    values = (gaussian.kl_standard(mean, log_var), gaussian.kl_diag(mean, log_var, mean_p, log_var_p),
              gaussian.kl_diag_full(mean, log_var, mean_p[0], tril[0]))
    assert all(value >= -1e-9 * (1 + value.abs()) for value in values)
    assert torch.allclose(values[1], values[2], atol=1e-9)
    assert gaussian.kl_diag(mean, log_var, mean, log_var).abs() < 1e-12


def test_samples_have_the_density_s_moments_and_carry_gradients():
    mean, log_var = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([0.6, -1.4], requires_grad=True)
    z = gaussian.sample_diag(mean.expand(200_000, 2), log_var.expand(200_000, 2), torch.Generator().manual_seed(0))
    assert torch.allclose(z.mean(0), mean, atol=0.01) and torch.allclose(z.var(0).log(), log_var, atol=0.02)
    z.square().sum(1).mean().backward()  # E z² = mean² + var
    assert torch.allclose(mean.grad, 2 * mean.detach(), atol=0.02)
    assert torch.allclose(log_var.grad, log_var.detach().exp(), atol=0.02)


def test_cholesky_names_the_matrices_that_have_none():
    good, bad, lost = torch.eye(2), -torch.eye(2), torch.full((2, 2), math.nan)
    assert torch.allclose(gaussian.cholesky(4 * good), 2 * good)
    with pytest.raises(ValueError, match=r"component \[1, 2\] is not positive definite: raise reg_covar"):
        gaussian.cholesky(torch.stack([good, bad, lost]))
    with pytest.raises(ValueError, match=r"component \[0\] is not positive definite: look here"):
        gaussian.cholesky(bad, hint="look here")


def test_a_floor_holds_and_lets_gradients_through():
    value = torch.tensor([-9.0, -1.0], requires_grad=True)
    floored = gaussian.floored(value, -2.0)
    floored.sum().backward()
    assert floored.tolist() == [-2.0, -1.0] and value.grad.tolist() == [1.0, 1.0]

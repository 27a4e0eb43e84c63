"""Equations of chapter 0, on models small enough for quadrature."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from gmvae_lib.likelihood import Gaussian
from gmvae_lib.vae import VAE


@pytest.fixture
def model():
    """One pixel, one latent dimension: x | z ~ N(w z + b, 0.5²), q(z | x) linear in x with a fixed variance."""
    torch.manual_seed(0)
    vae = VAE.build(1, 1, hidden=(), likelihood=Gaussian(sigma=0.5))
    return vae.double()


X = torch.tensor([[0.3], [-1.2], [2.0]], dtype=torch.float64)


def densities(model, x):
    """The encoder's density and log p(x | z), as functions of z, written with scipy."""
    mean, log_var = (v.item() for v in model.encode(x[None]))
    weight, bias = (p.item() for p in model.decoder.parameters())
    q = norm(mean, np.exp(0.5 * log_var))
    return q, lambda z: norm(weight * z + bias, 0.5).logpdf(float(x))


def average(q, f):
    low, high = q.mean() - 12 * q.std(), q.mean() + 12 * q.std()
    return quad(lambda z: q.pdf(z) * f(z), low, high, epsabs=1e-12)[0]


def exact_parts(model, x):
    """Distortion and rate by quadrature."""
    q, log_p = densities(model, x)
    return -average(q, log_p), average(q, lambda z: q.logpdf(z) - norm.logpdf(z))


def log_evidence(model, x):
    """log p(x) by quadrature."""
    _, log_p = densities(model, x)
    return np.log(quad(lambda z: norm.pdf(z) * np.exp(log_p(z)), -12, 12)[0])


def test_eq_0_1_distortion_and_rate_are_these_expectations(model):
    elbo = model.elbo(X.repeat(200_000, 1), validate=False, generator=torch.Generator().manual_seed(1))
    distortion, rate = (part.reshape(-1, 3).mean(0).tolist() for part in elbo[:2])
    for n, x in enumerate(X):
        exact = exact_parts(model, x)
        assert distortion[n] == pytest.approx(exact[0], rel=1e-2)
        assert rate[n] == pytest.approx(exact[1], rel=1e-9)


@pytest.mark.parametrize("beta", [0.1, 1.0, 7.0])
def test_eq_0_2_training_minimizes_distortion_plus_beta_rate(model, beta):
    elbo = model.elbo(X, beta, validate=False, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(-elbo.value, elbo.distortion + beta * elbo.rate)
    for x in X:  # and at beta = 1 its negative is a lower bound of log p(x)
        assert -sum(exact_parts(model, x)) <= log_evidence(model, x)

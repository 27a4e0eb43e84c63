"""The variational autoencoder: an encoder, a decoder, a likelihood and a prior, put together.

The mixture-prior VAE (GMVAE) is not another class: it is `VAE(encoder, decoder, likelihood, MixturePrior(K, d))`.
"""

from typing import NamedTuple

import torch
from torch import nn

from gmvae_lib.data import check_array
from gmvae_lib.gaussian import sample_diag
from gmvae_lib.likelihood import Binomial
from gmvae_lib.network import Decoder, Encoder
from gmvae_lib.prior import StandardNormal


class Elbo(NamedTuple):
    """The two parts of the evidence lower bound (ELBO), each (N,), in nats, and the rate's weight beta. Eq. (5.3).

    For groups they are nats per view: V times `value` is a lower bound of log p(x_1, ..., x_V)."""

    distortion: torch.Tensor
    rate: torch.Tensor
    beta: float = 1.0

    @property
    def value(self):
        """-(distortion + beta * rate), (N,): a lower bound of log p(x) for beta = 1. Eq. (5.4)."""
        return -(self.distortion + self.beta * self.rate)


class VAE(nn.Module):
    """p(z) p(x | z), with q(z | x) to infer z. Source: Kingma & Welling (2014).

    Where x (N, D) is asked for, groups (N, V, D) serve as well: V views of each of N things, each view with its own z,
    all with the same component (chapter 9).

    Arguments:
        encoder: x / likelihood.scale (N, D) to (mean, log_var), each (N, d).
        decoder: z (N, d) to the likelihood's parameters (N, D).
        likelihood: `Bernoulli`, `Binomial` (16 by default) or `Gaussian`.
        prior: `StandardNormal` (the default), `MixturePrior`, or `VampPrior`, which needs this encoder.
    """

    def __init__(self, encoder, decoder, likelihood=None, prior=None):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.likelihood = Binomial(16) if likelihood is None else likelihood
        self.prior = StandardNormal(encoder.latent_dim) if prior is None else prior

    @classmethod
    def build(cls, data_dim, latent_dim, hidden=(256, 256), likelihood=None, prior=None, gated=False):
        """A VAE whose encoder and decoder are mirrored multilayer perceptrons with these `hidden` sizes."""
        return cls(Encoder(data_dim, latent_dim, hidden, gated), Decoder(latent_dim, data_dim, hidden[::-1], gated),
                   likelihood, prior)

    @property
    def device(self):
        """Where the parameters are."""
        return next(self.parameters()).device

    def check(self, x):
        """Returns x as float32 on the model's device; ValueError for a wrong shape, NaN, or pixels outside the
        likelihood's support."""
        x = check_array(x, n_features=self.encoder.data_dim, views=True)
        self.likelihood.check(x)
        return x.to(self.device, torch.get_default_dtype())

    def encode(self, x, beta=None):
        """q(z | x) as (mean, log_var), each (N, d). A gated network needs `beta`."""
        return self.encoder(x / self.likelihood.scale, *_optional(beta))

    def decode(self, z, beta=None):
        """The mean of p(x | z), (N, D), in pixel units."""
        return self.likelihood.mean(self.decoder(z, *_optional(beta)))

    def elbo(self, x, beta=1.0, method="collapsed", generator=None, validate=True, free_bits=0.0):
        """The ELBO of each point of x (N, D), with one reparameterized draw of z.

        Arguments:
            beta: the rate's weight; a tensor (N, 1) gives each point its own.
            method: how a `MixturePrior` measures the rate: "collapsed", "exact" or "joint".
            validate: whether to check x first; training does so once.
            free_bits: a floor, in nats, under the rate's batch mean in each latent dimension (of the whole, with a
                mixture prior): for training only, since the rate is then no KL divergence.
        Returns an `Elbo`. Raises ValueError as `check` does.
        """
        x = self.check(x) if validate else x
        each = isinstance(beta, torch.Tensor) and beta.ndim == 2
        gate = _optional((beta.unsqueeze(1) if each and x.ndim == 3 else beta) if self.gated else None)
        mean, log_var = (value.to(x.dtype) for value in self.encoder(x / self.likelihood.scale, *gate))
        params = self.decoder(sample_diag(mean, log_var, generator), *gate).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):  # networks bear half precision; sums of squares do not
            distortion = -self.likelihood.log_prob(x, params)
            distortion = distortion.mean(1) if x.ndim == 3 else distortion
            rate = self.prior.rate(mean, log_var, method=method, generator=generator, free_bits=free_bits)
        return Elbo(distortion, rate, beta.squeeze(1) if each else beta)

    @property
    def gated(self):
        """Whether the networks need a beta."""
        return getattr(getattr(self.encoder, "mlp", None), "gates", None) is not None

    @torch.no_grad()
    def responsibilities(self, x, beta=None):
        """q(c | x), the components' shares of each point, (N, K). Rows sum to one."""
        return self.prior.responsibilities(*self.encode(self.check(x), beta))

    def predict(self, x, beta=None):
        """The likeliest component of each point, (N,)."""
        return self.responsibilities(x, beta).argmax(1)

    @torch.no_grad()
    def sample(self, n, component=None, beta=None, noise=False, generator=None):
        """n images (n, D) from the prior, or from one of its components: their means, or with `noise` real draws."""
        params = self.decoder(self.prior.sample(n, component, generator), *_optional(beta))
        return self.likelihood.sample(params, generator) if noise else self.likelihood.mean(params)

    @torch.no_grad()
    def reconstruct(self, x, beta=None):
        """The decoded mean of q(z | x), (N, D), in pixel units."""
        return self.decode(self.encode(self.check(x), beta)[0], beta)


def _optional(beta):
    return () if beta is None else (beta,)

"""A mixture prior that moves with a style: Dilokthanakul's model as a `VAE`. Chapter 10."""

import math

import torch
from torch import nn

from gmvae_lib.gaussian import floored, kl_standard, log_prob_diag, sample_diag
from gmvae_lib.network import MLP, Decoder
from gmvae_lib.prior import Mixture, n_views, sum_views, with_free_bits


class CodeDecoder(Decoder):
    """A `Decoder` of codes beside which styles stand: it reads the first latent_dim d of its inputs alone."""

    def forward(self, z, beta=None):
        """(z, w) (N, d + s) to params (N, D)."""
        return super().forward(z[..., :self.latent_dim], beta)


class MovingMixture(nn.Module):
    """p(w) sum_c pi_c N(z | mu_c(w), Sigma_c(w)), p(w) = N(0, I): a mixture that moves with a style w. Eq. (10.17).

    As a prior it makes a `VAE` Dilokthanakul's model: the encoder's Gaussian is q(z | x) q(w | x), code and style in
    one vector (z, w) of latent_dim = d + s dimensions, and a `CodeDecoder` reads z. Groups (N, V, d + s) serve, too.

    Arguments:
        code_dim, style_dim: d and s, the dimensions of z and of w.
        hidden: the hidden sizes of the network from w to the K means and diagonal variances.
        spread, seed, min_var: as for a `MixturePrior`.
    Raises ValueError for dimensions or components below 1. Source: Dilokthanakul et al. (2016).
    """

    def __init__(self, n_components, code_dim, style_dim, hidden=(64,), spread=1.0, min_var=1e-4, seed=0):
        super().__init__()
        if min(n_components, code_dim, style_dim) < 1:
            raise ValueError(f"n_components is {n_components}, code_dim {code_dim} and style_dim {style_dim}: each "
                             "must be at least 1.")
        self.n_components, self.code_dim, self.latent_dim = n_components, code_dim, code_dim + style_dim
        self.min_var = min_var
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.mlp = MLP((style_dim, *hidden, 2 * n_components * code_dim))
        starts = torch.randn(n_components * code_dim, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.mlp.layers[-1].bias.copy_(torch.cat([spread * starts, torch.zeros_like(starts)]))

    @property
    def weights(self):
        """pi, (K,)."""
        return self.logits.softmax(0)

    def components(self, w):
        """Means and log-variances of the K components at styles w (N, s): (N, K, d) each."""
        means, log_var = self.mlp(w).unflatten(-1, (2, self.n_components, self.code_dim)).unbind(-3)
        return means, floored(log_var, math.log(self.min_var))

    def log_prob(self, z):
        """log p(z, w) of (z, w) (N, d + s): (N,)."""
        z, w = self._split(z)
        zeros = torch.zeros_like(w)
        return self._at(w).log_prob(z) + sum_views(log_prob_diag(w, zeros, zeros), 1)

    def sample(self, n, component=None, generator=None):
        """n draws of (z, w), (n, d + s), from all components or from one."""
        if component is not None and not 0 <= component < self.n_components:
            raise ValueError(f"component is {component}: choose 0 to {self.n_components - 1}, or None for all.")
        device, dtype = self.logits.device, self.logits.dtype
        w = torch.randn(n, self.latent_dim - self.code_dim, generator=generator, device=device, dtype=dtype)
        index = (torch.multinomial(self.weights, n, replacement=True, generator=generator) if component is None
                 else torch.full((n,), component, device=device))
        means, log_var = (value[torch.arange(n, device=device), index] for value in self.components(w))
        return torch.cat([sample_diag(means, log_var, generator), w], 1)

    def rate(self, mean, log_var, method="collapsed", resp=None, n_samples=1, generator=None, free_bits=0.0):
        """KL(q(z | x) q(w | x) ‖ p(z, w)), or an upper bound of it, (N,): the second and third term of Eq. (10.19).

        The style's price is a closed form; the code's is averaged over `n_samples` draws of w, each measured by
        `method` as by a `MixturePrior`: "exact", "collapsed" or "joint".
        """
        if free_bits:
            rate = self.rate(mean, log_var, method, resp, n_samples, generator)
            return with_free_bits(rate.unsqueeze(1), free_bits)
        (z, w), (log_var_z, log_var_w) = self._split(mean), self._split(log_var)
        style = sum_views(kl_standard(w, log_var_w), 1) / n_views(mean)
        drawn = (self._at(sample_diag(w, log_var_w, generator)) for _ in range(n_samples))
        return style + torch.stack([still.rate(z, log_var_z, method, resp, 1, generator) for still in drawn]).mean(0)

    def responsibilities(self, mean, log_var):
        """q(c | x) of Eq. (10.8), (N, K), at the mean of q(w | x)."""
        (z, w), (log_var_z, _) = self._split(mean), self._split(log_var)
        return self._at(w).responsibilities(z, log_var_z)

    def _split(self, value):
        return value[..., :self.code_dim], value[..., self.code_dim:]

    def _at(self, w):
        return _Still(self.logits, self.components(w))


class _Still(Mixture):
    """A moving mixture at one style for each point: components of shape (N, K, d)."""

    covariance_type = "diag"

    def __init__(self, logits, components):
        super().__init__()
        self.logits, self._components, self.n_components = logits, components, len(logits)

    def components(self):
        return self._components

"""Priors p(z) over the latent space, and their rates KL(q(z | x) ‖ p(z)).

The encoder's q is a diagonal Gaussian, given by `mean` and `log_var`, each (N, d). All results are in nats.

Everything takes groups, too, (N, V, d): V views of each of N things, each with a z of its own, which share one
component (chapter 9). Their joint density sum_k pi_k prod_v N(z_v | mu_k, Sigma_k) is a mixture once more, in V d
dimensions: what is said of each component is summed over views first. Rates are then nats per view.
"""

import math

import torch
from torch import nn

from gmvae_lib import families
from gmvae_lib.data import near_float64
from gmvae_lib.gaussian import (
    entropy_diag,
    floored,
    kl_diag,
    kl_diag_full,
    kl_standard,
    log_prob_diag,
    log_prob_full,
    sample_diag,
)
from gmvae_lib.processes import total

RATES = ("collapsed", "exact", "joint")


def with_free_bits(rates, floor):
    """Rates (N, G) of G groups of dimensions, summed: (N,), where groups whose mean is below `floor` count as `floor`.

    The mean over points is sum_g max(floor, mean rate of g), so that no gradient presses on what is below. Eq. (6.15).
    Source: Kingma et al. (2016), section 5.
    """
    below = rates.detach().mean(0) < floor
    return torch.where(below, floor, rates).sum(1)


def n_views(mean):
    """V, for groups (N, V, d); 1 for points (N, d)."""
    return mean.shape[1] if mean.ndim == 3 else 1


def sum_views(values, n_axes):
    """Values (N, ...) with `n_axes` axes; where there is one more, of views, their sums over the views."""
    return values.sum(1) if values.ndim > n_axes else values


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    n_components = 1

    def __init__(self, latent_dim):
        super().__init__()
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)

    def log_prob(self, z):
        """log p(z), (N,)."""
        return sum_views(log_prob_diag(z, self._zeros, self._zeros), 1)

    def sample(self, n, component=None, generator=None):
        """n draws of z, (n, d). There is one component, number 0."""
        if component not in (None, 0):
            raise ValueError(f"component is {component}: a standard normal has only number 0.")
        return sample_diag(self._zeros.expand(n, -1), self._zeros, generator)

    def rate(self, mean, log_var, free_bits=0.0, **_):
        """KL(q ‖ p) in closed form, (N,). Eq. (5.11). It needs none of the mixture's other options, and ignores them.

        free_bits: see `with_free_bits`; each dimension has its own.
        """
        if free_bits:
            rates = kl_standard(mean.unsqueeze(-1), log_var.unsqueeze(-1))
            return with_free_bits(rates.mean(1) if mean.ndim == 3 else rates, free_bits)
        rate = kl_standard(mean, log_var)
        return rate.mean(1) if mean.ndim == 3 else rate

    def responsibilities(self, mean, log_var):
        """(N, 1) ones: everything belongs to the only component."""
        return mean.new_ones(len(mean), 1)


class Mixture(nn.Module):
    """What every mixture p(z) = sum_k pi_k N(z | mu_k, Sigma_k) can do, K = n_components.

    Subclasses set `n_components`, `latent_dim`, `covariance_type` and `logits` (K,), whose softmax is pi, and have
    `components()`, and for full covariances `means` and `scale_tril`.
    """

    def components(self):
        """Means and log-variances of diagonal components, each (K, d)."""
        raise NotImplementedError

    @property
    def weights(self):
        """pi, (K,): positive and summing to one, whatever the logits."""
        return self.logits.softmax(0)

    def component_log_prob(self, z):
        """log N(z | mu_k, Sigma_k), (N, K); of each view, (N, V, K)."""
        if self.covariance_type == "diag":
            return log_prob_diag(z.unsqueeze(-2), *self.components())
        return log_prob_full(z.flatten(0, -2), self.means, self.scale_tril).T.unflatten(0, z.shape[:-1])

    def log_prob(self, z):
        """log p(z), (N,): the sum over dimensions first, then the log-sum-exp over components. Eq. (8.4)."""
        return torch.logsumexp(self.logits.log_softmax(0) + sum_views(self.component_log_prob(z), 2), dim=1)

    def sample(self, n, component=None, generator=None):
        """n draws of z, (n, d), from the mixture or from one component."""
        if component is None:
            index = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        elif 0 <= component < self.n_components:
            index = torch.full((n,), component, device=self.logits.device)
        else:
            raise ValueError(f"component is {component}: choose 0 to {self.n_components - 1}, or None for all.")
        if self.covariance_type == "diag":
            means, log_var = self.components()
            return sample_diag(means[index], log_var[index], generator)
        noise = torch.randn(n, self.latent_dim, generator=generator, dtype=self.means.dtype, device=self.means.device)
        return self.means[index] + (self.scale_tril[index] @ noise.unsqueeze(-1)).squeeze(-1)

    def component_kl(self, mean, log_var):
        """KL(q ‖ N(mu_k, Sigma_k)) in closed form, (N, K); of each view, (N, V, K). Eqs. (8.11) and (8.12)."""
        if self.covariance_type == "diag":
            return kl_diag(mean.unsqueeze(-2), log_var.unsqueeze(-2), *self.components())
        mean, log_var, shape = mean.flatten(0, -2), log_var.flatten(0, -2), mean.shape[:-1]
        return kl_diag_full(mean, log_var, self.means, self.scale_tril).T.unflatten(0, shape)

    def responsibilities(self, mean, log_var):
        """gamma (N, K), proportional to pi_k exp(-KL_k): the optimal q(c | x). Eq. (8.15)."""
        return (self.logits.log_softmax(0) - sum_views(self.component_kl(mean, log_var), 2)).softmax(1)

    def rate(self, mean, log_var, method="collapsed", resp=None, n_samples=1, generator=None, free_bits=0.0):
        """KL(q ‖ p), or an upper bound of it, (N,); of groups, that of all V views together, divided by V.

        Arguments:
            method: "exact": Monte Carlo with `n_samples` draws, unbiased, and never above the others in expectation,
                Eq. (8.8);
                "collapsed": -log sum_k pi_k exp(-KL_k), closed form, Eq. (8.16);
                "joint": sum_k gamma_k KL_k + KL(gamma ‖ pi), for responsibilities `resp` (N, K), by default the
                optimal ones, for which it equals the collapsed rate. Eq. (8.13).
            free_bits: see `with_free_bits`; there is one group.
        """
        if free_bits:
            return with_free_bits(self.rate(mean, log_var, method, resp, n_samples, generator).unsqueeze(1), free_bits)
        if method == "exact":
            draws = (sample_diag(mean, log_var, generator) for _ in range(n_samples))
            cross_entropy = -torch.stack([self.log_prob(z) for z in draws]).mean(0)
            return (cross_entropy - sum_views(entropy_diag(log_var), 1)) / n_views(mean)
        if method not in RATES:
            raise ValueError(f"method is {method!r}: choose one of {RATES}.")
        log_weights, kl = self.logits.log_softmax(0), sum_views(self.component_kl(mean, log_var), 2)
        if method == "collapsed":
            return -torch.logsumexp(log_weights - kl, dim=1) / n_views(mean)
        resp = (log_weights - kl).softmax(1) if resp is None else resp
        return ((resp * (kl - log_weights)).sum(1) + torch.special.xlogy(resp, resp).sum(1)) / n_views(mean)


class MixturePrior(Mixture):
    """A mixture whose weights, means and covariances are parameters to be learnt.

    Arguments:
        covariance_type: "diag" or "full".
        min_var: a floor for every variance.
        spread: standard deviation of the starting means around zero, drawn with `seed`.
    Parameters: `logits` (K,), whose softmax is pi; `means` (K, d); and `log_scale` (K, d), the logarithms of the
    standard deviations of diagonal components, or of the diagonals of the full ones' Cholesky factors, whose entries
    below the diagonal are in `lower` (K, d, d).
    Sources: Jiang et al. (2017), VaDE, for the responsibilities form of the rate; Hershey & Olsen (2007) for the
    collapsed one.
    """

    def __init__(self, n_components, latent_dim, covariance_type="diag", min_var=1e-4, spread=1.0, seed=0):
        super().__init__()
        if covariance_type not in ("diag", "full"):
            raise ValueError(f"covariance_type is {covariance_type!r}: choose 'diag' or 'full'.")
        if n_components < 1:
            raise ValueError(f"n_components is {n_components}: it must be at least 1.")
        self.n_components, self.latent_dim = n_components, latent_dim
        self.covariance_type, self.min_var = covariance_type, min_var
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.means = nn.Parameter(spread * torch.randn(n_components, latent_dim, generator=generator))
        self.log_scale = nn.Parameter(torch.zeros(n_components, latent_dim))
        if covariance_type == "full":
            self.lower = nn.Parameter(torch.zeros(n_components, latent_dim, latent_dim))

    @property
    def log_var(self):
        """Log-variances (K, d) of diagonal components, kept above log(min_var). For full ones: twice the logarithms
        of the Cholesky factors' diagonals."""
        return floored(2 * self.log_scale, math.log(self.min_var))

    @property
    def scale_tril(self):
        """Cholesky factors (K, d, d) of full components."""
        return torch.diag_embed((0.5 * self.log_var).exp()) + self.lower.tril(-1)

    def components(self):
        """Means and log-variances, each (K, d)."""
        return self.means, self.log_var

    @property
    def covariances(self):
        """(K, d) for "diag", (K, d, d) for "full"."""
        if self.covariance_type == "diag":
            return self.log_var.exp()
        return self.scale_tril @ self.scale_tril.mT

    @torch.no_grad()
    def update(self, mean, log_var, resp=None, distributed=False):
        """The M-step: sets weights, means and covariances to their optimum for the encoder's Gaussians and `resp`
        (N, K), by default the current responsibilities. It is EM's, with each point's variance added.
        Eqs. (8.22)–(8.25). Sums are taken about the old means, so that far-off clusters lose no digits; with
        `distributed`, over the points of all processes of `torch.distributed`, which get the same prior."""
        resp = self.responsibilities(mean, log_var) if resp is None else resp
        resp = resp.repeat_interleave(n_views(mean), 0)
        given = (resp, mean.flatten(0, -2), log_var.flatten(0, -2), self.weights, self.means, self.covariances)
        resp, mean, log_var, *previous = (near_float64(value).double() for value in given)
        previous, resp, var = families.Parameters(*previous), resp.T, log_var.exp()
        reference = previous.means
        counts = resp.sum(1)
        first, second = [], []
        for r, center in zip(resp, reference, strict=True):
            y = mean - center
            first.append(r @ y)
            second.append(torch.diag_embed(r @ var) + y.T @ (r.unsqueeze(1) * y))  # Eq. (8.24), about the old mean
        second = torch.stack(second)
        if self.covariance_type == "diag":
            second = second.diagonal(dim1=1, dim2=2)
        sums = (counts, torch.stack(first), second)
        statistics = families.Statistics(*(total(*sums) if distributed else sums), reference)
        self.set_parameters(*families.maximization(statistics, self.covariance_type, 0.0, previous))

    @torch.no_grad()
    def set_parameters(self, weights, means, covariances):
        """Takes over weights (K,), means (K, d) and covariances, such as a fitted `GaussianMixture`'s.

        Covariances are (K, d) for "diag", (K, d, d) for "full"; variances below `min_var` are raised to it.
        """
        given = [near_float64(torch.as_tensor(value)) for value in (weights, means, covariances)]
        found = [tuple(value.shape) for value in given]
        expected = [tuple(value.shape) for value in (self.logits, self.means, self.covariances)]
        if found != expected:
            raise ValueError(f"weights, means and covariances have shapes {found}: expected {expected}, for "
                             f"{self.n_components} components ({self.covariance_type!r}) in {self.latent_dim} "
                             "dimensions.")
        weights, means, covariances = given
        self.logits.copy_(weights.clamp_min(1e-30).log())  # a weight of 0 has no logit
        self.means.copy_(means)
        if self.covariance_type == "diag":
            self.log_scale.copy_(0.5 * covariances.clamp_min(self.min_var).log())
            return
        identity = torch.eye(self.latent_dim, dtype=covariances.dtype, device=covariances.device)
        smallest = torch.linalg.eigvalsh(covariances)[:, 0]
        lift = (self.min_var - smallest).clamp_min(0)[:, None, None] * identity
        factors = families.scale(covariances + lift, "full")
        self.log_scale.copy_(factors.diagonal(dim1=1, dim2=2).log())
        self.lower.copy_(factors.tril(-1))


class VampPrior(Mixture):
    """p(z) = 1/K sum_k q(z | u_k): the encoder's own Gaussians at K learnt pseudo-inputs u_k. Eq. (10.9).

    Arguments:
        encoder: the VAE's own `Encoder`, without gates. It stays the VAE's: its parameters are not listed here.
        x: points (N, D) as the encoder sees them, x / likelihood.scale; K of them, drawn with `seed`, are the start.
        support: the pseudo-inputs are kept between these two numbers, as pixels are; None sets no bounds.
    Parameter: `pseudo_inputs` (K, D). Its rate is best taken by method="exact", since its components overlap.
    Raises ValueError for fewer than K points, and for points outside the support or with another D than the encoder's.
    Source: Tomczak & Welling (2018).
    """

    covariance_type = "diag"

    def __init__(self, n_components, encoder, x, support=(0.0, 1.0), seed=0):
        super().__init__()
        if not 1 <= n_components <= len(x):
            raise ValueError(f"n_components is {n_components}: it must be at least 1, and at most the {len(x)} points "
                             "given to start from.")
        if x.shape[1] != encoder.data_dim:
            raise ValueError(f"x has {x.shape[1]} columns: the encoder, which sees the pseudo-inputs, takes "
                             f"{encoder.data_dim}.")
        if support is not None and not (x.min() >= support[0] and x.max() <= support[1]):
            raise ValueError(f"x runs from {x.min():g} to {x.max():g}, outside the support {support}: give it as the "
                             "encoder sees it, x / likelihood.scale.")
        self.n_components, self.latent_dim, self.support = n_components, encoder.latent_dim, support
        self._encoder = (encoder,)  # in a tuple, or its weights would stand in the VAE's state twice
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n_components]
        self.pseudo_inputs = nn.Parameter(x[chosen.to(x.device)].detach().clone())
        self.register_buffer("logits", torch.zeros(n_components, device=x.device), persistent=False)

    def components(self):
        """Means and log-variances of the encoder's Gaussians at the pseudo-inputs, each (K, d)."""
        inputs = self.pseudo_inputs
        if self.support is not None:  # gradients pass, so that what has left the support can come back
            inputs = inputs + (inputs.clamp(*self.support) - inputs).detach()
        return self._encoder[0](inputs)

    @property
    def means(self):
        """(K, d)."""
        return self.components()[0]

    @property
    def covariances(self):
        """The variances (K, d)."""
        return self.components()[1].exp()

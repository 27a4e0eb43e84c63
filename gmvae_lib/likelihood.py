"""The decoder's likelihood log p(x | z): what a "reconstruction error" must be to be part of a bound.

Each class turns the decoder's raw output, `params` (N, D), into a distribution over the pixels x (N, D), independent
given z. Encoders see x / scale; `scale` is the largest pixel value, or for a Gaussian whatever brings x near 1. Source:
Kingma & Welling (2014), appendix C.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from gmvae_lib.gaussian import LOG_2PI, floored


class Bernoulli(nn.Module):
    """Pixels of ink, 1, or paper, 0: x in {0, 1}, `params` are the logits of ink."""

    scale = 1.0

    def log_prob(self, x, params):
        """log p(x | z), summed over the D pixels: (N,), in nats. Eq. (5.12)."""
        return (x * params - F.softplus(params)).sum(-1)

    def mean(self, params):
        """E[x | z], (N, D)."""
        return params.sigmoid()

    def sample(self, params, generator=None):
        """A draw of x (N, D)."""
        return torch.bernoulli(params.sigmoid(), generator=generator)

    def check(self, x):
        """Raises ValueError for pixels other than 0 and 1."""
        _require((x == 0) | (x == 1), x, "0 or 1 (Bernoulli)", "binarize, or use Binomial for grey pixels")


class DynamicBernoulli(Bernoulli):
    """Grey pixels that stand for ink or paper: each of x in 0..scale is drawn as ink, `scale`, with probability
    x / scale, else as paper, 0, afresh whenever it is looked at ("dynamic binarization"). `params` are the logits of
    ink.

    The draws' log-probabilities are averaged in closed form, so that no draw is made in training. Of pixels that are
    drawn already, 0 or scale, it is `Bernoulli`'s log-probability. Source: Salakhutdinov & Murray (2008); Burda et al.
    (2016).
    """

    def __init__(self, scale=255):
        super().__init__()
        self.scale = float(scale)

    def log_prob(self, x, params):
        """The mean over the draws b of x of log p(b | z), summed over the D pixels: (N,), in nats. Eq. (12.2)."""
        return super().log_prob(x / self.scale, params)

    def mean(self, params):
        """E[x | z], (N, D)."""
        return self.scale * super().mean(params)

    def sample(self, params, generator=None):
        """A draw of ink and paper, scale or 0, (N, D)."""
        return self.scale * super().sample(params, generator)

    def draw(self, x, generator=None):
        """Ink and paper, scale or 0, drawn from grey pixels x (N, D)."""
        return self.scale * torch.bernoulli(x / self.scale, generator=generator)

    def check(self, x):
        """Raises ValueError for pixels outside 0..scale."""
        _require((x >= 0) & (x <= self.scale), x, f"in 0..{self.scale:g} (DynamicBernoulli)",
                 "rescale, or give the largest pixel value as scale")


class Binomial(nn.Module):
    """Grey pixels that count: x in {0, ..., total_count}, `params` are logits. Exact for the digits, with 16."""

    def __init__(self, total_count=16):
        super().__init__()
        self.scale = float(total_count)
        n = torch.arange(total_count + 1, dtype=torch.float64)
        choices = math.lgamma(total_count + 1) - torch.lgamma(n + 1) - torch.lgamma(total_count - n + 1)
        self.register_buffer("log_choices", choices.to(torch.get_default_dtype()), persistent=False)

    def log_prob(self, x, params):
        """log p(x | z), summed over the D pixels: (N,), in nats. Eq. (5.13)."""
        log_choices = self.log_choices.index_select(0, x.long().reshape(-1)).reshape(x.shape)  # faster than [x.long()]
        return (log_choices + x * params - self.scale * F.softplus(params)).sum(-1)

    def mean(self, params):
        """E[x | z], (N, D)."""
        return self.scale * params.sigmoid()

    def sample(self, params, generator=None):
        """A draw of x (N, D)."""
        return torch.binomial(torch.full_like(params, self.scale), params.sigmoid(), generator=generator)

    def check(self, x):
        """Raises ValueError for pixels that are no count in 0..total_count."""
        _require((x >= 0) & (x <= self.scale) & (x == x.round()), x,
                 f"whole numbers in 0..{self.scale:g} (Binomial)", "rescale and round, or use Gaussian")


class Gaussian(nn.Module):
    """Real-valued pixels: N(x | params, sigma² I), one learnt sigma above `min_sigma`. Eq. (5.15) is its optimum."""

    def __init__(self, sigma=1.0, min_sigma=1e-3, scale=1.0):
        super().__init__()
        if not (sigma > 0 and min_sigma > 0):
            raise ValueError(f"sigma is {sigma} and min_sigma {min_sigma}: both must be above 0.")
        self.scale, self.min_sigma = float(scale), min_sigma
        self.log_sigma = nn.Parameter(torch.tensor(float(sigma)).log())

    @property
    def sigma(self):
        """The noise's standard deviation, in the pixels' own unit."""
        return floored(self.log_sigma, math.log(self.min_sigma)).exp()

    def log_prob(self, x, params):
        """log p(x | z), summed over the D pixels: (N,), in nats. Eq. (5.14)."""
        z = (x - params) / self.sigma
        return -0.5 * z.square().sum(-1) - x.shape[-1] * (self.sigma.log() + 0.5 * LOG_2PI)

    def mean(self, params):
        """E[x | z], (N, D)."""
        return params

    def sample(self, params, generator=None):
        """A draw of x (N, D)."""
        noise = torch.randn(params.shape, generator=generator, dtype=params.dtype, device=params.device)
        return params + self.sigma * noise

    def check(self, x):
        """Raises ValueError for NaN and infinite pixels."""
        _require(x.isfinite(), x, "finite (Gaussian)", "drop those images")


def _require(valid, x, support, remedy):
    if not valid.all():
        raise ValueError(f"Pixels must be {support}, but x runs from {x.min():g} to {x.max():g} and holds "
                         f"{x[~valid][0]:g}: {remedy}.")

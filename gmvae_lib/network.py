"""Encoder and decoder networks: multilayer perceptrons, optionally gated by beta.

Chapter 5's networks are plain. A gated one serves every beta at once: each hidden unit is multiplied by
sigmoid(a log beta + b), a and b learnt. Source: Bae et al. (2023), "Multi-rate VAE".
"""

import math

import torch
from torch import nn


class MLP(nn.Module):
    """Linear layers with ReLU between: `sizes` = (in, hidden, ..., out). The output has no nonlinearity.

    With `gated`, `forward` needs a beta: a number, or a tensor (N, 1), one for each row. `gated` may be a number: how
    steep the gates start (see `Gate`).
    """

    def __init__(self, sizes, gated=False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        steepness = None if gated is True else gated
        self.gates = nn.ModuleList(Gate(size, steepness) for size in sizes[1:-1]) if gated else None

    def forward(self, x, beta=None):
        """(N, in) to (N, out)."""
        if self.gates is not None and beta is None:
            raise ValueError("This network is gated by beta: pass beta, a number or a tensor (N, 1).")
        for i, layer in enumerate(self.layers[:-1]):
            x = torch.relu(layer(x))
            if self.gates is not None:
                x = x * self.gates[i](beta)
        return self.layers[-1](x)


class Gate(nn.Module):
    """sigmoid(a log beta + b), one number in (0, 1) for each hidden unit: (N, size) or (1, size). Eq. (6.16).

    Gates start nearly flat and open, or with `steepness`, the standard deviation of the first slopes a, turning at
    betas that are spread from 0.03 to 100.
    """

    def __init__(self, size, steepness=None):
        super().__init__()
        self.slope = nn.Parameter((0.1 if steepness is None else steepness) * torch.randn(size))
        self.offset = nn.Parameter(torch.full((size,), 2.0))
        if steepness is not None:
            turns = math.log(0.03) + torch.rand(size) * math.log(100 / 0.03)
            self.offset.data = 1 - self.slope.detach() * turns

    def forward(self, beta):
        """beta: a number, or a tensor (N, 1), or (N, 1, 1) for groups; below 1e-6 it counts as 1e-6."""
        beta = torch.as_tensor(beta, dtype=self.slope.dtype, device=self.slope.device)
        beta = beta.reshape(-1, 1) if beta.ndim < 2 else beta
        log_beta = beta.clamp_min(1e-6).log()  # log 0 makes gradients NaN, and warm-up starts there
        return torch.sigmoid(self.slope * log_beta + self.offset)


class Encoder(nn.Module):
    """q(z | x) = N(mean, diag(exp(log_var))), Eq. (5.5): data_dim D inputs, two heads of latent_dim d outputs."""

    def __init__(self, data_dim, latent_dim, hidden=(256, 256), gated=False):
        super().__init__()
        self.data_dim, self.latent_dim = data_dim, latent_dim
        self.mlp = MLP((data_dim, *hidden, 2 * latent_dim), gated)

    def forward(self, x, beta=None):
        """x (N, D) to (mean, log_var), each (N, d)."""
        return self.mlp(x, beta).chunk(2, dim=-1)

    def reset_log_var(self, value=-3.0):
        """Makes every log-variance equal to `value`: the right start after training without noise."""
        head = self.mlp.layers[-1]
        with torch.no_grad():
            head.weight[self.latent_dim:] = 0
            head.bias[self.latent_dim:] = value


class Decoder(nn.Module):
    """The likelihood's parameters given z: latent_dim d inputs, data_dim D outputs."""

    def __init__(self, latent_dim, data_dim, hidden=(256, 256), gated=False):
        super().__init__()
        self.latent_dim, self.data_dim = latent_dim, data_dim
        self.mlp = MLP((latent_dim, *hidden, data_dim), gated)

    def forward(self, z, beta=None):
        """z (N, d) to params (N, D)."""
        return self.mlp(z, beta)

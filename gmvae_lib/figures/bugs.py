"""Chapter 13's first picture: what six programs draw, of which five are wrong."""

import math

import numpy as np
import torch

from gmvae_lib.figures.mixtures import ellipse
from gmvae_lib.figures.picture import COLORS, LINES, Picture, array, style, subplots
from gmvae_lib.gaussian import LOG_2PI


def six_programs(size=(11, 6.6)):
    """Six panels, A to F, each the output of a small program. Only E's is right."""
    figure, axes = subplots(2, 3, size=size)
    with style():
        for axis, letter, draw in zip(axes.flat, "ABCDEF", (_density, _ascent, _draws, _far, _narrow, _rate)):
            title, xlabel, ylabel = draw(axis)
            axis.set(title=f"{letter}  {title}", xlabel=xlabel, ylabel=ylabel)
    return Picture(figure, (
        "Six panels. A: a density over the plane with four bright spots, and crosses at two of them. B: a "
        "log-likelihood over steps of EM, which falls steeply, then rises slowly. C: points around the outline of a "
        "Gaussian, too many of them outside. D: the share of the left of two components along a line: one, then zero, "
        "and one half at both ends. E: the share of a narrow component along a line: high in the middle, zero on both "
        "sides. F: a rate over training steps, which sinks below zero."))


def published_ascent(steps=12):
    """The log-likelihoods (steps,) of an EM whose responsibilities leave out the weights, from right EM's end."""
    x, weights, means, sds = unequal_pair()
    found = []
    for _ in range(steps):
        log_normal = -0.5 * (LOG_2PI + ((x[:, None] - means) / sds).square()) - sds.log()
        found.append((weights.log() + log_normal).logsumexp(1).sum())
        resp = log_normal.softmax(1)
        counts = resp.sum(0)
        weights, means = counts / len(x), (resp * x[:, None]).sum(0) / counts
        sds = ((resp * (x[:, None] - means).square()).sum(0) / counts).sqrt()
    return torch.stack(found)


def unequal_pair(n=600):
    """Points on a line (n,), a few from a narrow Gaussian beside many from a wide one, and where right EM ends on
    them: weights, means, standard deviations."""
    generator = torch.Generator().manual_seed(0)
    second = torch.rand(n, generator=generator, dtype=torch.float64) < 0.05
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    x = torch.where(second, 1.5 + 0.3 * x, x)
    weights, means, sds = (torch.tensor(pair, dtype=torch.float64) for pair in ([0.95, 0.05], [0.0, 1.5], [1.0, 0.3]))
    for _ in range(200):
        log_normal = -0.5 * ((x[:, None] - means) / sds).square() - sds.log()
        resp = (weights.log() + log_normal).softmax(1)
        counts = resp.sum(0)
        weights, means = counts / n, (resp * x[:, None]).sum(0) / counts
        sds = ((resp * (x[:, None] - means).square()).sum(0) / counts).sqrt()
    return x, weights, means, sds


def _density(axis):
    line = np.linspace(-6, 6, 121)
    hump = np.exp(-0.5 * (line - 3)**2) + np.exp(-0.5 * (line + 3)**2)
    axis.pcolormesh(line, line, np.outer(hump, hump), cmap="cividis", shading="nearest", rasterized=True)
    axis.plot([-3, 3], [-3, 3], "x", color="white", markersize=11, markeredgewidth=3)
    axis.set(aspect="equal", xticks=(-6, -3, 0, 3, 6), yticks=(-6, -3, 0, 3, 6))
    axis.grid(False)
    return "A density, two centers", "$x_1$", "$x_2$"


def _ascent(axis):
    values = array(published_ascent())
    axis.plot(range(len(values)), values, "-o", color=COLORS[0])
    axis.xaxis.get_major_locator().set_params(integer=True)
    return "EM climbs", "step", "log-likelihood (nats)"


def _draws(axis):
    generator = torch.Generator().manual_seed(1)
    variances = torch.tensor([2.5, 2.0], dtype=torch.float64)
    points = variances * torch.randn(300, 2, generator=generator, dtype=torch.float64)
    axis.plot(*array(points).T, "o", color=COLORS[0], markersize=3.5, alpha=0.6)
    axis.plot(*ellipse(np.zeros(2), np.diag(array(variances))).T, color=COLORS[1], linewidth=2.5)
    axis.set(aspect="equal", xlim=(-8, 8), ylim=(-8, 8))
    return "Draws, and two σ around", "$x_1$", "$x_2$"


def _far(axis):
    x = np.linspace(-20, 20, 401)
    left, right = (np.exp(-0.5 * (x - mean)**2) / math.sqrt(2 * math.pi) + 1e-10 for mean in (-4, 4))
    axis.plot(x, left / (left + right), LINES[0], color=COLORS[0])
    axis.set(ylim=(-0.05, 1.05))
    return "Who owns a point?", "$x$", "share of the left one"


def _narrow(axis):
    x = np.linspace(-20, 20, 401)
    log_odds = np.clip(math.log(3) - 0.5 * x**2 + 0.5 * (x / 3)**2, -700, 700)
    axis.plot(x, 1 / (1 + np.exp(-log_odds)), LINES[0], color=COLORS[0])
    axis.set(ylim=(-0.05, 1.05))
    return "And here?", "$x$", "share of the narrow one"


def _rate(axis):
    kl = torch.tensor([[1.0, 6.0, 7.0], [5.0, 2.0, 6.0], [8.0, 5.0, 1.5]], dtype=torch.float64)
    weights = torch.full((3,), 1 / 3, dtype=torch.float64, requires_grad=True)
    optimizer, rates = torch.optim.Adam([weights], lr=0.5), []
    for _ in range(101):
        rate = -(weights.clamp_min(1e-6).log() - kl).logsumexp(1).mean()
        rates.append(float(rate.detach()))
        optimizer.zero_grad()
        rate.backward()
        optimizer.step()
    axis.plot(range(101), rates, color=COLORS[0])
    axis.axhline(0, color=COLORS[8], linewidth=1)
    return "Training lowers the rate", "step", "rate (nats)"

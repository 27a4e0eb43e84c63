"""Pictures of latent spaces."""

import numpy as np
import torch

from gmvae_lib.figures.labels import apart
from gmvae_lib.figures.mixtures import ellipse, full_covariances
from gmvae_lib.figures.picture import COLORS, MARKERS, Picture, array, style, subplots


def latent_plane(decode, image_shape, title, alt, extent=3.0, n=15, size=(6.6, 6.6)):
    """Images decoded from a regular n × n grid on the latent plane, each standing where its z is.

    decode: z (n * n, 2) to images (n * n, D). extent: the grid runs from -extent to +extent along both axes.
    """
    steps = torch.linspace(-extent, extent, n)
    z = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # row by row, from the top left
    framed = np.zeros((n, n, image_shape[0] + 2, image_shape[1] + 2), dtype=np.float32)  # a pixel of white around each
    framed[:, :, 1:-1, 1:-1] = array(decode(z)).reshape(n, n, *image_shape)
    half = extent + extent / (n - 1)
    figure, axis = subplots(size=size)
    with style():
        axis.imshow(framed.swapaxes(1, 2).reshape(n * framed.shape[2], n * framed.shape[3]), vmin=0,
                    extent=(-half, half, -half, half), interpolation="nearest")
        axis.grid(False)
        axis.set(title=title, xlabel="$z_1$", ylabel="$z_2$")
    return Picture(figure, alt)


def discriminant_plane(mixture):
    """The two directions (2, d) in which a mixture's components are farthest apart for their width (linear
    discriminant analysis); `mixture` is weights (K,), means (K, d), covariances (K, d, d)."""
    weights, means, covariances = map(array, mixture)
    apart = means - weights @ means
    whitener = np.linalg.inv(np.linalg.cholesky(np.tensordot(weights, covariances, 1)))
    return np.linalg.svd(np.sqrt(weights)[:, None] * apart @ whitener.T, full_matrices=False)[2][:2] @ whitener


def clusters(model, data, title, alt, per_row=10, size=(10.5, 4.8)):
    """A VAE with a mixture prior on a `Dataset` of images: the codes in the prior's discriminant plane, marked by
    component, with each component's 1.5-sigma outline and number; beside it, `per_row` samples of each component."""
    figure, (left, right) = subplots(1, 2, size=size, width_ratios=(1.25, 1))
    prior, image_shape = model.prior, data.image_shape
    full = full_covariances(prior.covariances, prior.covariance_type, *prior.means.shape)
    axes, labels = discriminant_plane((prior.weights, prior.means, full)), array(model.predict(data.x))
    points, means = array(model.encode(data.x)[0]) @ axes.T, array(prior.means) @ axes.T
    covariances = axes @ full @ axes.T
    generator = torch.Generator().manual_seed(0)
    samples = np.concatenate([array(model.sample(per_row, k, generator=generator)) for k in range(len(means))])
    n_components, (height, width) = len(means), image_shape
    canvas = np.full((n_components * (height + 1) - 1, per_row * (width + 1) - 1), np.nan)
    for i, image in enumerate(samples.reshape(-1, height, width)):
        top, across = (i // per_row) * (height + 1), (i % per_row) * (width + 1)
        canvas[top:top + height, across:across + width] = image
    places = apart(means, 0.07 * np.ptp(points, axis=0).max())
    with style():
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            color = COLORS[k % 10]
            left.plot(*points[labels == k].T, MARKERS[k % 10], color=color, markersize=3, alpha=0.45)
            left.plot(*ellipse(mean, covariance, 1.5).T, color=color, linewidth=2)
            left.text(*places[k], str(k), ha="center", va="center", fontsize=13, fontweight="bold",
                      bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "edgecolor": color, "linewidth": 2})
        left.set(title="Latent codes, by component", xlabel="first discriminant axis of z",
                 ylabel="second discriminant axis of z")
        right.imshow(canvas, vmin=0, interpolation="nearest")
        right.set(title="Samples of each component", xticks=[])
        right.set_yticks([k * (height + 1) + height / 2 - 0.5 for k in range(n_components)], range(n_components))
        right.set_ylabel("component")
        right.grid(False)
        right.tick_params(length=0)
        for k, tick in enumerate(right.get_yticklabels()):
            tick.set(color=COLORS[k % 10], fontweight="bold")
        for spine in right.spines.values():
            spine.set_visible(False)
        figure.suptitle(title)
    return Picture(figure, alt)


RATIO = {"cmap": "PuOr_r", "vmin": -4, "vmax": 4}  # of log-ratios: violet where below, orange where above


def misfit(x, y, log_q, log_p, title, alt, marks=None, size=(11.5, 4.2)):
    """Two log-densities on a grid, (len(y), len(x)) each: the densities of codes, q, and of a prior, p, on one scale,
    and the logarithm of their ratio; `marks` maps a label to places (M, 2)."""
    figure, axes = subplots(1, 3, size=size, sharex=True, sharey=True)
    x, y, log_q, log_p = map(array, (x, y, log_q, log_p))
    panels = {"codes, q(z)": np.exp(log_q), "prior, p(z)": np.exp(log_p), "log q(z) − log p(z)": log_q - log_p}
    top = np.quantile(panels["codes, q(z)"], 0.999)  # a few sharp spots would leave the rest dark
    with style():
        for i, (axis, (label, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            colors = RATIO if i == 2 else {"cmap": "cividis", "vmin": 0, "vmax": top}
            image = axis.pcolormesh(x, y, values, shading="nearest", rasterized=True, **colors)
            axis.set(title=label, xlabel="$z_1$", aspect="equal")
            axis.grid(False)
            if i:
                bar = figure.colorbar(image, ax=axes[:2] if i == 1 else axes[2], shrink=0.8,
                                      extend=("max", "both")[i - 1], label=("density", "nats")[i - 1])
                bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes[0].set_ylabel("$z_2$")
        for i, (label, places) in enumerate((marks or {}).items()):
            axes[2].plot(*array(places).T, "xo"[i % 2], color="black", markersize=8 - 2 * (i % 2), label=label,
                         markerfacecolor="white", markeredgewidth=1.8)
        if marks:
            axes[2].legend(loc="upper left", frameon=True, fontsize=10, borderpad=0.3, handletextpad=0.2)
        figure.suptitle(title)
    return Picture(figure, alt)

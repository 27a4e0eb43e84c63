"""Pictures of mixtures and of EM: soft colours for responsibilities, outlines for components."""

import matplotlib
import matplotlib.colors
import numpy as np
import torch

from gmvae_lib import em
from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, Picture, array, style, subplots
from gmvae_lib.gaussian import cholesky, log_prob_full


def ellipse(mean, covariance, n_std=2.0, n_points=60):
    """The outline (n_points, 2) of a 2-D Gaussian at `n_std` standard deviations."""
    angle = np.linspace(0, 2 * np.pi, n_points)
    return array(mean) + n_std * np.stack([np.cos(angle), np.sin(angle)], 1) @ np.linalg.cholesky(array(covariance)).T


def full_covariances(covariances, covariance_type, n_components, dim):
    """Any family's covariances as (K, D, D) matrices."""
    covariances = array(covariances)
    if covariance_type == "full":
        return covariances
    if covariance_type == "tied":
        return np.repeat(covariances[None], n_components, 0)
    variances = np.broadcast_to(covariances.reshape(n_components, -1), (n_components, dim))
    return variances[:, :, None] * np.eye(dim)


def blend(resp):
    """One colour for each point: the components' colours, mixed by its responsibilities (N, K); (N, 3)."""
    resp = array(resp)
    palette = np.array([matplotlib.colors.to_rgb(COLORS[k % 10]) for k in range(resp.shape[1])])
    return np.clip(resp @ palette, 0, 1)


def draw_soft_points(axis, x, resp):
    """Points coloured by responsibility, with the marker of the likeliest component."""
    colors, likeliest = blend(resp), resp.argmax(1)
    for k in np.unique(likeliest):
        axis.scatter(*x[likeliest == k].T, c=colors[likeliest == k], marker=MARKERS[k % 10], s=20, linewidths=0)


def draw_outlines(axis, means, covariances, n_std=2.0):
    """Each component's outline at `n_std` standard deviations, and its number at its center."""
    for k, (mean, covariance) in enumerate(zip(array(means), array(covariances), strict=True)):
        axis.plot(*ellipse(mean, covariance, n_std).T, color="black", linestyle=LINES[k % 4], linewidth=2)
        axis.text(*mean, str(k + 1), ha="center", va="center", fontsize=12, fontweight="bold", color="white",
                  bbox={"boxstyle": "circle,pad=0.2", "facecolor": COLORS[k % 10], "edgecolor": "black"})


def mixture_panels(x, stages, alt, n_std=2.0, size=None):
    """The same points (N, 2) in panels side by side: `stages` maps a title to (resp (N, K), mixture), or Nones.

    Colours are mixed by responsibility, the marker is the likeliest component's, and a `mixture` (weights, means, full
    covariances) adds outlines and numbered centers.
    """
    x = array(x)
    figure, axes = subplots(1, len(stages), size or (4 * len(stages), 3.9), sharex=True, sharey=True, squeeze=False)
    with style():
        for axis, (title, (resp, mixture)) in zip(axes[0], stages.items(), strict=True):
            if resp is None:
                axis.plot(*x.T, "o", color="#777777", markersize=4, alpha=0.7)
            else:
                draw_soft_points(axis, x, array(resp))
            if mixture is not None:
                draw_outlines(axis, *mixture[1:], n_std=n_std)
            axis.set(title=title, xlabel="$x_1$", aspect="equal")
        axes[0, 0].set_ylabel("$x_2$")
        figure.set_layout_engine("compressed")
    return Picture(figure, alt)


def shares(x, weights, means, covariances):
    """Responsibilities (N, K) of a mixture with full covariances, for a picture's colours."""
    return (weights.log()[:, None] + log_prob_full(x, means, cholesky(covariances))).softmax(0).T


def em_stages(x, means, stages, alt, **settings):
    """EM on x (N, 2) from `means`, equal weights and unit covariances, in panels: `stages` maps titles to a number of
    steps, or to None for the points alone."""
    x = torch.as_tensor(x, dtype=torch.float64)
    means = torch.as_tensor(means, dtype=torch.float64)
    n_components, dim = means.shape
    now = em.Parameters(torch.full((n_components,), 1 / n_components, dtype=torch.float64), means,
                        torch.eye(dim, dtype=torch.float64).repeat(n_components, 1, 1))
    found, wanted = {None: (None, None)}, {step for step in stages.values() if step is not None}
    for step in range(max(wanted, default=-1) + 1):
        if step in wanted:
            found[step] = (shares(x, *now), now)
        now, _ = em.em_step(x, now)
    return mixture_panels(x, {title: found[step] for title, step in stages.items()}, alt, **settings)


def jensen(values, weights, alt):
    """The logarithm, its tangent at the weighted mean of `values`, and the chords below: Jensen's inequality."""
    values, weights = array(values), array(weights)
    u = np.linspace(0.15, 1.15 * values.max(), 200)
    mean, mean_of_logs = values @ weights, np.log(values) @ weights
    figure, axis = subplots(size=(6.4, 4))
    with style():
        axis.plot(u, np.log(u), color=COLORS[0], label="$\\log u$")
        axis.plot(u, np.log(mean) + (u - mean) / mean, color=COLORS[1], linestyle="--",
                  label="tangent at the mean: nowhere below $\\log u$")
        axis.plot(values, np.log(values), color=COLORS[2], linestyle="-.", marker="s", markersize=8,
                  label="the two values and their averages")
        axis.plot([mean, mean], [mean_of_logs, np.log(mean)], color="black", linewidth=3)
        axis.plot(mean, np.log(mean), "o", color=COLORS[0], markersize=11)
        axis.plot(mean, mean_of_logs, "^", color=COLORS[2], markersize=11)
        axis.annotate("log of the average", (mean, np.log(mean)), (-12, 16), textcoords="offset points", ha="right")
        axis.annotate("average of the logs", (mean, mean_of_logs), (14, -16), textcoords="offset points")
        axis.set(title="The average of the logs lies below the log of the average", xlabel="$u$", ylabel="nats",
                 ylim=(np.log(u[0]) - 0.1, np.log(u[-1]) + 0.9))
        axis.legend(loc="lower right")
    return Picture(figure, alt)

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


def mixture_panels(x, stages, alt, n_std=2.0, size=None, columns=None):
    """The same points (N, 2) in panels, `columns` side by side: `stages` maps a title to (resp (N, K), mixture), or
    Nones.

    Colours are mixed by responsibility, the marker is the likeliest component's, and a `mixture` (weights, means, full
    covariances) adds outlines and numbered centers.
    """
    x = array(x)
    columns = columns or len(stages)
    rows = -(-len(stages) // columns)
    figure, axes = subplots(rows, columns, size or (4 * columns, 3.9 * rows), sharex=True, sharey=True, squeeze=False)
    with style():
        for axis, (title, (resp, mixture)) in zip(axes.flat, stages.items(), strict=True):
            if resp is None:
                axis.plot(*x.T, "o", color="#777777", markersize=4, alpha=0.7)
            else:
                draw_soft_points(axis, x, array(resp))
            if mixture is not None:
                draw_outlines(axis, *mixture[1:], n_std=n_std)
            axis.set_title(title, fontsize=15)  # such figures are wide, and shown narrower than they are
            axis.set_aspect("equal")
        for row in axes:
            row[0].set_ylabel("$x_2$")
        for axis in axes[-1]:
            axis.set_xlabel("$x_1$")
        figure.set_layout_engine("compressed")
    return Picture(figure, alt)


def density_panels(x, panels, alt, size=None):
    """The same points (N, 2) side by side, over the density of a mixture: `panels` maps a title to its (weights, means,
    full covariances), or to None for the points alone. Bands are darker where the density is higher."""
    x = array(x)
    figure, axes = subplots(1, len(panels), size or (4 * len(panels), 3.9), sharex=True, sharey=True, squeeze=False)
    low, high = x.min(0) - 1.6, x.max(0) + 1.6
    lines = [np.linspace(a, b, 90) for a, b in zip(low, high, strict=True)]
    grid = torch.from_numpy(np.stack(np.meshgrid(*lines), -1).reshape(-1, 2)).double()
    with style():
        for axis, (title, mixture) in zip(axes[0], panels.items(), strict=True):
            axis.plot(*x.T, "o", color="#555555", markersize=3, alpha=0.6)
            if mixture is not None:
                weights, means, covariances = (torch.as_tensor(array(value)).double() for value in mixture)
                joint = weights.log()[:, None] + log_prob_full(grid, means, cholesky(covariances))
                density = joint.logsumexp(0).exp().reshape(90, 90)
                levels = density.max() * torch.tensor([0.03, 0.1, 0.25, 0.45, 0.65, 0.85, 1.0]).double()
                axis.contourf(*lines, density, levels, cmap="Blues", vmin=-0.15 * levels[-1], zorder=0)
                axis.contour(*lines, density, levels[:-1], colors="#0072B2", linewidths=0.8)
                axis.plot(*array(means).T, "X", color=COLORS[1], markersize=12, markeredgecolor="white")
            axis.set(title=title, xlabel="$x_1$", aspect="equal", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axes[0, 0].set_ylabel("$x_2$")
        figure.set_layout_engine("compressed")
    return Picture(figure, alt)


def cloud_panels(panels, labels, alt, legend, size=None):
    """Points with the same `labels` (N,) in each panel: `panels` maps a title to (points (N, 2), mean, covariance), and
    outlines at 1 and 2 standard deviations are drawn; `legend` names the labels 0, 1, ..."""
    figure, axes = subplots(1, len(panels), size or (4.4 * len(panels), 4.3), squeeze=False)
    labels = array(labels)
    with style():
        for axis, (title, (points, mean, covariance)) in zip(axes[0], panels.items(), strict=True):
            for i, name in enumerate(legend):
                axis.plot(*array(points)[labels == i].T, MARKERS[i], color=COLORS[i], markersize=4.5, alpha=0.7,
                          label=name)
            for n_std, line in ((1, "-"), (2, "--")):
                axis.plot(*ellipse(mean, covariance, n_std).T, color="black", linestyle=line, linewidth=1.8)
            axis.set(title=title, xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(legend),
                      markerscale=1.6)
    return Picture(figure, alt)


def hills(x, y, values, marks, title, xlabel, ylabel, alt, size=(6.6, 5.2)):
    """A function of two parameters, values (len(y), len(x)), as a map with its diagonal and contour lines, denser
    towards the top; `marks` maps a label to a place (x, y)."""
    values = array(values)
    levels = values.max() - np.ptp(values) * np.linspace(1, 0, 19) ** 2
    figure, axis = subplots(size=size)
    with style():
        filled = axis.contourf(array(x), array(y), values, levels, cmap="cividis",
                               norm=matplotlib.colors.BoundaryNorm(levels, 256))
        axis.contour(array(x), array(y), values, levels[:-1], colors="white", linewidths=0.4)
        for i, (label, place) in enumerate(marks.items()):
            axis.plot(*place, MARKERS[i], color=COLORS[1 + i], markersize=12, markeredgecolor="white",
                      markeredgewidth=1.5, linestyle="none", label=label)
        axis.plot([x[0], x[-1]], [x[0], x[-1]], "--", color="white", linewidth=1.5)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")
        axis.grid(False)
        figure.legend(loc="outside lower center", ncols=len(marks))
        figure.colorbar(filled, ax=axis, label="nats per point", ticks=levels[::3],
                        format=lambda value, _: f"{value:.1f}".replace("-", "−"))
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

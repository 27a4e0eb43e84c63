"""Every picture of the course. Each function returns a `Picture`: a matplotlib figure and what it shows, in words.

Colours are Okabe and Ito's, safe for colour-blind readers, and never stand alone: markers or line styles differ too.
"""

import io
from contextlib import contextmanager

import matplotlib
import matplotlib.colors
import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from gmvae_lib import em
from gmvae_lib.gaussian import cholesky, log_prob_full

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D4E8C", "#8C6D1F", "#333333", "#A0A0A0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "lines.linewidth": 2,
    "legend.frameon": False,
    "image.cmap": "gray_r",
}


class Picture:
    """A figure with a text alternative `alt`: shown as an image where images can be shown, and as words elsewhere."""

    def __init__(self, figure, alt):
        self.figure, self.alt = figure, alt

    def png(self, dpi=100):
        """The picture as PNG bytes."""
        buffer = io.BytesIO()
        # The fastest compression: encoding is a third of what a slider's picture costs.
        self.figure.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        width = int(100 * self.figure.get_figwidth())
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=150)
        small = io.BytesIO()
        # 256 colours are enough for a figure, and make the notebooks that keep it three times lighter.
        Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
        return ({"image/png": small.getvalue(), "text/plain": self.alt},
                {"image/png": {"alt": self.alt, "width": width}})


@contextmanager
def style():
    """The course's matplotlib settings; global ones stay as they were."""
    with matplotlib.rc_context(STYLE):
        yield


def subplots(rows=1, columns=1, size=(6, 4), **settings):
    """A new figure outside pyplot (nothing to close, safe in threads) and its axes, an array if there are several."""
    with style():
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **settings)


def array(values):
    """A tensor or array as a NumPy array."""
    return values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)


def curves(x, series, title, xlabel, ylabel, alt, log_x=False, log_y=False, size=(6, 3.6), markers=True,
           ylim=None):
    """Lines over x: `series` maps a label to values, or to (x, values) where the x differ."""
    figure, axes = subplots(size=size)
    with style():
        for i, (label, values) in enumerate(series.items()):
            where, values = values if isinstance(values, tuple) else (x, values)
            axes.plot(array(where), array(values), color=COLORS[i % 10], linestyle=LINES[i % 4],
                      marker=MARKERS[i % 10] if markers else None, label=label)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if ylim:
            axes.set_ylim(*ylim)
        if len(series) > 1:
            axes.legend()
    return Picture(figure, alt)


def images(x, image_shape, title, alt, columns=10, row_labels=None, vmax=None, scale=0.62):
    """A grid of grey images: x (N, D), filled row by row; `row_labels` name the rows."""
    x = array(x).reshape(-1, *image_shape)
    rows = -(-len(x) // columns)
    height, width = image_shape
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for i, image in enumerate(x):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top:top + height, left:left + width] = image
    figure, axes = subplots(size=(max(3.2, scale * columns + (1.6 if row_labels else 0.2)), scale * rows + 0.5))
    with style():
        axes.imshow(canvas, vmin=0, vmax=np.nanmax(canvas) if vmax is None else vmax, interpolation="nearest")
        axes.set_title(title)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([r * (height + 1) + height / 2 - 0.5 for r in range(rows)] if row_labels else [],
                        row_labels or [])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return Picture(figure, alt)


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


def scatter(x, labels, title, alt, mixture=None, xlabel="$x_1$", ylabel="$x_2$", size=(5.2, 4.4), legend=None):
    """Points (N, 2) with a colour and a marker for each label; `mixture` (weights, means, covariances) adds 2-sigma
    outlines; `legend`, a title, lists the labels."""
    figure, axes = subplots(size=size)
    x, labels = array(x), array(labels)
    with style():
        for i, label in enumerate(np.unique(labels)):
            chosen = labels == label
            axes.plot(*x[chosen].T, MARKERS[i % 10], color=COLORS[i % 10], markersize=4, alpha=0.7, label=str(label))
        if mixture is not None:
            for mean, covariance in zip(*map(array, mixture[1:]), strict=True):
                axes.plot(*ellipse(mean, covariance).T, color="black", linewidth=2)
                axes.plot(*mean, "+", color="black", markersize=12, markeredgewidth=2.5)
        if legend is not None:
            axes.legend(title=legend, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.8)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return Picture(figure, alt)


# --- mixtures and EM (chapter 02) ------------------------------------------------------------------------------------


def blend(resp):
    """One colour for each point: the components' colours, mixed by its responsibilities (N, K); (N, 3)."""
    resp = array(resp)
    palette = np.array([matplotlib.colors.to_rgb(COLORS[k % 10]) for k in range(resp.shape[1])])
    return np.clip(resp @ palette, 0, 1)


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


def strip(groups, title, xlabel, alt, size=(7.5, 3)):
    """One row of dots for each group: `groups` maps a label to values, such as a score over seeds."""
    figure, axis = subplots(size=size)
    with style():
        for row, values in enumerate(groups.values()):
            values = np.sort(array(values))
            height = row + 0.28 * np.sin(np.arange(len(values)) * 2.4)  # spread the dots, the same way each time
            axis.plot(values, height, MARKERS[row % 10], color=COLORS[row % 10], markersize=7, alpha=0.75)
        axis.set_yticks(range(len(groups)), groups)
        axis.set(title=title, xlabel=xlabel, ylim=(len(groups) - 0.4, -0.6))
    return Picture(figure, alt)


# Chapter 05: the variational autoencoder


def curve_panels(x, panels, xlabel, ylabel, alt, size=(8.4, 3.4)):
    """Lines over x side by side, each with an axis of its own: `panels` maps a title to values."""
    figure, axes = subplots(1, len(panels), size=size)
    with style():
        for i, (axis, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            axis.plot(array(x), array(values), color=COLORS[i % 10], linestyle=LINES[i % 4])
            axis.set(title=title, xlabel=xlabel, ylabel=ylabel, ylim=(0, None))
    return Picture(figure, alt)


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


# Pictures of mixture priors (chapter 8)


def heatmaps(x, y, panels, title, alt, xlabel="$z_1$", ylabel="$z_2$", size=(8.4, 4.0)):
    """Functions on a grid side by side, on one colour scale: `panels` maps a label to values (len(y), len(x))."""
    figure, axes = subplots(1, len(panels), size=size, sharex=True, sharey=True, squeeze=False)
    x, y, values = array(x), array(y), [array(panel) for panel in panels.values()]
    top = max(panel.max() for panel in values)
    with style():
        for axis, label, panel in zip(axes[0], panels, values, strict=True):
            image = axis.pcolormesh(x, y, panel, vmin=0, vmax=top, cmap="cividis", shading="nearest", rasterized=True)
            axis.set(title=label, xlabel=xlabel, aspect="equal")
            axis.grid(False)
        axes[0, 0].set_ylabel(ylabel)
        figure.colorbar(image, ax=list(axes[0]), label="density", shrink=0.9)
        figure.suptitle(title)
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
    with style():
        for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
            color = COLORS[k % 10]
            left.plot(*points[labels == k].T, MARKERS[k % 10], color=color, markersize=3, alpha=0.45)
            left.plot(*ellipse(mean, covariance, 1.5).T, color=color, linewidth=2)
            left.text(*mean, str(k), ha="center", va="center", fontsize=13, fontweight="bold",
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


def counts(table, title, alt, xlabel, ylabel, columns=None, rows=None, size=(5.6, 5.0)):
    """A table of counts (R, C) as shaded cells with their numbers, such as a confusion matrix."""
    figure, axes = subplots(size=size)
    table = array(table)
    with style():
        axes.imshow(table, cmap="Blues", vmin=0)
        for i, j in np.ndindex(*table.shape):
            if table[i, j]:
                axes.text(j, i, int(table[i, j]), ha="center", va="center", fontsize=11,
                          color="white" if table[i, j] > 0.55 * table.max() else "black")
        axes.set_xticks(range(table.shape[1]), range(table.shape[1]) if columns is None else columns)
        axes.set_yticks(range(table.shape[0]), range(table.shape[0]) if rows is None else rows)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axes.grid(False)
    return Picture(figure, alt)


def table(columns, rows, title, alt, size=None):
    """Text in a table: `rows` maps a row's name to its cells. For numbers that differ a little between machines."""
    figure, axes = subplots(size=size or (2.2 + 1.9 * len(columns), 0.75 + 0.42 * (len(rows) + 1)))
    with style():
        axes.axis("off")
        axes.set_title(title, loc="left")
        drawn = axes.table([list(map(str, cells)) for cells in rows.values()], rowLabels=list(rows), colLabels=columns,
                           loc="center", cellLoc="center", rowLoc="left", edges="horizontal", bbox=(0.3, 0, 0.7, 1))
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(12)
        for (row, column), cell in drawn.get_celld().items():
            cell.set_linewidth(0.6)
            cell.get_text().set_fontweight("bold" if row == 0 or column == -1 else "normal")
    return Picture(figure, alt)


# Chapter 00

PARTS = {
    "Start": ("00 Start here",),
    "Part I\nMixtures and EM": ("01 Gaussian\nmixtures", "02 Expectation–\nmaximization", "03 Choosing K"),
    "Part II\nFrom EM to the VAE": ("04 When the E-step\nis impossible", "05 The variational\nautoencoder",
                                     "06 β and the rate–\ndistortion curve"),
    "Part III\nThe mixture prior": ("07 The prior is\nthe problem", "08 The mixture-\nprior VAE",
                                    "09 Clustering with\nthe GMVAE", "10 The family", "11 Honest\nevaluation"),
    "Part IV\nBeyond": ("12 Scaling up", "13 Find the bug", "Appendix: notation\nand glossary"),
}
READY = ("00", "02", "05", "08")


def course_map(size=(11, 6)):
    """The chapters, part by part, in the order in which they build on each other; finished ones are filled."""
    figure, axes = subplots(size=size)
    with style():
        for column, (part, chapters) in enumerate(PARTS.items()):
            color = COLORS[column]
            axes.text(column, 0.72, part, ha="center", va="center", fontsize=13, fontweight="bold")
            if column:
                axes.annotate("", (column - 0.42, 0.36), (column - 0.58, 0.36),
                              arrowprops={"arrowstyle": "->", "linewidth": 2})
            for row, chapter in enumerate(chapters):
                ready = chapter[:2] in READY
                axes.text(column, -row, chapter, ha="center", va="center", fontsize=12.5,
                          fontweight="bold" if ready else "normal",
                          bbox={"boxstyle": "round,pad=0.45", "facecolor": to_rgba(color, 0.3) if ready else "white",
                                "edgecolor": color, "linestyle": "-" if ready else "--", "linewidth": 2.2})
                if row:
                    axes.annotate("", (column, -row + 0.32), (column, -row + 0.62),
                                  arrowprops={"arrowstyle": "->", "linewidth": 1.5})
        axes.set(xlim=(-0.5, 4.5), ylim=(-4.5, 1.1), title="Filled: ready to read. Dashed: still to come.")
        axes.set_axis_off()
    alt = ("The map of the course: Start here leads to part I, mixtures and EM, chapters 1 to 3; part II, from EM to "
           "the VAE, chapters 4 to 6; part III, the mixture prior, chapters 7 to 11; and part IV, beyond, chapters 12 and "
           "13 and the appendix. Chapters 0, 2, 5 and 8 are ready to read.")
    return Picture(figure, alt)

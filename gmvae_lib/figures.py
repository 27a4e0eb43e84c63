"""Every picture of the course. Each function returns a `Picture`: a matplotlib figure and what it shows, in words.

Colours are Okabe and Ito's, safe for colour-blind readers, and never stand alone: markers or line styles differ too.
"""

import io
from contextlib import contextmanager

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

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
        self.figure.savefig(buffer, format="png", dpi=150, pil_kwargs={"compress_level": 9})
        return ({"image/png": buffer.getvalue(), "text/plain": self.alt},
                {"image/png": {"alt": self.alt, "width": width}})


@contextmanager
def style():
    """The course's matplotlib settings; global ones stay as they were."""
    with matplotlib.rc_context(STYLE):
        yield


def subplots(rows=1, columns=1, size=(6, 4), **settings):
    """A new figure outside pyplot (nothing to close, safe in threads) and its axes, as an array if there are several."""
    with style():
        figure = Figure(figsize=size, layout="constrained")
        return figure, figure.subplots(rows, columns, **settings)


def array(values):
    """A tensor or array as a NumPy array."""
    return values.numpy(force=True) if isinstance(values, torch.Tensor) else np.asarray(values)


def curves(x, series, title, xlabel, ylabel, alt, log_x=False, log_y=False, size=(6, 3.6), markers=True):
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


def scatter(x, labels, title, alt, mixture=None, xlabel="$x_1$", ylabel="$x_2$", size=(5.2, 4.4)):
    """Points (N, 2) with a colour and a marker for each label; `mixture` (weights, means, covariances) adds 2-sigma
    outlines."""
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
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return Picture(figure, alt)

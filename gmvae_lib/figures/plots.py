"""Pictures for any chapter: curves, images, points, dots in rows, heat maps and tables."""

import numpy as np

from gmvae_lib.figures.mixtures import ellipse
from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, Picture, array, style, subplots


def curves(x, series, title, xlabel, ylabel, alt, log_x=False, log_y=False, size=(6, 3.6), markers=True,
           ylim=None, errors=None, best=None):
    """Lines over x: `series` maps a label to values, or to (x, values) where the x differ.

    errors: from some of the labels to the half-lengths of error bars; best: "max" or "min" rings each line's best.
    """
    figure, axes = subplots(size=size)
    with style():
        for i, (label, values) in enumerate(series.items()):
            where, values = values if isinstance(values, tuple) else (x, values)
            axes.plot(array(where), array(values), color=COLORS[i % 10], linestyle=LINES[i % 4],
                      marker=MARKERS[i % 10] if markers else None, label=label)
            if errors and label in errors:
                axes.errorbar(array(where), array(values), array(errors[label]), fmt="none", capsize=4 + 2 * i,
                              ecolor=COLORS[i % 10])
            if best:
                top = getattr(array(values), f"arg{best}")()
                axes.plot(array(where)[top], array(values)[top], "o", markersize=15, markerfacecolor="none",
                          markeredgecolor=COLORS[i % 10], markeredgewidth=2.5)
        axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if isinstance(x, range):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        if ylim:
            axes.set_ylim(*ylim)
        if len(series) > 1:
            axes.legend()
    return Picture(figure, alt)


def curve_panels(x, panels, xlabel, ylabel, alt, size=(8.4, 3.4), ylim=(0, None)):
    """Lines over x side by side, each panel with an axis of its own: `panels` maps a title to values, or to several
    lines, {label: values}; `ylabel` is one for all, or a list of one for each."""
    figure, axes = subplots(1, len(panels), size=size)
    ylabels = [ylabel] * len(panels) if isinstance(ylabel, str) else ylabel
    explained = None
    with style():
        for i, (axis, (title, values)) in enumerate(zip(axes, panels.items(), strict=True)):
            several = isinstance(values, dict)
            for j, (label, line) in enumerate(values.items() if several else [(None, values)], 0 if several else i):
                axis.plot(array(x), array(line), color=COLORS[j % 10], linestyle=LINES[j % 4], label=label)
            axis.set(title=title, xlabel=xlabel, ylabel=ylabels[i], ylim=ylim)
            if several and list(values) != explained:  # the same lines need no second legend
                axis.legend()
                explained = list(values)
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


def strip(groups, title, xlabel, alt, size=(7.5, 3)):
    """One row of dots for each group: `groups` maps a label to values, such as a score over seeds."""
    figure, axis = subplots(size=size)
    everything = np.concatenate([array(values).ravel() for values in groups.values()])
    width = np.ptp(everything) * 0.13 / size[0]  # of a dot: there are 72 points to an inch, and a third is margin
    with style():
        for row, values in enumerate(groups.values()):
            values = np.sort(array(values))
            axis.plot(values, row + _spread(values, width), MARKERS[row % 10], color=COLORS[row % 10],
                      markersize=7, markeredgecolor="white", markeredgewidth=0.5, alpha=0.75)
        axis.set_yticks(range(len(groups)), groups)
        axis.set(title=title, xlabel=xlabel, ylim=(len(groups) - 0.4, -0.6))
        axis.xaxis.get_major_locator().set_params(integer=bool((everything == everything.round()).all()))
    return Picture(figure, alt)


def _spread(values, width):
    """Heights for sorted values, such that dots of this width touch as little as can be, the same each time."""
    levels = 0.1 * np.array([0, 1, -1, 2, -2, 3, -3, 4, -4])
    last, heights = np.full(len(levels), -np.inf), np.zeros(len(values))
    for i, value in enumerate(values):
        free = np.flatnonzero(value - last >= width)
        chosen = free[0] if len(free) else last.argmin()
        last[chosen], heights[i] = value, levels[chosen]
    return heights


def heatmaps(x, y, panels, title, alt, xlabel="$z_1$", ylabel="$z_2$", unit="density",
             size=(8.4, 4.0)):
    """Functions on a grid side by side, on one colour scale: `panels` maps a label to values (len(y), len(x)) in
    `unit`."""
    figure, axes = subplots(1, len(panels), size=size, sharex=True, sharey=True, squeeze=False)
    x, y, values = array(x), array(y), [array(panel) for panel in panels.values()]
    top = max(panel.max() for panel in values)
    with style():
        for axis, label, panel in zip(axes[0], panels, values, strict=True):
            image = axis.pcolormesh(x, y, panel, vmin=0, vmax=top, cmap="cividis", shading="nearest", rasterized=True)
            axis.set(title=label, xlabel=xlabel, aspect="equal")
            axis.locator_params(nbins=5)
            axis.grid(False)
        axes[0, 0].set_ylabel(ylabel)
        figure.colorbar(image, ax=list(axes[0]), label=unit, shrink=0.9)
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
    size = size or (2.2 + 1.9 * len(columns), 0.75 + 0.42 * (len(rows) + 1))
    figure, axes = subplots(size=size)
    left = min(0.2 + 0.11 * max(map(len, rows)), 0.5 * size[0]) / size[0]  # room for the names
    with style():
        axes.axis("off")
        axes.set_title(title, loc="left", x=0)
        drawn = axes.table([list(map(str, cells)) for cells in rows.values()], rowLabels=list(rows), colLabels=columns,
                           loc="center", cellLoc="center", rowLoc="left", edges="horizontal",
                           bbox=(left, 0, 1 - left, 1))
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(12)
        for (row, column), cell in drawn.get_celld().items():
            cell.set_linewidth(0.6)
            cell.get_text().set_fontweight("bold" if row == 0 or column == -1 else "normal")
    return Picture(figure, alt)

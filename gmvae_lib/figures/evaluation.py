"""Pictures of chapter 11: numbers with their error bars, and a map of scores."""

import numpy as np

from gmvae_lib.figures.picture import COLORS, MARKERS, Picture, array, style, subplots


def intervals(rows, title, xlabel, alt, truth=None, size=(7.6, 3.2)):
    """One row for each number: `rows` maps a label to a value, or to (value, half-length of its error bar).

    truth: (label, value) draws a line.
    """
    figure, axis = subplots(size=size)
    with style():
        for row, value in enumerate(rows.values()):
            value, half = value if isinstance(value, tuple) else (value, 0.0)
            axis.errorbar(float(value), row, xerr=float(half) or None, fmt=MARKERS[row % 10], color=COLORS[row % 10],
                          markersize=9, capsize=5, elinewidth=2)
        if truth is not None:
            axis.axvline(float(truth[1]), color="black", linestyle="--", label=truth[0])
            axis.legend(loc="best", frameon=True)
        axis.set_yticks(range(len(rows)), rows)
        axis.set(title=title, xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    return Picture(figure, alt)


def score_map(scores, rows, columns, title, alt, xlabel, ylabel, marks, digits=1, unit="nats", size=(8.2, 5.0)):
    """Scores (R, C) as shaded cells with their numbers, low ones dark; `marks` maps a label to the (row, column) of the
    cell that it frames."""
    figure, axis = subplots(size=size)
    scores = array(scores)
    low, high = scores.min(), np.quantile(scores, 0.8)
    with style():
        image = axis.imshow(scores, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        for i, j in np.ndindex(*scores.shape):
            axis.text(j, i, f"{scores[i, j]:.{digits}f}", ha="center", va="center", fontsize=10.5,
                      color="white" if scores[i, j] < (low + high) / 2 else "black")
        for number, (label, (i, j)) in enumerate(marks.items()):
            axis.plot(j, i, "sD"[number % 2], markersize=38 - 4 * number, markerfacecolor="none", markeredgewidth=3,
                      markeredgecolor=("#D55E00", "white")[number % 2], label=label, clip_on=False, zorder=5)
        axis.set_xticks(range(len(columns)), columns)
        axis.set_yticks(range(len(rows)), rows)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label=unit, extend="max")
        legend = axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=len(marks), markerscale=0.4,
                             facecolor="#808080", frameon=True)
        for text in legend.get_texts():
            text.set_color("black")
    return Picture(figure, alt)

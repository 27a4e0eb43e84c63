"""Pictures of the plane of rate and distortion."""

import numpy as np

from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, Picture, array, style, subplots


def rate_plane(title, alt, points=None, curves=None, bound=None, names=None, xlim=None, ylim=None, size=(6.8, 4.4),
               small=False):
    """Rate against distortion, in nats: models as points, curves, and the line D + R = `bound`.

    points, curves: from a label to (rates, distortions). names: from words to the (rate, distortion) they stand beside.
    small: draws points as a cloud.
    """
    figure, axes = subplots(size=size)
    with style():
        for i, (label, (rate, distortion)) in enumerate((curves or {}).items()):
            axes.plot(array(rate), array(distortion), color=COLORS[i % 10], linestyle=LINES[i % 4], label=label)
        for i, (label, (rate, distortion)) in enumerate((points or {}).items(), len(curves or {})):
            axes.plot(array(rate), array(distortion), MARKERS[i % 10], color=COLORS[i % 10], label=label,
                      markersize=2.5 if small else 8, alpha=0.5 if small else 0.85, zorder=2.5,
                      markerfacecolor=None if small else "none", markeredgewidth=0 if small else 2)
        xlim, ylim = xlim or axes.get_xlim(), ylim or axes.get_ylim()
        if bound is not None:
            ends = np.array([0, max(xlim[1], bound)])
            axes.plot(ends, bound - ends, color="black", linewidth=1.5, zorder=1, label="$D + R = H$")
            axes.fill_between(ends, bound - ends, min(0, ylim[0]), color="black", alpha=0.08, linewidth=0)
        for words, place in (names or {}).items():
            axes.annotate(words, place, textcoords="offset points", xytext=(9, 7), fontsize=11,
                          bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0})
        axes.set(title=title, xlabel="rate R (nats)", ylabel="distortion D (nats)", xlim=xlim, ylim=ylim)
        axes.legend(markerscale=3 if small else 1, loc="upper right", frameon=small)
    return Picture(figure, alt)

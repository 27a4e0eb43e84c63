"""Pictures of chapter 4: a joint density with its slices, Gaussians and a path between them, and stacked gaps."""

import numpy as np

from gmvae_lib.figures.mixtures import ellipse
from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, Picture, array, style, subplots


def joint_slices(z, x, joint, at, curve, alt, size=(9.6, 4.2)):
    """A joint density (len(x), len(z)) in shades, with the curve x = f(z), and beside it p(z | x) for the x in `at`:
    the joint's rows nearest to them, each divided by its own integral."""
    z, x, joint, curve = map(array, (z, x, joint, curve))
    figure, (plane, slices) = subplots(1, 2, size=size)
    with style():
        plane.pcolormesh(z, x, np.sqrt(joint), cmap="Greys", shading="nearest", rasterized=True, vmin=0,
                         vmax=1.25 * np.sqrt(joint.max()))
        plane.plot(z, curve, color="black", linewidth=1.2)
        for i, value in enumerate(at):
            row = joint[np.abs(x - value).argmin()]
            look = {"color": COLORS[i], "linestyle": LINES[i % 4]}
            plane.axhline(value, **look)
            slices.plot(z, row / np.trapezoid(row, z), label=f"$x = {value}$", **look)
        plane.set(title="The joint density $p(z, x)$", xlabel="$z$, hidden", ylabel="$x$, seen",
                  ylim=(x.min(), x.max()))
        plane.grid(False)
        slices.set(title="What each $x$ says about $z$", xlabel="$z$", ylabel="$p(z|x)$", ylim=(0, None))
        slices.legend()
    return Picture(figure, alt)


def gaussian_outlines(gaussians, title, alt, path=None, xlabel="$z_1$", ylabel="$z_2$", size=(5.4, 4.6)):
    """2-sigma outlines of 2-D Gaussians: `gaussians` maps a label to (mean (2,), covariance (2, 2)); `path` (S, 2) is
    drawn as a line with a dot at each of its points."""
    figure, axis = subplots(size=size)
    with style():
        for i, (label, (mean, covariance)) in enumerate(gaussians.items()):
            axis.plot(*ellipse(array(mean), array(covariance)).T, color=COLORS[i], linestyle=LINES[i % 4], label=label,
                      linewidth=2.5)
            axis.plot(*array(mean), MARKERS[i], color=COLORS[i], markersize=9)
        if path is not None:
            axis.plot(*array(path).T, color="black", linewidth=1.2, marker=".", markersize=8, label="the mean's way")
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")
        axis.legend(loc="upper left", fontsize=11)
        axis.margins(0.08)
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    return Picture(figure, alt)


def stacked_panels(x, panels, xlabel, ylabel, alt, size=(9.6, 4.0)):
    """Quantities over x, stacked as areas, side by side on one scale: `panels` maps a title to {label: values}."""
    figure, axes = subplots(1, len(panels), size=size, squeeze=False, sharey=True)
    x = array(x)
    with style():
        for axis, (title, parts) in zip(axes[0], panels.items(), strict=True):
            bottom = np.zeros(len(x))
            for i, (label, values) in enumerate(parts.items()):
                top = bottom + array(values)
                axis.fill_between(x, bottom, top, facecolor=COLORS[i], alpha=0.55, hatch=("", "//", "..", "xx")[i % 4],
                                  edgecolor=COLORS[i], linewidth=0, label=label)
                axis.plot(x, top, color=COLORS[i], linestyle=LINES[i % 4], linewidth=1.8)
                bottom = top
            axis.set(title=title, xlabel=xlabel, xlim=(x[0], x[-1]))
        axes[0, 0].set_ylim(0, None)
        axes[0, 0].set_ylabel(ylabel)
        axes[0, 0].legend()
    return Picture(figure, alt)

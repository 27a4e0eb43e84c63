"""Chapter 9's picture: how likely EM's results are, against how well they agree with the classes."""

import numpy as np

from gmvae_lib.figures.picture import COLORS, MARKERS, Picture, array, style, subplots


def start_panels(panels, title, alt, xlabel="log-likelihood, below the best (nats)", ylabel="held-out accuracy",
                 size=None):
    """Dots side by side on one vertical axis: `panels` maps a title to (scores (S,), accuracies (S,)) of S runs, of
    which the one with the highest score is ringed, and a line at its height drawn."""
    figure, axes = subplots(1, len(panels), size or (4.6 * len(panels), 3.9), squeeze=False, sharey=True)
    with style():
        for i, (axis, (label, (scores, accuracies))) in enumerate(zip(axes[0], panels.items(), strict=True)):
            scores, accuracies = array(scores), array(accuracies)
            best = scores.argmax()
            axis.plot(scores - scores[best], accuracies, MARKERS[i], color=COLORS[i], markersize=7, alpha=0.75)
            axis.axhline(accuracies[best], color="black", linewidth=1, linestyle=":")
            axis.plot(0, accuracies[best], "o", markersize=17, markerfacecolor="none", markeredgecolor="black",
                      markeredgewidth=2)
            axis.set(title=label, xlabel=xlabel)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes[0, 0].set_ylabel(ylabel)
        figure.suptitle(title)
    return Picture(figure, alt)


def walk_panels(positions, curves, images, image_shape, title, alt, size=(9.6, 4.4)):
    """Walks in the latent space: above, one line over `positions` (T,) for each of `curves`, {label: values (T,)};
    below, for each a row of images (T', D)."""
    figure, (above, below) = subplots(2, 1, size=size, height_ratios=(1.15, 1))
    height, width = image_shape
    with style():
        for i, (label, values) in enumerate(curves.items()):
            above.plot(array(positions), array(values), color=COLORS[i], marker=MARKERS[i], markevery=4, label=label)
        above.set(title=title, xlabel="from one mean (0) to the other (1)", ylabel="log p(z) (nats)")
        above.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        rows = []
        for row in images:
            tiles = array(row).reshape(-1, height, width)
            rows.append(np.pad(tiles, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan).transpose(1, 0, 2)
                        .reshape(height + 1, -1))
        below.imshow(np.concatenate(rows)[:-1, :-1], vmin=0, interpolation="nearest")
        below.set_xticks([])
        below.set_yticks([r * (height + 1) + height / 2 - 0.5 for r in range(len(rows))], list(curves))
        below.grid(False)
        below.tick_params(length=0)
        for spine in below.spines.values():
            spine.set_visible(False)
    return Picture(figure, alt)

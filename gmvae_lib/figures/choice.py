"""Pictures of chapter 3: fits side by side, and which K was chosen how often."""

import numpy as np
import torch

from gmvae_lib.figures.mixtures import draw_outlines, draw_soft_points, full_covariances
from gmvae_lib.figures.picture import Picture, array, style, subplots


def fit_panels(panels, alt, share=True, size=None):
    """Points in panels side by side: `panels` maps a title to (x (N, 2), a fitted `GaussianMixture`), whose
    responsibilities colour the points and whose components are outlined, or to (x, labels (N,)).

    share: whether all panels have the same axes.
    """
    figure, axes = subplots(1, len(panels), size or (4 * len(panels), 3.9), squeeze=False, sharex=share, sharey=share)
    with style():
        for axis, (title, (x, model)) in zip(axes[0], panels.items(), strict=True):
            if isinstance(model, torch.Tensor):
                draw_soft_points(axis, array(x), np.eye(int(model.max()) + 1)[array(model)])
            else:
                draw_soft_points(axis, array(x), array(model.predict_proba(x)))
                spread = full_covariances(model.covariances_, model.covariance_type, *model.means_.shape)
                draw_outlines(axis, model.means_, spread)
            axis.set(title=title.replace("-", "−"), xlabel="$x_1$", aspect="equal")
        axes[0, 0].set_ylabel("$x_2$")
        figure.set_layout_engine("compressed")
    return Picture(figure, alt)


def count_panels(panels, xlabel, rows, columns, alt, size=None):
    """Tables of counts (R, C) side by side, as shaded cells: `panels` maps a title to a table."""
    figure, axes = subplots(1, len(panels), size or (4 * len(panels), 0.5 * len(rows) + 1.2), squeeze=False,
                            sharey=True)
    top = max(array(table).max() for table in panels.values())
    with style():
        for axis, (title, table) in zip(axes[0], panels.items(), strict=True):
            table = array(table)
            axis.imshow(table, cmap="Blues", vmin=0, vmax=top, aspect="auto")
            for i, j in zip(*np.nonzero(table), strict=True):
                axis.text(j, i, int(table[i, j]), ha="center", va="center",
                          color="white" if table[i, j] > 0.7 * top else "black")
            axis.set_xticks(range(table.shape[1]), columns)
            axis.set_yticks(range(table.shape[0]), rows)
            axis.set(title=title, xlabel=xlabel)
            axis.grid(False)
    return Picture(figure, alt)

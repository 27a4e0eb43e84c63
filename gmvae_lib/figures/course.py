"""The map of the course."""

from matplotlib.colors import to_rgba

from gmvae_lib.figures.picture import COLORS, Picture, style, subplots

PARTS = {
    "Start": ("00 Start here",),
    "Part I\nMixtures and EM": ("01 Gaussian\nmixtures", "02 Expectation–\nmaximization", "03 Choosing K"),
    "Part II\nFrom EM to the VAE": ("04 When the E-step\nis impossible", "05 The variational\nautoencoder",
                                     "06 β and the rate–\ndistortion curve"),
    "Part III\nThe mixture prior": ("07 The prior is\nthe problem", "08 The mixture-\nprior VAE",
                                    "09 Clustering with\nthe GMVAE", "10 The family", "11 Honest\nevaluation"),
    "Part IV\nBeyond": ("12 Scaling up", "13 Find the bug", "Appendix: notation\nand glossary"),
}


def course_map(size=(11, 6)):
    """The chapters, part by part, in the order in which they build on each other."""
    figure, axes = subplots(size=size)
    with style():
        for column, (part, chapters) in enumerate(PARTS.items()):
            color = COLORS[column]
            axes.text(column, 0.72, part, ha="center", va="center", fontsize=13, fontweight="bold")
            for row, chapter in enumerate(chapters):
                axes.text(column, -row, chapter, ha="center", va="center", fontsize=12.5, fontweight="bold",
                          bbox={"boxstyle": "round,pad=0.45", "facecolor": to_rgba(color, 0.3), "edgecolor": color,
                                "linewidth": 2.2})
                if row:
                    axes.annotate("", (column, -row + 0.32), (column, -row + 0.62),
                                  arrowprops={"arrowstyle": "->", "linewidth": 1.5})
        axes.set(xlim=(-0.5, 4.5), ylim=(-4.5, 1.1),
                 title="Read the parts from left to right, each from top to bottom.")
        axes.set_axis_off()
    alt = ("The map of the course: Start here leads to part I, mixtures and EM, chapters 1 to 3; part II, from EM to "
           "the VAE, chapters 4 to 6; part III, the mixture prior, chapters 7 to 11; and part IV, beyond, chapters 12 "
           "and 13 and the appendix.")
    return Picture(figure, alt)

"""Pictures of chapter 10: six graphical models, the simplex of a relaxed choice, and what estimators cost."""

import numpy as np

from gmvae_lib.figures.picture import COLORS, LINES, MARKERS, Picture, array, style, subplots

# Where each variable stands; what generates what; what is inferred from what by a network; and by Bayes' rule.
TOP, MIDDLE, BOTTOM = 0.86, 0.5, 0.14
CHAIN = {"c": (0.5, TOP), "z": (0.5, MIDDLE), "x": (0.5, BOTTOM)}
FORK = {"c": (0.24, TOP), "z": (0.76, TOP), "x": (0.5, BOTTOM)}
SIX = {
    "Mixture prior": (CHAIN, ["cz", "zx"], ["xz"], ["zc"], r"q(z\mid x)\,p(c\mid z)"),
    "VaDE": (CHAIN, ["cz", "zx"], ["xz", "xc"], [], r"q(z\mid x)\,q(c\mid x)"),
    "VampPrior": (CHAIN | {"u": (0.95, TOP)}, ["cz", "zx", "uz"], ["xz"], ["zc"], r"q(z\mid x)\,p(c\mid z)"),
    "M2": (FORK, ["cx", "zx"], ["xc", "xz", "cz"], [], r"q(c\mid x)\,q(z\mid x,c)"),
    "Shu's": (CHAIN, ["cz", "zx"], ["xc", "xz", "cz~"], [], r"q(c\mid x)\,q(z\mid x,c)"),
    "Dilokthanakul's": ({"c": (0.24, TOP), "w": (0.76, TOP), "z": (0.5, MIDDLE), "x": (0.5, BOTTOM)},
                        ["cz", "wz", "zx"], ["xz", "xw"], ["zc", "wc"], r"q(w\mid x)\,q(z\mid x)\,p(c\mid z,w)"),
}
BENDS = {"xz": 0.5, "xc": -0.4, "zc": 0.5, "cz~": -0.5, "xw": 0.4, "wc": 0.35}


def six_models(size=(10.6, 7.6)):
    """The graphical models of M2, VaDE, Dilokthanakul's and Shu's GMVAE, the mixture prior and the VampPrior."""
    figure, axes = subplots(2, 3, size=size)
    with style():
        for axis, (name, (places, generate, infer, bayes, factors)) in zip(axes.flat, SIX.items(), strict=True):
            fork = places is FORK
            for edges, look in ((generate, {"color": "black", "linewidth": 2.2}),
                                (infer, {"color": COLORS[1], "linewidth": 2, "linestyle": "--"}),
                                (bayes, {"color": COLORS[0], "linewidth": 2, "linestyle": ":"})):
                for edge in edges:
                    bend = 0.0 if edges is generate else (-0.35 if edge == "xc" else 0.35) if fork else BENDS[edge]
                    axis.annotate("", places[edge[1]], places[edge[0]], arrowprops={
                        "arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 19, "shrinkB": 19,
                        "mutation_scale": 18, **look})
            for letter, place in places.items():
                shape = "s" if letter == "u" else "o"
                axis.plot(*place, shape, markersize=36, markeredgecolor="black", markeredgewidth=2,
                          markerfacecolor="#D0D0D0" if letter == "x" else "white")
                axis.text(*place, f"${letter}$" if letter != "u" else "$u_c$", ha="center", va="center", fontsize=17)
            axis.set(xlim=(-0.15, 1.15), ylim=(-0.03, 1.0))
            axis.set_title(name, fontweight="bold")
            axis.text(0.5, -0.02, f"$q:\\ {factors}$", ha="center", va="top", fontsize=13.5, transform=axis.transAxes)
            axis.set_axis_off()
        figure.get_layout_engine().set(hspace=0.1)
        marks = [axes[0, 0].plot([], [], line, color=color, linewidth=2.2, label=label)[0] for line, color, label in (
            ("-", "black", "generates"), ("--", COLORS[1], "inferred by a network"),
            (":", COLORS[0], "inferred by Bayes' rule"))]
        figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=13)
    return Picture(figure, (
        "Six graphical models. Mixture prior: c generates z, z generates x; z is inferred from x, c from z by Bayes' "
        "rule. VaDE: the same, but c is inferred from x. VampPrior: as the mixture prior, with a learnt input u of "
        "component c beside it. M2: c and z, side by side, generate x; c is inferred from x, z from x and c. Shu's: c "
        "generates z, z generates x; c is inferred from x, z from x and c. Dilokthanakul's: c and w generate z, z "
        "generates x; z and w are inferred from x, and c from z and w by Bayes' rule."))


def triangle(points):
    """Points of the simplex (N, 3) in the plane, (N, 2): the corners are those of an equilateral triangle."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    return array(points) @ corners


def draw_triangle(axis, names):
    """An empty simplex with the names of its corners."""
    axis.plot(*triangle(np.eye(3)[[0, 1, 2, 0]]).T, color="black", linewidth=1.5)
    for corner, name, (dx, dy) in zip(triangle(np.eye(3)), names, ((-0.03, -0.09), (0.03, -0.09), (0, 0.05)),
                                      strict=True):
        axis.text(*(corner + (dx, dy)), name, ha="center", fontsize=12)
    axis.set(xlim=(-0.14, 1.14), ylim=(-0.15, 1.0), aspect="equal")
    axis.set_axis_off()


def simplex_panels(panels, names, alt, size=(10.6, 3.9)):
    """Points of the simplex in panels side by side: `panels` maps a title to points (N, 3); `names` of the corners."""
    figure, axes = subplots(1, len(panels), size=size)
    with style():
        for i, (axis, (title, points)) in enumerate(zip(axes, panels.items(), strict=True)):
            draw_triangle(axis, names)
            axis.plot(*triangle(points).T, MARKERS[0], color=COLORS[i], markersize=4, alpha=0.35, markeredgewidth=0)
            axis.set_title(title)
    return Picture(figure, alt)


def log_panels(panels, alt, size=(10.6, 4.2)):
    """Lines on logarithmic axes, side by side: `panels` maps a title to (xlabel, ylabel, {label: (x, y)}).

    A line's look goes with its label, the same in every panel.
    """
    figure, axes = subplots(1, len(panels), size=size)
    labels = list(dict.fromkeys(label for *_, lines in panels.values() for label in lines))
    with style():
        for axis, (title, (xlabel, ylabel, lines)) in zip(axes, panels.items(), strict=True):
            for label, (x, y) in lines.items():
                i = labels.index(label)
                axis.plot(array(x), array(y), color=COLORS[i], linestyle=LINES[i % 4],
                          marker=MARKERS[i] if len(array(x)) > 2 else None, label=label)
            axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
            axis.legend(fontsize=10.5)
    return Picture(figure, alt)

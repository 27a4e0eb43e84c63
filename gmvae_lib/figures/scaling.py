"""Pictures of chapter 12: times as bars, and a processor and a GPU at work, side by side in time."""

from gmvae_lib.figures.picture import COLORS, Picture, array, style, subplots

HATCHES = ("", "//", "..", "xx", "\\\\", "oo")


def bars(values, title, xlabel, alt, digits=2, unit="s", groups=None, size=None):
    """Horizontal bars with their numbers: `values` maps a label to a number.

    groups: maps a label to the name of its group; each group has a colour and a hatching, and a line in the legend.
    """
    figure, axis = subplots(size=size or (8.4, 0.9 + 0.42 * len(values)))
    names = list(dict.fromkeys((groups or {}).values()))
    with style():
        top = max(map(float, values.values()))
        for row, (label, value) in enumerate(values.items()):
            kind = names.index(groups[label]) if groups else 0
            first = groups is not None and groups[label] not in [groups[other] for other in list(values)[:row]]
            axis.barh(row, float(value), 0.66, color=COLORS[kind], hatch=HATCHES[kind % 6], edgecolor="white",
                      label=groups[label] if first else None)
            axis.text(float(value) + 0.01 * top, row, f"{float(value):.{digits}f} {unit}", va="center")
        axis.set_yticks(range(len(values)), values)
        axis.set(title=title, xlabel=xlabel, ylim=(len(values) - 0.4, -0.6), xlim=(0, 1.17 * top))
        axis.grid(False, axis="y")
        if groups:
            axis.legend(loc="lower right")
    return Picture(figure, alt)


def lanes(rows, title, alt, unit="µs", scale=1e6, size=(9.6, 2.6)):
    """Work in time: `rows` maps a lane's name to operations, triples (start, seconds, kind); each kind has a colour and
    a hatching."""
    figure, axis = subplots(size=size)
    kinds = list(dict.fromkeys(kind for operations in rows.values() for *_, kind in operations))
    with style():
        for row, operations in enumerate(rows.values()):
            for i, kind in enumerate(kinds):
                spans = [(scale * start, scale * seconds) for start, seconds, k in operations if k == kind]
                axis.broken_barh(spans, (row - 0.35, 0.7), facecolors=COLORS[i % 10], hatch=HATCHES[i % 6],
                                 edgecolors="white", linewidth=0.5, label=kind if spans else None)
        handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # a kind in two lanes, once
        axis.set_yticks(range(len(rows)), rows)
        axis.set(title=title, xlabel=f"time ({unit})", ylim=(len(rows) - 0.5, -0.5))
        axis.set_xlim(left=0)
        axis.grid(False, axis="y")
        axis.legend(handles.values(), handles, loc="center left", bbox_to_anchor=(1, 0.5))
    return Picture(figure, alt)


def choices(panels, y, names, title, ylabel, alt, size=(11, 3.8)):
    """What several numbers would choose: `panels` maps each number's label to its values (N,) and to the index of the
    one that it chooses. A panel shows the dots (value, y), with their names, and a ring around that one."""
    figure, axes = subplots(1, len(panels), size, sharey=True, squeeze=False)
    y = array(y)
    with style():
        for axis, (label, (values, best)) in zip(axes[0], panels.items(), strict=True):
            values = array(values)
            axis.plot(values, y, "o", color=COLORS[0], markersize=7)
            axis.plot(values[best], y[best], "o", markersize=17, markerfacecolor="none", markeredgewidth=2.2,
                      markeredgecolor=COLORS[1])
            for place, k in enumerate(values.argsort()):  # neighbours have their names on different sides
                axis.annotate(str(names[k]), (values[k], y[k]), textcoords="offset points", fontsize=10.5,
                              xytext=((-13, 8), (9, -14))[place % 2])
            axis.margins(0.15)
            axis.set(xlabel=label)
            axis.set_title(f"chooses {names[best]}", fontsize=10.5)
            axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
            axis.xaxis.get_major_locator().set_params(nbins=4)
        axes[0, 0].set_ylabel(ylabel)
        figure.suptitle(title)
    return Picture(figure, alt)

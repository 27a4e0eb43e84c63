"""The widget of chapter 12: a processor that asks, and a GPU that computes or waits."""

import math

import ipywidgets as widgets
import numpy as np
from matplotlib.collections import PolyCollection

from gmvae_lib.explorers.panel import Panel
from gmvae_lib.figures import COLORS, MARKERS, Blitted, style, subplots
from gmvae_lib.pretrained.speed import BATCH, IMAGES, LOOPS, STEPS
from gmvae_lib.profiling import finish_times

SIZES = ((784, 500, 500, 20), (10, 500, 500, 784))  # encoder and decoder
KINDS = {"images": 0, "forward": 1, "loss": 2, "backward": 3, "Adam": 4}


def step_operations(batch):
    """One step of the chapter's VAE on a GPU, operation by operation: kinds, and floating-point operations, (n,) each.

    Counted for the library's loop: of a layer the product and what surrounds it, forward and backward; of the losses
    and of their gradients some twenty small ones; the fused optimizer's one.
    """
    found = [("images", 0.0)] * 2
    products = [2.0 * batch * a * b for sizes in SIZES for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    for work in products:
        found += [("forward", work), ("forward", 0.0)]
    found += [("loss", 0.0)] * 20 + [("backward", 0.0)] * 20
    for layer, work in reversed(list(enumerate(products))):
        found += [("backward", work)] * (2 if layer else 1) + [("backward", 0.0)] * 2  # no gradient of the images
    found += [("Adam", 0.0)]
    kinds, work = zip(*found, strict=True)
    return np.array(kinds), np.array(work)


class TimelineExplorer(Panel):
    """Two steps of a training in time: what the processor asks for, above, and what the GPU computes, below.

    A model with four constants, which are taken from measured rows (`pretrained.speed`): how long the processor needs
    to ask for an operation, how long a DataLoader needs for an image, what the least operation costs a GPU (2 µs), and
    how many floating-point operations a second it does in larger ones.

    Arguments:
        rows: the rows of one machine with a GPU, measured at a batch of 256.
        batch, asked, source, look: where the controls start.
    """

    BATCHES = tuple(2**i for i in range(5, 15))
    LEAST = 2e-6  # seconds
    ASKED = ("each operation", "one recording")
    SOURCES = ("on the GPU", "through a DataLoader")
    STEPS_SHOWN = 2
    HATCHED = 0.01  # of the time shown: what a bar must last

    def __init__(self, rows, batch=256, asked="each operation", source="on the GPU", look=False):
        seconds = {row["loop"]: row["seconds"] / STEPS for row in rows if "seconds" in row}
        missing = [name for name in (LOOPS[0], LOOPS[2], LOOPS[5]) if name not in seconds]
        if missing:
            raise ValueError(f"rows lack the times of {', '.join(map(repr, missing))}: take one machine's rows from "
                             "load_speed().")
        self.measured = seconds
        kinds, work = step_operations(BATCH)
        self.ask = seconds[LOOPS[2]] / len(kinds)
        self.load = max(0.0, seconds[LOOPS[0]] - seconds[LOOPS[2]]) / BATCH
        self.rate = work.sum() / max(1e-6, seconds[LOOPS[5]] - len(kinds) * self.LEAST)
        self.batch = widgets.SelectionSlider(options=self.BATCHES, value=batch, description="batch",
                                             layout={"width": "22em"})
        self.asked = widgets.Dropdown(options=self.ASKED, value=asked, description="asks for",
                                      layout={"width": "18em"})
        self.source = widgets.Dropdown(options=self.SOURCES, value=source, description="images",
                                       layout={"width": "20em"})
        self.look = widgets.Checkbox(value=look, description="read the loss in every step", indent=False,
                                     layout={"width": "18em"})
        self._before, self._epochs = None, {}
        self._prepare_figure()
        super().__init__([[self.batch, self.asked], [self.source, self.look]],
                         "A widget: two lanes in time, operations that a processor asks for and operations that a GPU "
                         "computes, for two steps of training; beside it seconds for an epoch over batch sizes. "
                         "Controls set the batch size, whether operations are asked for one by one or as one "
                         "recording, where the images come from, and whether the loss is read in every step, when the "
                         "notebook runs.")

    def timeline(self, batch, asked, source, look, steps=6):
        """(kinds (n,), and when the processor begins to ask, has asked, when the GPU begins and is done: (steps, n)
        each, in seconds). The processor is at most one step ahead."""
        kinds, flops = step_operations(batch)
        work = self.LEAST + flops / self.rate
        cost = np.full(len(kinds), self.ask)
        if asked == self.ASKED[1]:
            cost[:] = 0.0
            cost[0] = 2 * self.ask  # where the new images are, and one request for all the rest
        if source == self.SOURCES[1]:
            cost[0] += batch * self.load
        clock, free, asking, begun, done = 0.0, [0.0, 0.0], [], [], []
        for _ in range(steps):
            clock = max(clock, free[-1 if look else -2])
            times = clock + np.cumsum(cost)
            ends = finish_times(np.maximum(times, free[-1]), work)
            asking.append(times)
            begun.append(ends - work)
            done.append(ends)
            clock, free = times[-1], [free[-1], ends[-1]]
        asking = np.stack(asking)
        return kinds, asking - cost, asking, np.stack(begun), np.stack(done)

    def speed(self, *settings):
        """(seconds a step, share of it that the GPU computes) once the first steps are over."""
        *_, begun, done = self.timeline(*settings)
        step = (done[-1, -1] - done[1, -1]) / (len(done) - 2)
        return step, float((done - begun)[-1].sum() / step)

    def _prepare_figure(self):
        figure, (lanes, axis) = subplots(1, 2, size=(11.2, 3.9), width_ratios=(1.75, 1))
        with style():
            self._bars = {}
            for kind, i in KINDS.items():  # thin bars have no room for hatching, which takes long to draw
                wide, thin = (PolyCollection([], facecolors=COLORS[i], edgecolors="white", linewidth=0, label=label)
                              for label in (kind, None))
                wide.set_hatch(("", "//", "..", "xx", "\\\\")[i])
                thin.set_snap(False)  # snapped to whole pixels they would vanish
                self._bars[kind] = lanes.add_collection(wide), lanes.add_collection(thin)
            self._end = lanes.text(1, 1.62, "", ha="right", va="center")
            lanes.set(xlim=(0, 1), ylim=(1.5, -0.5), xticks=[], xlabel="time",
                      title="Two steps: what is asked for, what is computed")
            lanes.set_yticks([0, 1], ["processor\nasks", "GPU\ncomputes"])
            lanes.grid(False)
            lanes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5)
            self._curve, = axis.plot([], [], color=COLORS[0], label="this setting")
            self._here, = axis.plot([], [], MARKERS[1], color=COLORS[1], markersize=11)
            known = [self.measured[name] * STEPS for name in (LOOPS[0], LOOPS[2], LOOPS[5])]
            axis.plot([BATCH] * 3, known, "x", color="black", markersize=9, markeredgewidth=2.5, label="measured")
            axis.set(xscale="log", yscale="log", xlim=(25, 21_000), ylim=(0.01, 20), xlabel="batch size",
                     ylabel="seconds an epoch", title="An epoch of 60,000 images")
            axis.legend(loc="upper right")
        changing = [bars for both in self._bars.values() for bars in both]
        self._picture = Blitted(figure, [*changing, self._end, self._curve, self._here])

    def draw(self):
        """The two lanes and the epoch for these settings, and what they mean in words."""
        rest = self.asked.value, self.source.value, self.look.value
        kinds, *times = self.timeline(self.batch.value, *rest)
        start, end = (times[3][step, -1] for step in (1, 1 + self.STEPS_SHOWN))  # the first two steps feel the start
        places = [np.clip((values.ravel() - start) / (end - start), 0, 1) for values in times]
        names = np.tile(kinds, len(times[0]))
        for kind, bars in self._bars.items():
            boxes = [_boxes(row, *(side[names == kind] for side in sides))
                     for row, sides in enumerate((places[:2], places[2:]))]
            boxes = np.concatenate(boxes)
            wide = boxes[:, 2, 0] - boxes[:, 0, 0] > self.HATCHED
            for collection, chosen in zip(bars, (wide, ~wide), strict=True):
                collection.set_verts(boxes[chosen])
        self._end.set_text(f"{1e3 * (end - start):.2g} ms")
        if rest not in self._epochs:
            self._epochs[rest] = [self.speed(batch, *rest)[0] * math.ceil(IMAGES / batch) for batch in self.BATCHES]
        epochs = self._epochs[rest]
        here = self.BATCHES.index(self.batch.value)
        self._curve.set_data(self.BATCHES, epochs)
        self._here.set_data([self.batch.value], [epochs[here]])
        return self._picture, self._caption(epochs[here], *self.speed(self.batch.value, *rest))

    def _caption(self, epoch, step, share):
        words = (f"{self.batch.value} images a step: {1e3 * step:.2g} ms, of which the GPU computes {share:.0%}; "
                 f"{math.ceil(IMAGES / self.batch.value)} steps, so an epoch takes {epoch:.2g} s.")
        if self._before is not None and self._before != epoch:
            factor = self._before / epoch
            words += (" That is about as fast as before." if 0.95 < factor < 1.05 else
                      f" That is {factor:.1f} times as fast as before." if factor > 1 else
                      f" Before, it was {1 / factor:.1f} times as fast.")
        self._before = epoch
        return words


def _boxes(row, left, right):
    """The corners (M, 4, 2) of bars from left to right in a lane; bars that touch are one, which is drawn faster."""
    left, right = left[right > left], right[right > left]
    apart = left[1:] > right[:-1] + 1e-9
    if len(left):
        left, right = left[np.append(True, apart)], right[np.append(apart, True)]
    across = np.stack([left, left, right, right], 1)
    return np.stack([across, np.broadcast_to(row + np.array([-0.36, 0.36, 0.36, -0.36]), across.shape)], 2)

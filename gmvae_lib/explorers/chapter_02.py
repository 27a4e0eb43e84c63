"""The widget of chapter 2: EM step by step."""

import warnings

import ipywidgets as widgets
import torch
from matplotlib.ticker import MaxNLocator

from gmvae_lib import em
from gmvae_lib.data import load
from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import (
    COLORS,
    LINES,
    MARKERS,
    Blitted,
    blend,
    ellipse,
    full_covariances,
    shares,
    style,
    subplots,
)


class EMExplorer(Panel):
    """EM for a Gaussian mixture on 2-D toys, forward and backward, from a start that the reader chooses or moves.

    A run is computed once, when its start changes, so that stepping through it only draws.
    Arguments:
        data: the toy to begin with, a name that `load` knows.
        n_components, covariance_type, seed: of the first start, random data points with equal weights.
        means: (K, 2), in place of the first start's random points.
        step: the step of the run to show first.
    """

    TOYS = ("cigars", "blobs", "unequal", "rings", "moons")
    FAMILIES = ("full", "diag", "spherical", "tied")
    MOST = 8  # components
    GRID = 0.25  # of the start's sliders: exact in binary, or the browser would round what it is shown and send it back
    POINTS, STEPS, TOL = 300, 50, 1e-4  # points, steps at most, and the rise (nats per point) that ends a run

    def __init__(self, data="cigars", n_components=3, covariance_type="full", seed=0, means=None, step=0):
        wide, narrow = {"width": "20em"}, {"width": "14em"}
        self.back, self.on, self.reset, self.another = (
            widgets.Button(description=text, layout={"width": "9em"})
            for text in ("◀ Back", "Step ▶", "Reset", "Another start"))
        self.iteration = widgets.IntSlider(0, 0, self.STEPS, description="step", readout=False, layout=wide)
        self.data = widgets.Dropdown(options=self.TOYS, value=data, description="data", layout=narrow)
        self.k = widgets.IntSlider(n_components, 1, self.MOST, description="K", readout=False, layout=wide)
        self.family = widgets.Dropdown(options=self.FAMILIES, value=covariance_type, description="covariance",
                                       layout=narrow)
        self.component = widgets.IntSlider(1, 1, self.MOST, description="mean no.", readout=False, layout=wide)
        self.x1, self.x2 = (widgets.FloatSlider(0, min=-8, max=8, step=self.GRID, description=f"start x{i}",
                                                readout=False, layout={"width": "17em"}) for i in (1, 2))
        self.seed, self._given, self._runs, self._last = seed, means, {}, {}
        self.back.on_click(lambda _: self._go(self.iteration.value - 1))
        self.on.on_click(lambda _: self._go(self.iteration.value + 1))
        self.reset.on_click(lambda _: self._restart(self.seed))
        self.another.on_click(lambda _: self._restart(self.seed + 1))
        self._prepare_figure()
        super().__init__([[with_box(self.iteration), self.back, self.on], [with_box(self.k), self.data, self.family],
                          [with_box(self.component), with_box(self.x1), with_box(self.x2)],
                          [self.another, self.reset]],
                         "A widget: points coloured by responsibility, the outlines of a Gaussian mixture's components "
                         "and the paths of their means, beside the log-likelihood after each step of EM. When the "
                         "notebook runs, controls step through EM, choose K, family and data, and move the start.")
        for slider in (self.iteration, self.k, self.component, self.x1, self.x2):  # not the boxes: they follow
            slider.observe(self.refresh, "value")
        self._go(step)

    def _go(self, step):
        self.iteration.value = min(max(step, 0), len(self._run[1]) - 1)

    def _restart(self, seed):
        """The start of that number, unmoved."""
        self.seed, self._given = seed, self._given if seed == self.seed else None
        self._last.pop("k")
        self.refresh()

    def _prepare_figure(self):
        figure, (self._plane, self._curve) = subplots(1, 2, size=(10.4, 4.6), width_ratios=(1.35, 1))
        with style():
            plane, curve = self._plane, self._curve
            self._clouds = [plane.scatter([], [], marker=MARKERS[k], s=22, linewidths=0) for k in range(self.MOST)]
            self._outlines = [plane.plot([], [], "k", linestyle=LINES[k % 4])[0] for k in range(self.MOST)]
            self._paths = [plane.plot([], [], color="black", linewidth=1.2, marker="o", markersize=9, markevery=[0],
                                      markerfacecolor="white", markeredgewidth=1.5)[0] for k in range(self.MOST)]
            self._names = [plane.text(0, 0, str(k + 1), ha="center", va="center", fontsize=12, fontweight="bold",
                                      color="white", clip_on=True, bbox={"boxstyle": "circle,pad=0.2",
                                                                         "facecolor": color, "edgecolor": "black"})
                           for k, color in enumerate(COLORS[:self.MOST])]
            self._whole, = curve.plot([], [], ":", color=COLORS[9], label="the whole run")
            self._done, = curve.plot([], [], color=COLORS[0], label="so far")
            self._now, = curve.plot([], [], "o", color=COLORS[1], markersize=12, label="present step")
            plane.set(title="Points, outlines and the means' paths", xlabel="$x_1$", ylabel="$x_2$")
            plane.set_aspect("equal")  # so that spherical components are circles
            curve.set(title="Log-likelihood", xlabel="step", ylabel="nats per point")
            curve.legend(loc="lower right")
            curve.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            curve.yaxis.set_major_formatter("{x:.2f}")
        self._figure = figure

    def draw(self):
        """The picture of the present step, and in words what the last change did."""
        self._quiet = True  # controls that follow others must not draw
        try:
            said = self._follow()
            self.iteration.value = min(self.iteration.value, len(self._run[1]) - 1)
        finally:
            self._quiet = False
        run, t = self._run, self.iteration.value
        self._draw_step(run, t)
        return self._picture, said + self._describe(run, t)

    def _follow(self):
        """Brings start, run and controls in line with what the reader changed; says what that was."""
        names = ("data", "k", "family", "component", "x1", "x2")
        now = {name: getattr(self, name).value for name in names}
        changed = {name for name in names if self._last.get(name) != now[name]}
        said = ""
        if "data" in changed:
            self._x = load(self.data.value, n_samples=self.POINTS).x.double()
            self._set_limits()
        if changed & {"data", "k"}:
            self._start = self._new_start()
            said = f"Start number {self.seed + 1} for K = {self.k.value} on {self.data.value}. "
        elif changed & {"x1", "x2"} and "component" not in changed:
            self._start = self._start.clone()
            mean = self._start[self.component.value - 1]
            for i, name in enumerate(("x1", "x2")):
                if name in changed:
                    mean[i] = now[name]
            place = f"({signed(float(mean[0]), 2)}, {signed(float(mean[1]), 2)})"
            said = f"Component {self.component.value} now starts at {place}. "
        elif "component" in changed:
            said = (f"The sliders now move the start of component {self.component.value}, the one with the "
                    "yellow ring. ")
        if "family" in changed and self._last:
            said += f"The covariances are now {self.family.value}. "
        self.component.value = min(self.component.value, self.k.value)
        mean = self._start[self.component.value - 1]
        self.x1.value, self.x2.value = (min(max(self.GRID * round(v / self.GRID), -8), 8) for v in mean.tolist())
        if changed - {"component"}:
            self._run = self._find_run()
            self.iteration.value = 0
        self._last = {name: getattr(self, name).value for name in names}
        return said

    def _new_start(self):
        if self._given is not None and len(self._given) == self.k.value:
            return torch.as_tensor(self._given, dtype=torch.float64)
        order = torch.randperm(len(self._x), generator=torch.Generator().manual_seed(self.seed))
        return self._x[order[:self.k.value]]

    def _find_run(self):
        """All steps from the present start: ([Parameters], [log-likelihood]), from the cache if they are there."""
        kind, n_components = self.family.value, self.k.value
        key = (self.data.value, kind, tuple(self._start.flatten().tolist()))
        if key not in self._runs:
            if len(self._runs) > 50:
                self._runs.clear()
            eye, var = torch.eye(2, dtype=torch.float64), self._x.var(0).mean() / n_components
            shape = {"full": eye.expand(n_components, 2, 2), "diag": eye.new_ones(n_components, 2),
                     "spherical": eye.new_ones(n_components), "tied": eye}[kind]
            now = em.Parameters(eye.new_full((n_components,), 1 / n_components), self._start, var * shape)
            steps, history = [], []
            with warnings.catch_warnings(action="ignore"):  # a component without data is named in the caption
                while len(steps) <= self.STEPS and (len(history) < 2 or history[-1] - history[-2] >= self.TOL):
                    steps.append(now)
                    now, log_likelihood = em.em_step(self._x, now, kind, 1e-4)
                    history.append(log_likelihood)
            self._runs[key] = steps, history
        return self._runs[key]

    def _set_limits(self):
        """What stays while the reader looks at one data set, so that runs can be compared; drawn once."""
        eye = torch.eye(2, dtype=torch.float64)
        one = em.em_step(self._x, em.Parameters(eye[:1, 0], self._x[:1], eye[None]))[0]
        single = em.em_step(self._x, one)[1]  # one Gaussian's log-likelihood
        self._lowest = single - 1.5
        middle, half = (self._x.amin(0) + self._x.amax(0)) / 2, (self._x.amax(0) - self._x.amin(0)) / 2 + 1
        half = half.maximum(half.flip(0) * torch.tensor([1.1, 0.8]))  # fills the panel, which is wider than high
        limits = torch.stack([middle - half, middle + half], 1).tolist()
        self._plane.set(xlim=limits[0], ylim=limits[1])
        self._curve.set(xlim=(-1, self.STEPS + 1), ylim=(self._lowest - 0.1, single + 1.8))
        self._picture = Blitted(self._figure, [*self._clouds, *self._outlines, *self._paths, *self._names,
                                               self._whole, self._done, self._now])

    def _draw_step(self, run, t):
        steps, history = run
        now, n_components = steps[t], self.k.value
        full = torch.as_tensor(full_covariances(now.covariances, self.family.value, n_components, 2))
        resp = shares(self._x, now.weights, now.means, full).numpy()
        colors, likeliest = blend(resp), resp.argmax(1)
        for k in range(self.MOST):
            for artist in (self._clouds[k], self._outlines[k], self._paths[k], self._names[k]):
                artist.set_visible(k < n_components)
            if k < n_components:
                mine = likeliest == k
                self._clouds[k].set_offsets(self._x.numpy()[mine])
                self._clouds[k].set_facecolors(colors[mine])
                self._outlines[k].set_data(*ellipse(now.means[k], full[k]).T)
                self._paths[k].set_data(*torch.stack([step.means[k] for step in steps[:t + 1]]).T.numpy())
                self._names[k].set_position(now.means[k].tolist())
                chosen = k == self.component.value - 1  # whose start the sliders move
                self._paths[k].set(markersize=12 if chosen else 8, markerfacecolor=COLORS[4] if chosen else "white")
                self._names[k].get_bbox_patch().set(edgecolor=COLORS[4] if chosen else "black",
                                                    linewidth=3.5 if chosen else 1)
        shown = [max(value, self._lowest) for value in history]
        self._whole.set_data(range(len(shown)), shown)
        self._done.set_data(range(t + 1), shown[:t + 1])
        self._now.set_data([t], [shown[t]])

    def _describe(self, run, t):
        steps, history = run
        last = len(history) - 1
        if t == 0:
            words = (f"Step 0 of {last}, the start: the log-likelihood is {signed(history[0], 2)} nats per point.")
        else:
            rise = history[t] - history[t - 1]
            change = steps[t].weights - steps[t - 1].weights
            k = int(change.abs().argmax())
            words = (f"Step {t} of {last}: the log-likelihood rose by {rise:.4f} to {signed(history[t], 2)} nats per "
                     "point. ")
            if change[k].abs() < 0.005:
                words += "No component's share of the points changed by half a percent."
            else:
                words += (f"Component {k + 1} now claims {steps[t].weights[k]:.0%} of the points, "
                          f"{'up' if change[k] > 0 else 'down'} from {steps[t - 1].weights[k]:.0%}.")
        if dead := [k + 1 for k, weight in enumerate(steps[t].weights.tolist()) if weight * len(self._x) < 0.01]:
            words += f" Component {', '.join(map(str, dead))} claims no point at all."
        if t == last:
            words += " EM has converged." if last < self.STEPS else " The run was stopped here."
        return words

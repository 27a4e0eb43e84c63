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
    style,
    subplots,
)
from gmvae_lib.gaussian import cholesky, log_prob_full
from gmvae_lib.points import Points


class EMExplorer(Panel):
    """EM for a Gaussian mixture on 2-D toys, forward and backward, from a start that the reader chooses or moves.

    The control `iteration` counts half steps: 0 is the start with its first E-step; then M-steps, after which the
    outlines have moved, and E-steps, after which the colours have changed, take turns. A run is computed once, when
    its start changes, so that stepping through it only draws.
    Arguments:
        data: the toy to begin with, a name that `load` knows.
        n_components, covariance_type, seed: of the first start, random data points with equal weights.
        means: (K, 2), in place of the first start's random points.
        step: the round of the run (an M-step and an E-step) after which to begin.
    """

    TOYS = ("cigars", "blobs", "unequal", "rings", "moons")
    FAMILIES = ("full", "diag", "spherical", "tied")
    MOST = 8  # components
    GRID = 0.25  # of the start's sliders: exact in binary, or the browser would round what it is shown and send it back
    POINTS, STEPS, TOL = 300, 50, 1e-4  # points, rounds at most, and the rise (nats per point) that ends a run
    FLOOR = 1e-4  # added to the variances

    def __init__(self, data="cigars", n_components=3, covariance_type="full", seed=0, means=None, step=0):
        wide, narrow = {"width": "20em"}, {"width": "14em"}
        self.back, self.on, self.reset, self.another = (
            widgets.Button(description=text, layout={"width": "9em"})
            for text in ("◀ Back", "Step ▶", "Reset", "Another start"))
        moving = {"width": "16em"}
        self.iteration = widgets.IntSlider(0, 0, 2 * self.STEPS, description="half step", readout=False, layout=wide)
        self.data = widgets.Dropdown(options=self.TOYS, value=data, description="data", layout=narrow)
        self.k = widgets.IntSlider(n_components, 1, self.MOST, description="K", readout=False, layout=wide)
        self.family = widgets.Dropdown(options=self.FAMILIES, value=covariance_type, description="covariance",
                                       layout=narrow)
        self.component = widgets.ToggleButtons(options=self._numbered(n_components), style={"button_width": "6em"})
        self.x1, self.x2 = (widgets.FloatSlider(0, min=-8, max=8, step=self.GRID, description=f"start x{i}",
                                                readout=False, layout=moving) for i in (1, 2))
        self.seed, self._given, self._runs, self._toys, self._last = seed, means, {}, {}, {}
        self.back.on_click(lambda _: self._go(self.iteration.value - 1))
        self.on.on_click(lambda _: self._go(self.iteration.value + 1))
        self.reset.on_click(lambda _: self._restart(self.seed))
        self.another.on_click(lambda _: self._restart(self.seed + 1))
        self._prepare_figure()
        super().__init__([[with_box(self.iteration), self.back, self.on], [with_box(self.k), self.data, self.family],
                          [self.component], [with_box(self.x1), with_box(self.x2), self.another, self.reset]],
                         "A widget: points coloured by responsibility, the outlines of a Gaussian mixture's components "
                         "and the paths of their means; beside them the log-likelihood after each step of EM, and, "
                         "enlarged, the bound that touches it after each E-step and falls behind it at each M-step. "
                         "When the notebook runs, controls step through EM, choose K, family and data, and move the "
                         "start.")
        for slider in (self.iteration, self.k, self.x1, self.x2):  # not the boxes: they follow
            slider.observe(self.refresh, "value")
        self._go(2 * step)

    def _go(self, half):
        self.iteration.value = min(max(half, 0), self._run.last)

    def _restart(self, seed):
        """The start of that number, unmoved."""
        self.seed, self._given = seed, self._given if seed == self.seed else None
        self._last.pop("k")
        self.refresh()

    def _prepare_figure(self):
        figure, axes = subplots(2, 2, size=(10.4, 5.2), width_ratios=(1.35, 1))
        with style():
            for axis in axes[:, 0]:
                axis.remove()
            plane, (curve, close) = figure.add_subplot(axes[0, 0].get_gridspec()[:, 0]), axes[:, 1]
            self._clouds = [plane.scatter([], [], marker=MARKERS[k], s=22, linewidths=0) for k in range(self.MOST)]
            self._outlines = [plane.plot([], [], "k", linestyle=LINES[k % 4], linewidth=2)[0]
                              for k in range(self.MOST)]
            self._paths = [plane.plot([], [], color="black", linewidth=1.2, marker="o", markersize=9, markevery=[0],
                                      markerfacecolor="white", markeredgewidth=1.5)[0] for k in range(self.MOST)]
            self._names = [plane.text(0, 0, str(k + 1), ha="center", va="center", fontsize=12, fontweight="bold",
                                      color="white", clip_on=True, bbox={"boxstyle": "circle,pad=0.2",
                                                                         "facecolor": color, "edgecolor": "black"})
                           for k, color in enumerate(COLORS[:self.MOST])]
            self._whole, = curve.plot([], [], ":", color=COLORS[9])
            self._done, = curve.plot([], [], color=COLORS[0])
            self._now, = curve.plot([], [], "o", color=COLORS[0], markersize=10)
            self._ahead, = close.plot([], [], ":", color=COLORS[9])
            self._touched, = close.plot([], [], "--", color=COLORS[0], marker="o", markersize=6,
                                        label="log-likelihood")
            self._bound, = close.plot([], [], color=COLORS[1], label="bound")
            self._here, = close.plot([], [], "s", color=COLORS[1], markersize=10)
            plane.set_title("Points, outlines and the means' paths")
            plane.set(xlabel="$x_1$", ylabel="$x_2$", xlim=(-1.5, 2.5), ylim=(-1.5, 1.5))
            plane.set_aspect("equal")  # so that spherical components are circles
            curve.set(title="Log-likelihood by round (dotted: ahead)", ylabel="nats per point",
                      xlim=(-1, self.STEPS + 1), ylim=(-5.6, -2.4))
            curve.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            curve.yaxis.set_major_locator(MaxNLocator(nbins=5))
            curve.yaxis.set_major_formatter("{x:.1f}")
            close.set(title="Enlarged, with the bound", xlabel="rounds from the present",
                      xlim=(-1.2, 1.2), xticks=(-1, 0, 1), ylim=(-0.9, 0.1))
            close.legend(loc="lower right", fontsize=11)
            close.yaxis.set_major_locator(MaxNLocator(nbins=4))
            close.yaxis.set_major_formatter("{x:g}")
            for axis, left in ((plane, -0.1), (curve, -0.2), (close, -0.2)):
                axis.yaxis.set_label_coords(left, 0.5)
        self._plane, self._curve, self._close = plane, curve, close
        self._picture = Blitted(figure, [
            close.yaxis, *self._clouds, *self._outlines, *self._paths, *self._names, self._whole,
            self._done, self._now, self._ahead, self._touched, self._bound, self._here])
        for name in self.TOYS:  # drawn now, so that none of them is waited for later
            self._toy(name)

    def _toy(self, name):
        """The points; sets what stays while the reader looks at them: limits, lowest level shown, background."""
        if name not in self._toys:
            x = load(name, n_samples=self.POINTS).x.double()
            mean = x.mean(0)
            single = float(log_prob_full(x, mean, cholesky((x - mean).T.cov(correction=0))).mean())  # of one Gaussian
            middle, half = (x.amin(0) + x.amax(0)) / 2, (x.amax(0) - x.amin(0)) / 2
            half = half + 0.25 * half.max()
            half = half.maximum(half.flip(0) * torch.tensor([1.2, 0.75]))  # fills the panel, which is wider than high
            (left, right), (bottom, top) = torch.stack([middle - half, middle + half], 1).tolist()
            frame = (left, right), (bottom, top), (single - 1.6, single + 1.8)
            self._set_frame(*frame)
            self._toys[name] = x, single - 1.5, frame, self._picture.capture()
        x, self._lowest, frame, self._picture.background = self._toys[name]
        self._set_frame(*frame)
        return x

    def _set_frame(self, xlim, ylim, levels):
        self._plane.set(xlim=xlim, ylim=ylim)
        self._plane.apply_aspect()
        self._curve.set(ylim=levels)

    def draw(self):
        """The picture of the present half step, and in words what the last change did."""
        self._quiet = True  # controls that follow others must not draw
        try:
            said = self._follow()
            self.iteration.value = min(self.iteration.value, self._run.last)
        finally:
            self._quiet = False
        self._draw_points(self._run, self.iteration.value)
        self._draw_curves(self._run, self.iteration.value)
        return self._picture, said + self._describe(self._run, self.iteration.value)

    def _follow(self):
        """Brings start, run and controls in line with what the reader changed; says what that was."""
        names = ("data", "k", "family", "component", "x1", "x2")
        now = {name: getattr(self, name).value for name in names}
        changed = {name for name in names if self._last.get(name) != now[name]}
        said = ""
        if "data" in changed:
            self._x = self._toy(self.data.value)
        if changed & {"data", "k"}:
            self._start = self._new_start()
            if len(self.component.options) != self.k.value:
                self.component.options = self._numbered(self.k.value)
                self.component.value = min(now["component"], self.k.value)
            said = f"Start number {self.seed + 1} for K = {self.k.value} on {self.data.value}. "
        elif changed & {"x1", "x2"} and "component" not in changed:
            self._start = self._start.clone()
            mean = self._start[self.component.value - 1]
            for i, name in enumerate(("x1", "x2")):
                if name in changed:
                    mean[i] = now[name]
            place = f"({signed(float(mean[0]), 2)}, {signed(float(mean[1]), 2)})"
            said = f"Mean {self.component.value} now starts at {place}. "
        elif "component" in changed:
            said = (f"The sliders now move the start of mean {self.component.value}, the one with the ochre ring. ")
        if "family" in changed and self._last:
            said += f"The covariances are now {self.family.value}. "
        mean = self._start[self.component.value - 1]
        self.x1.value, self.x2.value = (min(max(self.GRID * round(v / self.GRID), -8), 8) for v in mean.tolist())
        if changed - {"component"}:
            at_the_end = self._last and self.iteration.value == self._run.last
            self._run = self._find_run()
            if changed & {"data", "k"}:
                self.iteration.value = 0
            elif at_the_end:  # whoever looks at where EM ends sees where it ends now
                self.iteration.value = self._run.last
        self._last = {name: getattr(self, name).value for name in names}
        return said

    @staticmethod
    def _numbered(n_components):
        return [(f"mean {k}", k) for k in range(1, n_components + 1)]

    def _new_start(self):
        if self._given is not None and len(self._given) == self.k.value:
            return torch.as_tensor(self._given, dtype=torch.float64)
        order = torch.randperm(len(self._x), generator=torch.Generator().manual_seed(self.seed))
        return self._x[order[:self.k.value]]

    def _find_run(self):
        """The `Run` from the present start: from the cache, if it is there."""
        kind, n_components = self.family.value, self.k.value
        key = (self.data.value, kind, tuple(self._start.flatten().tolist()))
        if key not in self._runs:
            if len(self._runs) > 50:
                self._runs.clear()
            eye, var = torch.eye(2, dtype=torch.float64), self._x.var(0).mean() / n_components
            shape = {"full": eye.expand(n_components, 2, 2), "diag": eye.new_ones(n_components, 2),
                     "spherical": eye.new_ones(n_components), "tied": eye}[kind]
            points, steps, history = Points(self._x, device="cpu"), [], []
            start = em.Parameters(eye.new_full((n_components,), 1 / n_components), self._start, var * shape)
            now, factors = em.to_frame(points, start), None
            # a component without data, of which the library warns, is named in the caption
            with warnings.catch_warnings(action="ignore"), em.suitable_threads(points, n_components, kind):
                while len(steps) <= self.STEPS and (len(history) < 2 or history[-1] - history[-2] >= self.TOL):
                    steps.append(em.from_frame(points, now))
                    now, factors, log_likelihood = em.step(points, now, kind, self.FLOOR / points.scale**2, factors)
                    history.append(log_likelihood)
                self._runs[key] = Run(self._x, steps, kind)
        return self._runs[key]

    def _draw_points(self, run, half):
        """Outlines as the last M-step left them, colours as the last E-step did."""
        t, n_components = (half + 1) // 2, self.k.value
        resp = run.resp[half // 2].numpy()
        colors, likeliest = blend(resp), resp.argmax(1)
        for k in range(self.MOST):
            for artist in (self._clouds[k], self._outlines[k], self._paths[k], self._names[k]):
                artist.set_visible(k < n_components)
            if k < n_components:
                mine = likeliest == k
                self._clouds[k].set_offsets(self._x.numpy()[mine])
                self._clouds[k].set_facecolors(colors[mine])
                self._outlines[k].set_data(*ellipse(run.means[t, k], run.covariances[t, k]).T)
                self._paths[k].set_data(*run.means[:t + 1, k].T.numpy())
                self._names[k].set_position(run.means[t, k].tolist())
                chosen = k == self.component.value - 1  # whose start the sliders move
                self._paths[k].set(markersize=12 if chosen else 8, markerfacecolor=COLORS[4] if chosen else "white")
                self._names[k].get_bbox_patch().set(edgecolor=COLORS[4] if chosen else "black",
                                                    linewidth=3.5 if chosen else 1)

    def _draw_curves(self, run, half):
        t, rounds = (half + 1) // 2, range(len(run.history))
        shown = [max(value, self._lowest) for value in run.history]
        self._whole.set_data(rounds, shown)
        self._done.set_data(rounds[:t + 1], shown[:t + 1])
        self._now.set_data([t], [shown[t]])
        level = [value - run.history[t] for value in run.bound]
        near = level[max(2 * t - 2, 0):2 * t + 3]
        height = max(near) - min(near)
        unit, name = next(((unit, name) for unit, name in ((1, "nats"), (1e-3, "10⁻³ nats"), (1e-6, "10⁻⁶ nats"))
                           if height > 0.5 * unit), (1e-9, "10⁻⁹ nats"))
        level = [value / unit for value in level]
        when = [(i + 1) // 2 - t for i in range(run.last + 1)]
        self._ahead.set_data(when, level)
        self._bound.set_data(when[:half + 1], level[:half + 1])
        self._touched.set_data(when[:2 * t + 1:2], level[:2 * t + 1:2])
        self._here.set_data([0], [level[half]])
        room = 0.12 * max(height, unit)
        self._close.set(ylim=((min(near) - room) / unit, (max(near) + room) / unit), ylabel=f"{name} above present")

    def _describe(self, run, half):
        t, rounds = (half + 1) // 2, len(run.history) - 1
        level = signed(run.history[t], 2)
        if half == 0:
            words = (f"The start, with its first E-step made: every point is shared out among the means as they are. "
                     f"The log-likelihood is {level} nats per point, and the bound touches it.")
        elif half % 2:
            words = (f"Round {t} of {rounds}, M-step: means, outlines and weights follow the points, whose colours "
                     f"stay. The bound rose by {run.bound[half] - run.bound[half - 1]:.4f} nats per point; the "
                     f"log-likelihood, now {level}, lies {run.history[t] - run.bound[half]:.4f} above it.")
        else:
            words = (f"Round {t} of {rounds}, E-step: the points are shared out anew, the outlines stay. The bound "
                     f"rose by {run.bound[half] - run.bound[half - 1]:.4f} nats per point and touches the "
                     f"log-likelihood, {level}, again.")
        if half:
            words += self._change_of_weights(run, t)
        if dead := [k + 1 for k, weight in enumerate(run.weights[t].tolist()) if weight * len(self._x) < 0.01]:
            words += f" Component {', '.join(map(str, dead))} claims no point at all."
        if half == run.last:
            words += " EM has converged." if rounds < self.STEPS else " The run was stopped here."
        return words

    def _change_of_weights(self, run, t):
        change = run.weights[t] - run.weights[t - 1]
        k = int(change.abs().argmax())
        if change[k].abs() < 0.005:
            return " No component's share of the points changed by half a percent."
        return (f" Component {k + 1} now claims {run.weights[t, k]:.0%} of the points, "
                f"{'up' if change[k] > 0 else 'down'} from {run.weights[t - 1, k]:.0%}.")


class Run:
    """All that there is to see of a run of EM, from its parameters after each round t: weights (T, K), means (T, K, D),
    full covariances (T, K, D, D), responsibilities resp (T, N, K), `history`, the mean log-likelihoods (nats per
    point), and `bound` after each half step: with r_t for the last M-step's theta (odd), with r_(t+1) (even)."""

    def __init__(self, x, steps, kind):
        (n_components, dim), n_steps = steps[0].means.shape, len(steps)
        self.weights = torch.stack([step.weights for step in steps])
        self.means = torch.stack([step.means for step in steps])
        self.covariances = torch.stack([
            torch.as_tensor(full_covariances(step.covariances, kind, n_components, dim)) for step in steps])
        factors = cholesky(self.covariances.flatten(0, 1))
        joint = log_prob_full(x, self.means.flatten(0, 1), factors).unflatten(0, (n_steps, n_components))
        joint = joint.mT + self.weights.log().unsqueeze(1)  # (T, N, K)
        self.resp = joint.softmax(2)
        tight = joint.logsumexp(2).mean(1)
        gap = torch.where(self.resp > 0, self.resp * self.resp.log(), 0)  # 0 log 0 = 0
        lagging = torch.where(self.resp[:-1] > 0, self.resp[:-1] * joint[1:], 0) - gap[:-1]
        self.history = tight.tolist()
        self.last = 2 * (n_steps - 1)
        self.bound = torch.stack([tight[:-1], lagging.sum(2).mean(1)], 1).flatten().tolist() + self.history[-1:]

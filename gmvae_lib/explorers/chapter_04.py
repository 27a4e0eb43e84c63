"""The widget of chapter 4: the two divergences of a Gaussian from a target with two humps."""

import math
from functools import cached_property, partial

import ipywidgets as widgets
import numpy as np
from scipy import optimize

from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, Blitted, style, subplots

LOG_ROOT = 0.5 * math.log(2 * math.pi)
NAMES = ("KL(q‖p)", "KL(p‖q)")


class Target:
    """p(z): a Gaussian hump of weight `share` at -apart and one of weight 1 - share at +apart, both of width `sd`."""

    GRID = np.linspace(-16, 16, 3201)
    REACH = 6.5  # standard deviations of q that an average over q takes in

    def __init__(self, apart, share, sd):
        self.apart, self.share, self.sd = apart, share, sd
        self.mean = apart * (1 - 2 * share)
        self.variance = sd**2 + 4 * apart**2 * share * (1 - share)
        log_p = self.log_prob(self.GRID)
        self.entropy = -float((np.exp(log_p) * log_p).sum() * (self.GRID[1] - self.GRID[0]))

    def log_prob(self, z):
        left, right = ((z - center) / self.sd for center in (-self.apart, self.apart))
        return np.logaddexp(math.log(self.share) - 0.5 * left**2, math.log(1 - self.share) - 0.5 * right**2) \
            - math.log(self.sd) - LOG_ROOT

    def reverse(self, mean, log_sd, nodes=1301):
        """KL(N(mean, sd²) ‖ p) in nats, by a sum over `nodes` points; the arguments broadcast."""
        mean, log_sd = np.broadcast_arrays(mean, log_sd)
        eps = np.linspace(-self.REACH, self.REACH, nodes)
        weights = np.exp(-0.5 * eps**2)
        log_p = self.log_prob(mean[..., None] + np.exp(log_sd)[..., None] * eps)
        return -(0.5 + LOG_ROOT + log_sd) - log_p @ (weights / weights.sum())  # -entropy - E_q log p

    def forward(self, mean, log_sd):
        """KL(p ‖ N(mean, sd²)) in nats; the arguments broadcast. From p's moments, as in Eq. (4.21)."""
        square = self.variance + (self.mean - np.asarray(mean))**2
        return LOG_ROOT + log_sd + 0.5 * square * np.exp(-2 * np.asarray(log_sd)) - self.entropy

    def best_reverse(self, mean, log_sd):
        """The local minimum of KL(q ‖ p) that gradient descent finds from here: (mean, log_sd)."""
        found = optimize.minimize(lambda at: float(self.reverse(*at)), (mean, log_sd), method="BFGS")
        return tuple(found.x)

    def best_forward(self):
        """The minimum of KL(p ‖ q): (mean, log_sd)."""
        return self.mean, 0.5 * math.log(self.variance)

    @cached_property
    def lowest_reverse(self):
        """The lowest of the local minima of KL(q ‖ p): (mean, log_sd)."""
        heavier = -self.apart if self.share >= 0.5 else self.apart
        starts = [(heavier, math.log(self.sd)), self.best_forward()]
        return min((self.best_reverse(*start) for start in starts), key=lambda at: float(self.reverse(*at)))


class DivergenceExplorer(Panel):
    """A Gaussian q that the reader moves over two humps p, with KL(q ‖ p) and KL(p ‖ q), now and for every q.

    Arguments: mean and sd of q, half the distance `apart` of the humps, and the left one's weight `share`, to begin
    with.
    """

    SD = 0.6  # of each hump
    MEANS = np.linspace(-5, 5, 81)
    LOG_SDS = np.linspace(-3, 2.5, 56) * math.log(2)
    BANDS = np.array([0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1, 1.3, 1.7, 2.3, 3, 4, 6, 10, 20, 40])

    def __init__(self, mean=2.5, sd=1.0, apart=2.0, share=0.625):
        def slider(value, low, high, text):
            return widgets.FloatSlider(value, min=low, max=high, step=1 / 32, description=text, readout=False,
                                       layout={"width": "21em"}, style={"description_width": "8em"})

        # The sliders' steps are exact in binary, or the browser would round what it is shown and send it back.
        self.mean = slider(mean, -5, 5, "mean of q")
        self.sd = widgets.FloatLogSlider(sd, base=2, min=-3, max=2.5, step=1 / 16, description="width of q",
                                         readout=False, layout={"width": "21em"}, style={"description_width": "8em"})
        self.apart = slider(apart, 0, 3.5, "humps at ±")
        self.share = slider(share, 1 / 16, 15 / 16, "weight of the left")
        self.reverse, self.forward = (widgets.Button(description=f"Optimize {name}", layout={"width": "13em"})
                                      for name in NAMES)
        self.reverse.on_click(lambda _: self._optimize(0))
        self.forward.on_click(lambda _: self._optimize(1))
        self._last, self._said = None, ""
        self._prepare_figure()
        super().__init__([[with_box(self.mean), with_box(self.sd)], [with_box(self.apart), with_box(self.share)],
                          [self.reverse, self.forward]],
                         "A widget: a density with two humps and a Gaussian q over it; beside them two maps of the "
                         "divergences KL(q‖p) and KL(p‖q) for every mean and width of q, with a cross where q stands "
                         "and a ring at the lowest place. When the notebook runs, controls move q and the humps, and "
                         "two buttons optimize q in either direction.")

    def divergences(self):
        """KL(q ‖ p) and KL(p ‖ q) of the present q, in nats."""
        at = self.mean.value, math.log(self.sd.value)
        return float(self._target.reverse(*at)), float(self._target.forward(*at))

    def draw(self):
        """The picture of the present q and p, and in words what the last change did."""
        now = {name: getattr(self, name).value for name in ("mean", "sd", "apart", "share")}
        if self._last is None or any(now[name] != self._last[0][name] for name in ("apart", "share")):
            self._set_target(now["apart"], now["share"])
        z = self._z
        self._q.set_data(z, np.exp(-0.5 * ((z - now["mean"]) / now["sd"])**2 - math.log(now["sd"]) - LOG_ROOT))
        for cross in self._crosses:
            cross.set_data([now["mean"]], [math.log2(now["sd"])])
        values = self.divergences()
        caption = self._describe(now, values)
        self._last, self._said = (now, values), ""
        return self._picture, caption

    def _optimize(self, direction):
        start = self.mean.value, math.log(self.sd.value)
        mean, log_sd = self._target.best_forward() if direction else self._target.best_reverse(*start)
        self._said = f"{NAMES[direction]} is now as low as it gets from where q stood, to the sliders' steps. "
        exponent = min(max(round(16 * log_sd / math.log(2)) / 16, self.sd.min), self.sd.max)
        mean = min(max(round(32 * mean) / 32, self.mean.min), self.mean.max)
        self.set_quietly(mean=mean, sd=2.0**exponent)

    def _prepare_figure(self):
        figure, (line, *maps) = subplots(1, 3, size=(10.8, 3.9), width_ratios=(1.25, 1, 1))
        self._z = np.linspace(-5, 5, 401)
        with style():
            self._p, = line.plot([], [], color=COLORS[0], label="target $p$")
            self._q, = line.plot([], [], color=COLORS[1], linestyle="--", label="your $q$")
            line.set(title="Densities", xlabel="$z$", ylabel="density", xlim=(-5, 5), ylim=(0, 1.05))
            line.legend(loc="upper right")
            extent = (self.MEANS[0], self.MEANS[-1], self.LOG_SDS[0] / math.log(2), self.LOG_SDS[-1] / math.log(2))
            self._images, self._crosses, self._rings = [], [], []
            for axis, name in zip(maps, NAMES, strict=True):
                self._images.append(axis.imshow(
                    np.zeros((len(self.LOG_SDS), len(self.MEANS))), origin="lower", extent=extent, aspect="auto",
                    vmin=-1, vmax=len(self.BANDS) + 2, cmap="Blues_r", interpolation="nearest"))
                self._rings += axis.plot([], [], "o", color=COLORS[4], markersize=15, markerfacecolor="none",
                                         markeredgewidth=3)
                self._crosses += axis.plot([], [], "x", color=COLORS[1], markersize=12, markeredgewidth=3.5)
                axis.set(title=name, xlabel="mean of q", ylabel="width of q")
                axis.set_yticks(range(-3, 3), ["⅛", "¼", "½", "1", "2", "4"])
                axis.grid(False)
        self._of_target = [*self._images, *self._rings, self._p]
        self._picture = Blitted(figure, [*self._of_target, self._q, *self._crosses])
        self._frame = self._picture.background
        self._picture.artists = [self._q, *self._crosses]  # the rest changes with the target only: see _keep

    def _set_target(self, apart, share):
        self._target = Target(apart, share, self.SD)
        self._p.set_data(self._z, np.exp(self._target.log_prob(self._z)))
        places = self._target.lowest_reverse, self._target.best_forward()
        means, log_sds = self.MEANS[None, :], self.LOG_SDS[:, None]
        for image, ring, function, (mean, log_sd) in zip(
                self._images, self._rings, (partial(self._target.reverse, nodes=79), self._target.forward), places,
                strict=True):  # 79 are enough for shades
            image.set_data(np.searchsorted(self.BANDS, function(means, log_sds)))
            ring.set_data([mean], [log_sd / math.log(2)])
        self._keep()
        lowest = self._target.reverse(*places[0]), self._target.forward(*places[1])
        self._lowest = tuple(max(0.0, float(value)) for value in lowest)  # no "-0.00" where q can be p

    def _keep(self):
        """Draws the target and its maps once, so that a moving q is drawn over them."""
        canvas = self._picture.canvas
        canvas.restore_region(self._frame)
        for artist in self._of_target:
            artist.axes.draw_artist(artist)
        self._picture.background = canvas.copy_from_bbox(self._picture.figure.bbox)

    def _describe(self, now, values):
        words = self._said
        if self._last:
            before, old = self._last
            words += self._changed(before, now)
            if before != now:
                moves = [f"{name} {'fell' if new < was else 'rose'} by {abs(new - was):.2f}" for name, new, was in
                         zip(NAMES, values, old, strict=True) if abs(new - was) >= 0.005]
                words += (", ".join(moves) or "Neither divergence changed by as much as 0.01") + ". "
        words += "<b>" + "; ".join(f"{name} = {value:.2f} nats (lowest {low:.2f})" for name, value, low in
                                   zip(NAMES, values, self._lowest, strict=True)) + ".</b> "
        left = 0.5 * math.erfc(now["mean"] / now["sd"] / math.sqrt(2))
        return words + f"q has {100 * left:.0f} % of its mass left of the middle, p has {100 * self._left(now):.0f} %."

    def _left(self, now):
        over = 0.5 * math.erfc(-now["apart"] / self.SD / math.sqrt(2))
        return now["share"] * over + (1 - now["share"]) * (1 - over)

    @staticmethod
    def _changed(before, now):
        names = {"mean": "q's mean", "sd": "q's width", "apart": "The humps' distance from the middle",
                 "share": "The left hump's weight"}
        words = [f"{name} went from {signed(before[key], 2)} to {signed(now[key], 2)}" for key, name in names.items()
                 if before[key] != now[key]]
        return "; ".join(words) + ": " if words else ""

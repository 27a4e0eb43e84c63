"""The widget of chapter 10: a choice among three, relaxed, and what it costs the gradient."""

import math

import ipywidgets as widgets
import numpy as np
import torch

from gmvae_lib.explorers.panel import Panel, with_box
from gmvae_lib.figures import COLORS, LINES, Blitted, style, subplots
from gmvae_lib.figures.family import draw_triangle, triangle


class GumbelExplorer(Panel):
    """The Gumbel-softmax of three classes: relaxed draws on the simplex at a temperature, and the error of its gradient
    beside those of the score function, with and without a baseline.

    Arguments:
        logits: (3,), whose softmax is q.
        cost: from points of the simplex (S, 3) to the costs (S,), differentiable.
        names: of the three classes.
    """

    LOW, HIGH, STEP = -1.3, 1.0, 0.1  # powers of ten
    SHOWN, DRAWS = 400, 8192

    def __init__(self, logits, cost, names=("1", "2", "3"), temperature=1.0, n_draws=1):
        self.logits = torch.as_tensor(logits).detach()
        points = torch.quasirandom.SobolEngine(3, scramble=True, seed=0).draw(self.DRAWS).clamp(1e-6, 1 - 1e-6)
        self.gumbels = -(-points.log()).log()  # evenly spread, so that few are enough
        self.exponents = np.arange(round((self.HIGH - self.LOW) / self.STEP) + 1) * self.STEP + self.LOW
        self._measure(cost)
        settings = {"readout": False, "layout": {"width": "24em"}, "style": {"description_width": "8em"}}
        self.temperature = widgets.FloatLogSlider(temperature, base=10, min=self.LOW, max=self.HIGH, step=self.STEP,
                                                  description="temperature τ", **settings)
        self.n_draws = widgets.FloatLogSlider(n_draws, base=10, min=0, max=4, step=0.25, description="draws S",
                                              **settings)
        self._prepare_figure(names)
        super().__init__([[with_box(self.temperature), with_box(self.n_draws)]],
                         "A widget: relaxed draws of a choice among three on a triangle, and on logarithmic axes the "
                         "error of the Gumbel-softmax gradient against the temperature, beside the score function's "
                         "with and without a baseline. Two sliders set the temperature and the number of draws, when "
                         "the notebook runs.")

    def _measure(self, cost):
        """The exact gradient, each estimator's standard deviation for one draw, and the Gumbel-softmax's bias."""
        eye, q = torch.eye(3, dtype=self.logits.dtype), self.logits.softmax(0)
        with torch.no_grad():
            costs = cost(eye)
        self.exact = q * (costs - q @ costs)
        squares = (eye - q).square().sum(1)
        self.sd = [math.sqrt(max(0.0, float(q @ ((costs - b).square() * squares) - self.exact.square().sum())))
                   for b in (0.0, q @ costs)]
        found = []
        for exponent in self.exponents:
            logits = self.logits.expand(self.DRAWS, 3).clone().requires_grad_()
            relaxed = ((logits + self.gumbels) / 10.0**exponent).softmax(1)
            gradients, = torch.autograd.grad(cost(relaxed).sum(), logits)
            error = gradients.mean(0) - self.exact
            found.append([float(error.norm()), float(gradients.var(0).sum().sqrt())])
        self.bias, self.spread = np.array(found).T

    def errors(self):
        """Root mean squared errors at the present S: of the Gumbel-softmax at each temperature, of the score function
        without and with a baseline."""
        n = self.n_draws.value
        return np.sqrt(self.bias**2 + self.spread**2 / n), *(sd / math.sqrt(n) for sd in self.sd)

    def _prepare_figure(self, names):
        figure, (left, right) = subplots(1, 2, size=(10.4, 4.3), width_ratios=(1, 1.35))
        taus = 10.0**self.exponents
        with style():
            draw_triangle(left, names)
            self._dots, = left.plot([], [], "o", color=COLORS[0], markersize=4.5, alpha=0.35, markeredgewidth=0)
            left.set_title("Relaxed draws $y$")
            self._lines = [right.plot(taus, np.ones_like(taus), LINES[i], color=COLORS[i], label=label)[0]
                           for i, label in ((0, "Gumbel-softmax"), (2, "score function"), (3, "score, baseline"))]
            right.plot(taus, self.bias, LINES[1], color=COLORS[1], label="bias alone")
            self._here, = right.plot([], [], "o", color=COLORS[0], markersize=12, markeredgecolor="black")
            right.set(xscale="log", yscale="log", ylim=(0.02, 400), xlabel="temperature τ",
                      ylabel="error of the gradient", title="Root mean squared error")
            right.legend(loc="lower left", ncols=2, fontsize=10.5)
        self._picture = Blitted(figure, [self._dots, *self._lines, self._here])

    @torch.no_grad()
    def draw(self):
        """The picture at this temperature and number of draws, and which estimator errs least, in words."""
        exponent, n = math.log10(self.temperature.value), self.n_draws.value
        at = int(np.abs(self.exponents - exponent).argmin())
        relaxed = ((self.logits + self.gumbels[:self.SHOWN]) / self.temperature.value).softmax(1)
        self._dots.set_data(*triangle(relaxed).T)
        gumbel, plain, baseline = self.errors()
        for line, values in zip(self._lines, (gumbel, plain, baseline), strict=True):
            line.set_ydata(np.broadcast_to(values, gumbel.shape))
        self._here.set_data([10.0**self.exponents[at]], [gumbel[at]])
        decided = float((relaxed.amax(1) > 0.95).double().mean())
        rivals = {"the Gumbel-softmax": gumbel[at], "the score function": plain,
                  "the score function with a baseline": baseline}
        best = min(rivals, key=rivals.get)
        noise = self.spread[at] / math.sqrt(n)
        cause = "bias" if self.bias[at] > noise else "noise"
        caption = (f"At τ = {self.temperature.value:.2g}, {decided:.0%} of the draws have all but decided. With "
                   f"{n:.0f} draw{'s' if round(n) != 1 else ''} averaged, the Gumbel-softmax errs by "
                   f"{_short(gumbel[at])}, mostly by {cause} (bias {_short(self.bias[at])}, noise {_short(noise)}); "
                   f"the score function by {_short(plain)}, with a baseline by {_short(baseline)}. The least error has "
                   f"{best}; the exact sum has none.")
        self._picture.alt = caption
        return self._picture, caption


def _short(value):
    """A positive number with about two digits, never as a power of ten."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"

"""The widget of chapter 13: right and wrong formulas, and which test notices."""

import ipywidgets as widgets
import torch

from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, Blitted, array, style, subplots
from gmvae_lib.gaussian import LOG_2PI, log_prob_diag

TESTS = ("It adds up to one", "One component is a Gaussian", "Twins count as one", "The order does not matter",
         "Draws fall where it says", "Draws spread as it says")


def right(z, weights, means, log_var):
    """log p(z) of a mixture of diagonal Gaussians. Eq. (8.4)."""
    return (weights.log() + log_prob_diag(z.unsqueeze(1), means, log_var)).logsumexp(1)


def _terms(z, means, log_var):
    return -0.5 * (LOG_2PI + log_var + (z.unsqueeze(1) - means).square() / log_var.exp())


def _too_early(z, weights, means, log_var):
    return (weights.log()[:, None] + _terms(z, means, log_var)).logsumexp(1).sum(1)


def _weights_in_the_sum(z, weights, means, log_var):
    return (weights.log()[:, None] + _terms(z, means, log_var)).sum(2).logsumexp(1)


def _bracket(z, weights, means, log_var):
    inside = LOG_2PI + log_var + (z.unsqueeze(1) - means).square()
    return (weights.log() - 0.5 * (inside / log_var.exp()).sum(2)).logsumexp(1)


# The density's formula, and what the sampler's noise is multiplied by: exp(this times log_var).
PROGRAMS = {
    "as it should be": (right, 0.5),
    "log-sum-exp before the sum over dimensions": (_too_early, 0.5),
    "log π inside the sum over dimensions": (_weights_in_the_sum, 0.5),
    "a bracket in the wrong place": (_bracket, 0.5),
    "a sampler that takes the variance for σ": (right, 1.0),
}


class BugExplorer(Panel):
    """A mixture of two equally wide Gaussians in the plane, one of five programs for it, and six tests of that."""

    HALF, STEP, BOX, DRAWS, SHOWN = 12.0, 0.25, 2.0, 8000, 250

    def __init__(self, program="log-sum-exp before the sum over dimensions", apart=3.0, variance=1.0, weight=0.5):
        layout, wide = {"width": "24em"}, {"description_width": "9em"}
        self.program = widgets.Dropdown(options=list(PROGRAMS), value=program, description="program",
                                        layout={"width": "34em"}, style=wide)
        self.apart, self.variance, self.weight = (
            widgets.FloatSlider(value, min=low, max=high, step=step, description=name, layout=layout, style=wide)
            for value, low, high, step, name in ((apart, 0, 4, 0.25, "centers at ±"),
                                                 (variance, 0.25, 3, 0.25, "variance"),
                                                 (weight, 0.125, 0.875, 0.125, "weight of the first")))
        line = torch.arange(-self.HALF, self.HALF, self.STEP, dtype=torch.float64) + self.STEP / 2
        self._grid = torch.cartesian_prod(line, line)
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(self.DRAWS, 2, generator=generator, dtype=torch.float64)
        self._chance = torch.rand(self.DRAWS, generator=generator, dtype=torch.float64)
        self._last = None
        self._prepare_figure(len(line))
        super().__init__([self.program, [with_box(self.apart), with_box(self.variance)], with_box(self.weight)],
                         "A widget: on the left the density of a mixture of two Gaussians in the plane, with draws as "
                         "dots; on the right six tests with their results, passed or failed. When the notebook runs, a "
                         "menu chooses a right or a wrong program, and sliders move the mixture.")

    def parameters(self):
        """The mixture's weights (2,), means (2, 2) and log-variances (2, 2)."""
        weights = torch.tensor([self.weight.value, 1 - self.weight.value], dtype=torch.float64)
        means = self.apart.value * torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
        return weights, means, torch.full((2, 2), self.variance.value, dtype=torch.float64).log()

    def draws(self, scale, weights, means, log_var):
        """The program's draws (DRAWS, 2), from noise that stays the same."""
        c = (self._chance > weights[0]).long()
        return means[c] + (scale * log_var[c]).exp() * self._noise

    def results(self):
        """For each of TESTS, a number and whether the program passes; and the density's logarithms and the draws."""
        formula, scale = PROGRAMS[self.program.value]
        weights, means, log_var = self.parameters()
        log_p = formula(self._grid, weights, means, log_var)
        z, mass = self.draws(scale, weights, means, log_var), log_p.exp() * self.STEP**2
        few = self._grid[::37]
        single = formula(few, torch.ones_like(weights[:1]), means[:1], log_var[:1])
        truth = log_prob_diag(few, means[0], log_var[0])
        doubled = formula(few, weights.repeat(2) / 2, means.repeat(2, 1), log_var.repeat(2, 1))
        swapped = formula(few, weights.flip(0), means.flip(0), log_var.flip(0))
        shares = [torch.bincount(self._box(points), share) for points, share in
                  ((z, torch.full((len(z),), 1 / len(z), dtype=torch.float64)), (self._grid, mass))]
        size = max(map(len, shares))
        apart = [torch.nn.functional.pad(share, (0, size - len(share))) for share in shares]
        spread = z.square().sum(1).mean() / (mass * self._grid.square().sum(1)).sum()
        numbers = [mass.sum(), (single - truth).abs().max(), (doubled - log_p[::37]).abs().max(),
                   (swapped - log_p[::37]).abs().max(), (apart[0] - apart[1]).abs().max(), spread]
        numbers = [float(number) for number in numbers]
        passed = [abs(numbers[0] - 1) < 0.02, *(number < 1e-6 for number in numbers[1:4]), numbers[4] < 0.02,
                  abs(numbers[5] - 1) < 0.08]
        return list(zip(numbers, passed, strict=True)), log_p, z

    def _box(self, points):
        index = ((points + self.HALF) / self.BOX).floor().clamp(0, 2 * self.HALF / self.BOX - 1).long()
        return index[:, 0] * int(2 * self.HALF / self.BOX) + index[:, 1]

    def draw(self):
        """The picture of the chosen program, and in words which tests notice."""
        results, log_p, z = self.results()
        size = len(self._axis)
        density = array(log_p.exp()).reshape(size, size).T
        self._image.set_data(density)
        self._image.set_clim(0, density.max())
        self._dots.set_data(*array(z[:self.SHOWN]).T)
        shown = ("total {:.2f}", "off by {:.2f}", "off by {:.2f}", "off by {:.2f}", "share off by {:.2f}",
                 "{:.2f} times")
        for text, mark, form, (number, passed) in zip(self._numbers, self._marks, shown, results, strict=True):
            text.set_text(form.format(number))
            mark.set(text="✓ passed" if passed else "✗ FAILED", color=COLORS[2] if passed else COLORS[1])
        caption = self._describe([name for name, (_, passed) in zip(TESTS, results, strict=True) if not passed])
        return self._picture, caption

    def _describe(self, failed):
        now = {"program": self.program.value, "centers at ±": signed(self.apart.value, 2),
               "variance": f"{self.variance.value:.2f}", "weight of the first": f"{self.weight.value:.3f}"}
        changed = [] if self._last is None else [name for name in now if now[name] != self._last[0][name]]
        words = "".join(f"{name[0].upper() + name[1:]}: now {now[name]}. " for name in changed)
        if self._last and changed and self._last[1] != failed:
            words += f"Before, {len(self._last[1])} of the six tests failed. "
        self._last = now, failed
        wrong = self.program.value != "as it should be"
        if failed:
            return words + f"<b>{len(failed)} of six notice:</b> " + "; ".join(f"“{name}”" for name in failed) + "."
        return words + ("<b>No test notices,</b> and yet the program is wrong: here it happens to give the right "
                        "numbers." if wrong else "<b>All six pass,</b> as they should.")

    def _prepare_figure(self, size):
        figure, (left, right_) = subplots(1, 2, size=(10.4, 4.4), width_ratios=(1, 1.45))
        self._axis = range(size)
        with style():
            extent = (-self.HALF, self.HALF, -self.HALF, self.HALF)
            self._image = left.imshow([[0] * size] * size, origin="lower", extent=extent, cmap="cividis",
                                      interpolation="nearest")
            self._dots, = left.plot([], [], "o", color="white", markersize=3, markeredgecolor="black",
                                    markeredgewidth=0.4)
            left.set(title="Density, and 250 draws", xlabel="$z_1$", ylabel="$z_2$", xlim=(-7, 7), ylim=(-7, 7))
            left.grid(False)
            right_.set_axis_off()
            right_.set(xlim=(0, 1), ylim=(-0.6, 5.6), title="Six tests of this program")
            right_.invert_yaxis()
            for row, name in enumerate(TESTS):
                right_.text(0.0, row, name, va="center", fontsize=13)
            self._numbers = [right_.text(0.53, row, "", va="center", fontsize=12) for row in range(6)]
            self._marks = [right_.text(0.80, row, "", va="center", fontsize=13, fontweight="bold") for row in range(6)]
        self._picture = Blitted(figure, [self._image, self._dots, *self._numbers, *self._marks])

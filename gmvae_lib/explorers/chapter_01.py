"""The widget of chapter 1: a mixture set by hand."""

import ipywidgets as widgets
import torch

from gmvae_lib.data import load
from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, LINES, MARKERS, Blitted, blend, ellipse, style, subplots
from gmvae_lib.gaussian import cholesky, log_prob_full


class MixtureExplorer(Panel):
    """A Gaussian mixture whose every parameter the reader moves: its density over 2-D points, and its log-likelihood as
    a function of the chosen component's size.

    Arguments: data (a toy that `load` knows) and n_components, to begin with.
    """

    TOYS = ("cigars", "blobs", "unequal")
    FAMILIES = ("full", "diag", "spherical", "tied")
    MOST, POINTS = 4, 100  # components, points
    SIZES = torch.logspace(-7, 1, 97, dtype=torch.float64)  # at which the curve is computed
    BANDS = torch.arange(-3.0, 0.3, 0.4)  # log10 of the densities between which the shade changes
    CELLS = 120  # of the density's image, along each side
    NARROW = 150.0  # nats below the goal that the axis of the log-likelihood reaches, and a third of that above it
    PRIOR = 4  # the prior's nu, D + 2; its Psi is the data's covariance / K
    # The sliders' steps are exact in binary, or the browser would round what it is shown and send it back.

    def __init__(self, data="cigars", n_components=3):
        def slider(low, high, step, text, width="17em"):
            return widgets.FloatSlider(0.0, min=low, max=high, step=step, description=text, readout=False,
                                       layout={"width": width}, style={"description_width": "6.5em"})

        narrow = {"width": "14em"}
        self.data = widgets.Dropdown(options=self.TOYS, value=data, description="data", layout=narrow)
        self.family = widgets.Dropdown(options=self.FAMILIES, value="full", description="covariance", layout=narrow)
        self.k = widgets.IntSlider(n_components, 1, self.MOST, description="K", readout=False, layout=narrow)
        self.component = widgets.IntSlider(1, 1, self.MOST, description="component", readout=False,
                                           layout={"width": "17em"}, style={"description_width": "6.5em"})
        self.weight = slider(0, 1, 1 / 32, "weight")
        self.x1, self.x2 = slider(-8, 8, 0.125, "center x1"), slider(-8, 8, 0.125, "center x2")
        self.s1, self.s2 = slider(-6, 1, 0.0625, "log10 of σ1"), slider(-6, 1, 0.0625, "log10 of σ2")
        self.rho = slider(-0.96875, 0.96875, 1 / 32, "correlation")
        self.prior = widgets.Checkbox(False, description="with a prior (MAP)", indent=False, layout=narrow)
        self.known, self.onto, self.shrink, self.again = (
            widgets.Button(description=text, layout={"width": "13em"})
            for text in ("Components known", "Onto a point", "Shrink", "Reset"))
        self.known.on_click(lambda _: self._set_known())
        self.onto.on_click(lambda _: self._move_onto_a_point())
        self.shrink.on_click(lambda _: self._shrink())
        self.again.on_click(lambda _: self._restart())
        self._last, self._value, self._said = {}, None, ""
        super().__init__([[with_box(self.component), with_box(self.weight)], [with_box(self.x1), with_box(self.x2)],
                          [with_box(self.s1), with_box(self.s2), with_box(self.rho)],
                          [with_box(self.k), self.family, self.data],
                          [self.known, self.onto, self.shrink, self.again, self.prior]],
                         "A widget: the density of a Gaussian mixture in shades of blue, with a hundred points "
                         "coloured by responsibility and the outlines of the components; beside it the log-likelihood "
                         "for every size of the chosen component. When the notebook runs, controls move weight, "
                         "center, spread and correlation of each component, and choose K, the covariance family and "
                         "the data.")

    def parameters(self, family=None):
        """The mixture that the controls describe: weights (K,), means (K, 2), covariances (K, 2, 2)."""
        return self._weights, self._means, self._restricted(self._free_covariances(), family or self.family.value)

    def log_likelihood(self):
        """The present mixture's, in nats, summed over the points; with the prior, if it is ticked."""
        _, means, covariances = self.parameters()
        return float(self._log_likelihoods(means, covariances[None])[0])

    def n_parameters(self):
        """Free parameters, Eq. (1.19) for D = 2."""
        k = self.k.value
        return k - 1 + 2 * k + {"full": 3 * k, "diag": 2 * k, "spherical": k, "tied": 3}[self.family.value]

    def draw(self):
        """The picture of the present mixture, and in words what the last change did."""
        self._quiet = True  # controls that follow others must not draw
        try:
            said = self._follow()
        finally:
            self._quiet = False
        weights, means, covariances = self.parameters()
        self._draw_plane(weights, means, covariances)
        size = self._draw_curve(means)
        before, self._value = self._value, self.log_likelihood()
        return self._picture, said + self._describe(before, size)

    # --- what the controls mean

    def _follow(self):
        """Brings the mixture and the controls in line with what the reader changed; says what that was."""
        names = ("data", "k", "family", "component", "weight", "x1", "x2", "s1", "s2", "rho", "prior")
        now = {name: getattr(self, name).value for name in names}
        changed = {name for name in names if self._last.get(name) != now[name]}
        said = ""
        if "data" in changed:
            self._take_data()
        if changed & {"data", "k"}:
            self._start()
            said = f"{self.k.value} component(s) on {self.data.value}, wide and round. "
        self.component.value = min(self.component.value, self.k.value)
        k = self.component.value - 1
        if changed & {"component"} and self._last:
            said += f"The controls now move component {k + 1}, the one with the ochre ring. "
        elif not changed & {"data", "k"}:
            said += "".join(self._set(name, k, now[name]) for name in sorted(changed))
        if "family" in changed and self._last:
            said += f"The covariances are now {self.family.value}. "
        if "prior" in changed and self._last:
            self._value = None  # another quantity: not to be compared with what it was
            said += ("The prior now counts: small covariances cost. " if self.prior.value
                     else "The prior no longer counts. ")
        self._show(k)
        self._last = {name: getattr(self, name).value for name in names}
        said, self._said = said + self._said, ""
        return said

    def _set(self, name, k, value):
        """Sets one parameter of component k from its control; says so."""
        who = f"Component {k + 1}'s "
        if name == "weight":
            if self.k.value == 1:
                return "A single component has all the weight. "
            share = min(max(value, 1 / 64), 63 / 64)
            others = self._weights.clone()
            others[k] = 0
            self._weights = others * (1 - share) / others.sum()
            self._weights[k] = share
            return who + f"weight is now {share:.2f}; the others share the rest. "
        if name in ("x1", "x2"):
            self._means[k, int(name[1]) - 1] = value
            return who + f"center is now at ({', '.join(signed(v, 2) for v in self._means[k].tolist())}). "
        if name in ("s1", "s2"):
            self._log_stds[k, int(name[1]) - 1] = value
            return who + f"standard deviation σ{name[1]} is now {10**value:.3g}. "
        if name == "rho":
            self._rho[k] = value
            note = "" if self.family.value in ("full", "tied") else f", which {self.family.value} covariances ignore"
            return who + f"correlation is now {signed(value, 2)}{note}. "
        return ""

    def _show(self, k):
        """The sliders at component k's parameters, rounded to their steps."""
        for slider, value in ((self.weight, self._weights[k]), (self.x1, self._means[k, 0]),
                              (self.x2, self._means[k, 1]), (self.s1, self._log_stds[k, 0]),
                              (self.s2, self._log_stds[k, 1]), (self.rho, self._rho[k])):
            slider.value = min(max(slider.step * round(float(value) / slider.step), slider.min), slider.max)

    def _start(self):
        """K wide, round components in a ring about the data's mean."""
        k = self.k.value
        angle = torch.arange(k, dtype=torch.float64) * 2 * torch.pi / k + torch.pi / 2
        ring = 1.5 * torch.stack([angle.cos(), angle.sin()], 1) * (k > 1)
        self._weights = torch.full((k,), 1 / k, dtype=torch.float64)
        self._means = 0.125 * ((self._x.mean(0) + ring) / 0.125).round()
        self._log_stds = torch.zeros(k, 2, dtype=torch.float64)
        self._rho = torch.zeros(k, dtype=torch.float64)
        self._value = None

    def _restart(self):
        self._last.pop("k")
        self.refresh()

    def _set_known(self):
        """The mixture of each true component's own points; a component too many lies over all of them."""
        spare = self.k.value > len(self._known[0])
        self._quiet = True
        self.k.value = len(self._known[0]) + spare
        self._quiet = False
        self._last["k"] = self.k.value
        weights, means, covariances = self._known
        if spare:
            weights = torch.cat([0.98 * weights, torch.full((1,), 0.02, dtype=torch.float64)])
            means = torch.cat([means, self._x.mean(0, keepdim=True)])
            covariances = torch.cat([covariances, self._x.T.cov()[None]])
        std = covariances.diagonal(dim1=1, dim2=2).sqrt()
        self._weights, self._means, self._log_stds = weights, means.clone(), std.log10()
        self._rho = covariances[:, 0, 1] / std.prod(1)
        self._said = "Each component has the mean and the covariance of its own points" + (
            f"; component {self.k.value}, one too many, lies over all of them. " if spare else ". ")
        self.refresh()

    def _move_onto_a_point(self):
        k = self.component.value - 1
        nearest = (self._x - self._means[k]).square().sum(1).argmin()
        self._means[k] = self._x[nearest]
        self._said = f"Component {k + 1} now sits on the data point nearest to it, exactly. "
        self.refresh()

    def _shrink(self):
        k = self.component.value - 1
        self._log_stds[k] = (self._log_stds[k] - 0.25).clamp_min(self.s1.min)
        self._said = f"Component {k + 1} is now about half as wide. "
        self.refresh()

    # --- what follows from them

    def _free_covariances(self):
        std = 10**self._log_stds
        off = self._rho * std[:, 0] * std[:, 1]
        return torch.stack([std[:, 0]**2, off, off, std[:, 1]**2], 1).reshape(-1, 2, 2)

    def _restricted(self, covariances, family):
        """The nearest thing in the family: (..., K, 2, 2)."""
        variances = covariances.diagonal(dim1=-2, dim2=-1)
        if family == "diag":
            return torch.diag_embed(variances)
        if family == "spherical":
            return torch.diag_embed(variances.mean(-1, keepdim=True).expand_as(variances))
        if family == "tied":
            average = (self._weights[:, None, None] * covariances).sum(-3, keepdim=True)
            return average.expand_as(covariances).contiguous()
        return covariances

    def _log_likelihoods(self, means, covariances):
        """The log-likelihood (S,), for S sets of covariances (S, K, 2, 2)."""
        tril = cholesky(covariances.flatten(0, 1))
        logs = log_prob_full(self._x, means.repeat(len(covariances), 1), tril).reshape(*covariances.shape[:2], -1)
        values = (self._weights.log()[:, None] + logs).logsumexp(1).sum(1)
        if self.prior.value:  # the inverse-Wishart's logarithm, Eq. (1.25), less its highest value
            tril = tril.reshape(covariances.shape)
            strength = self.PRIOR + 3
            whitened = torch.linalg.solve_triangular(tril, cholesky(self._psi).expand_as(tril), upper=False)
            log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
            log_prior = -0.5 * (strength * log_det + whitened.square().sum((-2, -1)))
            best = -0.5 * strength * ((self._psi / strength).logdet() + 2)
            values = values + ((log_prior - best).mean(1) if self.family.value == "tied"
                               else (log_prior - best).sum(1))
        return values

    @property
    def _psi(self):
        return self._x.T.cov() / self.k.value

    def _take_data(self):
        data = load(self.data.value, n_samples=self.POINTS)
        self._x = data.x.double()
        groups = [self._x[data.y == c] for c in data.y.unique()]
        weights = torch.tensor([len(points) / len(self._x) for points in groups]).double()
        means = torch.stack([points.mean(0) for points in groups])
        covariances = torch.stack([points.T.cov(correction=0) for points in groups])
        joint = weights.log()[:, None] + log_prob_full(self._x, means, cholesky(covariances))
        self._known, self._goal = (weights, means, covariances), float(joint.logsumexp(0).sum())
        self._prepare_figure()

    # --- the picture

    def _prepare_figure(self):
        figure, (plane, curve) = subplots(1, 2, size=(10.6, 4.7), width_ratios=(1.25, 1))
        low, high = self._x.amin(0) - 1.5, self._x.amax(0) + 1.5
        lines = [torch.linspace(float(a), float(b), self.CELLS, dtype=torch.float64)
                 for a, b in zip(low, high, strict=True)]
        self._grid = torch.cartesian_prod(lines[1], lines[0]).flip(1)
        with style():
            extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
            self._image = plane.imshow([[0.0]], origin="lower", extent=extent, vmin=0,
                                       vmax=1.7 * len(self.BANDS), cmap="Blues", interpolation="nearest",
                                       aspect="equal")
            plane.grid(False)
            self._clouds = [plane.scatter([], [], marker=MARKERS[k], s=26, linewidths=0.5, edgecolors="white")
                            for k in range(self.MOST)]
            self._outlines = [plane.plot([], [], "k", linestyle=LINES[k % 4])[0] for k in range(self.MOST)]
            self._names = [plane.text(0, 0, str(k + 1), ha="center", va="center", fontsize=12, fontweight="bold",
                                      color="white", clip_on=True, bbox={"boxstyle": "circle,pad=0.2",
                                                                         "facecolor": COLORS[k], "edgecolor": "black"})
                           for k in range(self.MOST)]
            plane.set(title="Density, points, outlines", xlabel="$x_1$", ylabel="$x_2$",
                      xlim=(extent[0] - 0.05, extent[1]), ylim=(extent[2] - 0.05, extent[3]))
            curve.set_xscale("log")
            self._dashed = curve.axhline(self._goal, linestyle="--", color=COLORS[2], label="components known")
            self._curve, = curve.plot([], [], color=COLORS[0], label="at other sizes")
            self._now, = curve.plot([], [], "o", color=COLORS[1], markersize=12, label="now")
            curve.set(title="Log-likelihood", xlabel="size of the chosen component", ylabel="nats",
                      xlim=(float(self.SIZES[0]), float(self.SIZES[-1])))
            figure.legend(loc="outside lower right", ncols=3)
            self._axis, self._span = curve, self.NARROW
            curve.set_ylim(*self._limits())
        self._picture = Blitted(figure, [self._image, *self._clouds, *self._outlines, *self._names, self._curve,
                                         self._now])

    def _limits(self):
        return self._goal - self._span, self._goal + self._span / 3

    def _fit_axis(self, value):
        """The wide axis where the narrow one does not hold the value; all is drawn anew only when the axis changes.

        With the prior the curve is another quantity, with which the dashed line cannot be compared.
        """
        lowest = self._goal - (0.95 if self._span == self.NARROW else 0.7) * self.NARROW
        span = self.NARROW if value >= lowest else 4 * self.NARROW
        if (span, self.prior.value) != (self._span, not self._dashed.get_visible()):
            self._span = span
            self._axis.set_ylim(*self._limits())
            self._dashed.set_visible(not self.prior.value)
            self._axis.set_title("Log-likelihood and prior" if self.prior.value else "Log-likelihood")
            self._picture.background = self._picture.capture()

    def _draw_plane(self, weights, means, covariances):
        tril = cholesky(covariances)

        def joint(points):
            return weights.log()[:, None] + log_prob_full(points, means, tril)

        density = joint(self._grid).logsumexp(0) / torch.log(torch.tensor(10.0))
        bands = torch.bucketize(density, self.BANDS.double())
        self._image.set_data(bands.reshape(self.CELLS, self.CELLS).numpy())
        resp = joint(self._x).softmax(0).T
        colors, likeliest = blend(resp), resp.argmax(1).numpy()
        for k in range(self.MOST):
            for artist in (self._clouds[k], self._outlines[k], self._names[k]):
                artist.set_visible(k < len(weights))
            if k < len(weights):
                mine = likeliest == k
                self._clouds[k].set_offsets(self._x.numpy()[mine])
                self._clouds[k].set_facecolors(colors[mine])
                self._outlines[k].set_data(*ellipse(means[k], covariances[k]).T)
                self._names[k].set_position(means[k].tolist())
                chosen = k == self.component.value - 1
                self._names[k].get_bbox_patch().set(edgecolor=COLORS[4] if chosen else "black",
                                                    linewidth=3.5 if chosen else 1)

    def _draw_curve(self, means):
        """The log-likelihood over the chosen component's size, the square root of σ1 σ2; returns the present one."""
        k, free = self.component.value - 1, self._free_covariances()
        size = 10**float(self._log_stds[k].mean())
        scaled = free.repeat(len(self.SIZES), 1, 1, 1)
        scaled[:, k] *= (self.SIZES / size).square()[:, None, None]
        value = self.log_likelihood()
        self._fit_axis(value)
        low, high = self._limits()
        values = self._log_likelihoods(means, self._restricted(scaled, self.family.value))
        self._curve.set_data(self.SIZES, values.clamp(2 * low - high, 2 * high - low))
        self._now.set_data([size], [min(max(value, low), high)])
        return size

    def _describe(self, before, size):
        value, k = self._value, self.component.value - 1
        name = "penalized log-likelihood" if self.prior.value else "log-likelihood"
        words = f"{self.n_parameters()} parameters; {name} {signed(value, 1)} nats"
        if before is not None and abs(value - before) >= 0.05:
            words += f", {'up' if value > before else 'down'} by {abs(value - before):.1f}"
        words += ". " if self.prior.value else f"; with the components known, {signed(self._goal, 1)}. "
        alone = (self._x == self._means[k]).all(1).any()
        if alone and size < 0.05 and self.family.value != "tied":
            words += (f"Component {k + 1} has all but collapsed on a single point. " +
                      ("The prior makes it pay for that. " if self.prior.value else
                       "Each halving now adds about 2 log 2 = 1.4 nats, for ever. "))
        elif value > self._goal:
            words += "Higher than with the components known! " if not self.prior.value else ""
        return words

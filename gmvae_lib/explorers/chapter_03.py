"""The widget of chapter 3: K, with every criterion and the fit."""

import warnings
from dataclasses import dataclass

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from gmvae_lib.data import load
from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, LINES, MARKERS, Blitted, blend, ellipse, full_covariances, style, subplots
from gmvae_lib.mixture import GaussianMixture

JUDGES = ("training", "new points", "AIC", "BIC", "ICL")


@dataclass
class Fit:
    """One mixture: what the picture needs of it, and its scores (nats per point, higher is better) by judge."""

    resp: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    n_parameters: int
    scores: tuple


class KExplorer(Panel):
    """Mixtures of 1 to 10 components on toys and on the digits' principal plane, with the scores that could choose K.

    All fits are computed when the panel is made, so that every control only draws.
    Arguments:
        own: data of the reader's, from a name to (points (N, 2), new points (M, 2)); shown first.
        toys: names that `load` knows.
        n_components, covariance_type: to begin with.
    """

    FAMILIES = ("full", "diag", "spherical", "tied")
    MOST = 10  # components
    POINTS, NEW = 300, 1000  # of the toys

    def __init__(self, own=None, toys=("cigars", "moons"), n_components=3, covariance_type="full"):
        self._data = dict(own or {}) | {name: self._toy(name) for name in toys} | {"digits": self._digits()}
        self._fits = {(name, family): [self._fit(x, new, k + 1, family) for k in range(self.MOST)]
                      for name, (x, new) in self._data.items() for family in self.FAMILIES}
        narrow = {"width": "15em"}
        self.k = widgets.IntSlider(n_components, 1, self.MOST, description="K", readout=False,
                                   layout={"width": "24em"})
        self.data = widgets.Dropdown(options=list(self._data), description="data", layout=narrow)
        self.family = widgets.Dropdown(options=self.FAMILIES, value=covariance_type, description="covariance",
                                       layout=narrow)
        self._last = None
        self._prepare_figure()
        super().__init__([[with_box(self.k), self.data, self.family]],
                         "A widget: points coloured by the components of a fitted mixture, with outlines; beside them, "
                         "for every K, the log-likelihood of training and of new points and the criteria AIC, BIC and "
                         "ICL, each with its best K ringed. Controls for K, data and family work when the notebook "
                         "runs.")

    def _toy(self, name):
        return (load(name, n_samples=self.POINTS).x.double(), load(name, "test", n_samples=self.NEW).x.double())

    @staticmethod
    def _digits():
        from sklearn.decomposition import PCA  # here, because every chapter imports the widgets, and this takes a while

        x, new = (load("digits", split).x.double().numpy() for split in ("train", "test"))
        plane = PCA(2).fit(x)
        return tuple(torch.from_numpy(plane.transform(points)) for points in (x, new))

    @staticmethod
    def _fit(x, new, n_components, family):
        floor = 1e-3 * float(x.var(0).mean())
        with warnings.catch_warnings(action="ignore"):  # too many components are asked for on purpose
            model = GaussianMixture(n_components, family, n_init=2, tol=1e-3, reg_covar=floor).fit(x)
        scores = (model.score(x), model.score(new), *(-judge(x) / (2 * len(x)) for judge in (
            model.aic, model.bic, model.icl)))
        covariances = full_covariances(model.covariances_, family, n_components, 2)
        return Fit(model.predict_proba(x).numpy(), model.means_.numpy(), covariances, model.n_parameters(), scores)

    def _prepare_figure(self):
        figure, (plane, curve) = subplots(1, 2, size=(10.4, 4.9), width_ratios=(1.15, 1))
        with style():
            self._clouds = [plane.scatter([], [], marker=MARKERS[k % 10], s=18, linewidths=0)
                            for k in range(self.MOST)]
            self._outlines = [plane.plot([], [], "k", linestyle=LINES[k % 4])[0] for k in range(self.MOST)]
            self._names = [plane.text(0, 0, str(k + 1), ha="center", va="center", fontsize=11, fontweight="bold",
                                      color="white", clip_on=True, bbox={
                                          "boxstyle": "circle,pad=0.2", "facecolor": COLORS[k % 10],
                                          "edgecolor": "black"}) for k in range(self.MOST)]
            self._now = curve.axvline(1, color=COLORS[9], linewidth=6, alpha=0.5)
            self._lines = [curve.plot([], [], color=COLORS[i], linestyle=LINES[i % 4], marker=MARKERS[i], label=name)[0]
                           for i, name in enumerate(JUDGES)]
            self._rings = [curve.plot([], [], "o", markersize=15, markerfacecolor="none", markeredgecolor=COLORS[i],
                                      markeredgewidth=2.5)[0] for i in range(len(JUDGES))]
            plane.set(title="The fit", xlabel="$x_1$", ylabel="$x_2$")
            curve.set(title="Scores, higher is better", xlabel="components K", ylabel="nats per point",
                      xlim=(0.4, self.MOST + 0.6))
            curve.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
            curve.yaxis.set_major_formatter("{x:.2f}")
            curve.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, fontsize=11)
        self._picture = Blitted(figure, [*self._clouds, *self._outlines, *self._names, self._now, *self._lines,
                                         *self._rings])
        self._backgrounds = {name: self._frame(plane, curve, name) for name in self._data}

    def _frame(self, plane, curve, name):
        """All that stays while the reader looks at one data set, drawn once."""
        x = self._data[name][0].numpy()
        box = plane.get_window_extent()
        middle, half = (x.min(0) + x.max(0)) / 2, 0.56 * np.ptp(x, axis=0)
        half = (half / box.size).max() * box.size  # one unit is equally long on both axes: circles look round
        (left, bottom), (right, top) = middle - half, middle + half
        limits = [{"xlim": (left, right), "ylim": (bottom, top)}]
        scores = np.array([fit.scores for family in self.FAMILIES for fit in self._fits[name, family]])
        top, bottom = scores.max(), scores[:, 0].min() - 0.1 * np.ptp(scores[:, 0])
        limits.append({"ylim": (bottom - 0.05 * (top - bottom), top + 0.07 * (top - bottom))})
        for axis, settings in zip((plane, curve), limits, strict=True):
            axis.set(**settings)
        return self._picture.capture(), limits

    def draw(self):
        """The picture for the present K, data and family, and in words what the last change did."""
        now = self.data.value, self.family.value, self.k.value
        fits, (x, _) = self._fits[now[:2]], self._data[now[0]]
        self._picture.background, limits = self._backgrounds[now[0]]
        for artist, settings in zip((self._clouds[0], self._now), limits, strict=True):
            artist.axes.set(**settings)
        self._draw_fit(x.numpy(), fits[now[2] - 1])
        scores = np.array([fit.scores for fit in fits])
        best = scores.argmax(0)
        for line, ring, values, top in zip(self._lines, self._rings, scores.T, best, strict=True):
            line.set_data(range(1, self.MOST + 1), values)
            ring.set_data([top + 1], [values[top]])
        self._now.set_xdata([now[2], now[2]])
        caption = self._describe(now, fits, best + 1)
        self._last = now
        return self._picture, caption

    def _draw_fit(self, x, fit):
        colors, likeliest = blend(fit.resp), fit.resp.argmax(1)
        for k in range(self.MOST):
            shown = k < len(fit.means)
            for artist in (self._clouds[k], self._outlines[k], self._names[k]):
                artist.set_visible(shown)
            if shown:
                mine = likeliest == k
                self._clouds[k].set_offsets(x[mine])
                self._clouds[k].set_facecolors(colors[mine])
                self._outlines[k].set_data(*ellipse(fit.means[k], fit.covariances[k]).T)
                self._names[k].set_position(fit.means[k])

    def _describe(self, now, fits, best):
        name, family, k = now
        fit = fits[k - 1]
        words = (f"<b>K = {k} on {name}, {family} covariances</b>: {fit.n_parameters} free parameters; "
                 f"{signed(fit.scores[0], 2)} nats per point in training, {signed(fit.scores[1], 2)} on new points. ")
        if self._last and self._last[:2] == now[:2] and self._last[2] != k:
            before = fits[self._last[2] - 1].scores
            moved = {True: [], False: []}
            for judge, new, old in zip(JUDGES, fit.scores, before, strict=True):
                moved[new > old].append(judge)
            words += f"From K = {self._last[2]} to {k}, " + "; ".join(
                f"{', '.join(judges)} {'rose' if up else 'fell'}" for up, judges in moved.items() if judges) + ". "
        elif self._last and self._last[:2] != now[:2]:
            i = int(self._last[0] == name)
            what = ("data", "covariances")[i]
            words += f"The {what} are now {now[i]} instead of {self._last[i]}. "
        return words + "Best K: " + ", ".join(f"{judge} {top}" for judge, top in zip(JUDGES, best, strict=True)) + "."

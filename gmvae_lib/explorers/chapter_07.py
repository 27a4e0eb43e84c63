"""The widget of chapter 7: a point on the latent plane, and a mixture behind the decoder."""

import math

import ipywidgets as widgets
import numpy as np
import torch

from gmvae_lib.evaluation import aggregate_log_prob
from gmvae_lib.explorers.chapter_06 import tile
from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import RATIO, Blitted, style, subplots
from gmvae_lib.gaussian import log_prob_diag, sample_diag
from gmvae_lib.mixture import GaussianMixture


class HoleExplorer(Panel):
    """The plane of a VAE with two latent dimensions: where codes are rarer or denser than the prior says, what the
    decoder draws at a point, and samples of the prior: the standard normal, or K components fitted to codes.

    Arguments:
        model: a `VAE` with d = 2.
        x, held_out: images (N, D) whose codes the mixtures are fitted to, and others, on which rates are measured.
        largest: the largest K.
    """

    COLUMNS, ROWS, EXTENT, STEP = 6, 5, 6.0, 0.1
    HOLE = math.log(10)  # nats: ten times rarer

    def __init__(self, model, x, held_out, place=(0.0, 0.0), n_components=0, largest=20, seed=0):
        if model.encoder.latent_dim != 2:
            raise ValueError(f"The model has {model.encoder.latent_dim} latent dimensions: a plane needs 2.")
        self.model, self.x, self.image_shape = model, x, (int(math.isqrt(x.shape[1])),) * 2
        self._measure(held_out, largest, seed)
        self.z1, self.z2 = (
            widgets.FloatSlider(value, min=-self.EXTENT, max=self.EXTENT, step=self.STEP, description=f"z{i}",
                                readout_format=".1f", layout={"width": "22em"}) for i, value in enumerate(place, 1))
        self.n_components = widgets.IntSlider(n_components, min=0, max=largest, description="K",
                                              layout={"width": "22em"})
        self._before = None
        self._prepare_figure()
        super().__init__([[with_box(self.z1), with_box(self.z2)], [with_box(self.n_components)]],
                         "A widget: the latent plane in colours, for how much denser or rarer the codes are than the "
                         "prior says, with a point; beside it what the decoder draws there, and samples of the prior. "
                         "Two sliders move the point, a third sets the number of the prior's components, when the "
                         "notebook runs.")
        for slider in (self.z1, self.z2, self.n_components):  # not the boxes, which follow
            slider.observe(self.refresh, "value")

    @torch.no_grad()
    def _measure(self, held_out, largest, seed):
        """Everything that does not depend on the point: on the grid log q and each prior's log-density, each prior's
        held-out rate, samples, and share of samples in holes."""
        generator = torch.Generator().manual_seed(seed)
        axis = torch.arange(-self.EXTENT, self.EXTENT + self.STEP / 2, self.STEP)
        grid = torch.cartesian_prod(axis, axis)
        self.shape = (len(axis), len(axis))
        self.posteriors = self.model.encode(self.x)
        codes, held_out = ([part.expand(4, *part.shape) for part in self.model.encode(images)]
                           for images in (self.x, held_out))
        self.codes = codes[0][0]
        fitted, new = (sample_diag(*part, generator).flatten(0, 1) for part in (codes, held_out))
        own = float(log_prob_diag(new, *(part.flatten(0, 1) for part in held_out)).mean())
        self.priors = [self.model.prior.log_prob, *(
            GaussianMixture(k, reg_covar=1e-3, max_iter=300, seed=seed, device="cpu").fit(fitted).score_samples
            for k in range(1, largest + 1))]
        self.log_q = self._on_grid(aggregate_log_prob(self.model, self.x, grid))
        density = [torch.as_tensor(prior(grid)) for prior in self.priors]
        self.log_r = [self._on_grid(values) for values in density]
        self.rates = [own - float(torch.as_tensor(prior(new)).mean()) for prior in self.priors]
        n, self.samples, self.in_holes = self.COLUMNS * self.ROWS, [], []
        for values, log_r in zip(density, self.log_r, strict=True):  # by the grid, so that one noise serves all
            mass = values.double().exp()
            cells = torch.multinomial(mass, n, replacement=True, generator=torch.Generator().manual_seed(seed))
            self.samples.append(grid[cells])
            hole = torch.as_tensor(self.log_q - log_r < -self.HOLE).T.ravel()
            self.in_holes.append(float(mass[hole].sum() / mass.sum()))

    def _on_grid(self, values):
        return values.reshape(self.shape).T.double().numpy()  # rows are z2

    def _prepare_figure(self):
        figure, axes = subplots(1, 3, size=(11.0, 4.4), width_ratios=(1.45, 0.75, 1.1))
        plane, drawn, samples = axes
        half, (height, width) = self.EXTENT + self.STEP / 2, self.image_shape
        with style():
            self._map = plane.imshow(np.zeros(self.shape), origin="lower", extent=(-half, half, -half, half),
                                     interpolation="nearest", **RATIO)
            self._dots, = plane.plot(*self.codes[::2].T, ".", color="black", markersize=2, alpha=0.5)
            self._point, = plane.plot(0, 0, "o", markersize=14, markerfacecolor="none", markeredgecolor="black",
                                      markeredgewidth=3)
            plane.set(xlabel="$z_1$", ylabel="$z_2$", title="log q(z) − log prior (nats)", xlim=(-half, half),
                      ylim=(-half, half))
            bar = figure.colorbar(self._map, ax=plane, extend="both", shrink=0.85)
            bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
            scale = self.model.likelihood.scale
            self._image = drawn.imshow(np.zeros(self.image_shape), cmap="gray_r", vmin=0, vmax=scale)
            canvas = np.zeros((self.ROWS * (height + 1) - 1, self.COLUMNS * (width + 1) - 1))
            self._grid = samples.imshow(canvas, cmap="gray_r", vmin=0, vmax=scale, interpolation="nearest")
            for axis, title in ((drawn, "Decoded at z"), (samples, "Samples of the prior")):
                axis.set(title=title, xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            for axis in axes:
                axis.grid(False)
        self._of_prior = [self._map, self._dots, self._grid]
        self._picture = Blitted(figure, [*self._of_prior, self._point, self._image])
        self._frame = self._picture.background
        self._picture.artists = [self._point, self._image]  # the rest changes with K only: see _show_prior

    @torch.no_grad()
    def draw(self):
        """The picture of this point and this prior, and what they mean in words."""
        k, z = self.n_components.value, torch.tensor([[self.z1.value, self.z2.value]]) + 0.0  # -0.0 becomes 0.0
        self._show_prior(k)
        self._point.set_data(*z.T)
        self._image.set_data(self.model.decode(z).reshape(self.image_shape).numpy())
        log_q = float(torch.logsumexp(log_prob_diag(z, *self.posteriors), 0)) - math.log(len(self.x))  # Eq. (7.3)
        log_r = float(self.priors[k](z))
        return self._picture, self._caption(k, z[0].tolist(), log_q, log_r)

    def _show_prior(self, k):
        """Draws the map and the samples of prior k once, so that a moving point is drawn over them."""
        if k == self._before:
            return
        self._map.set_data(self.log_q - self.log_r[k])
        self._grid.set_data(tile(self.model.decode(self.samples[k]).numpy(), self.image_shape, self.COLUMNS))
        canvas = self._picture.canvas
        canvas.restore_region(self._frame)
        for artist in self._of_prior:
            artist.axes.draw_artist(artist)
        self._picture.background = canvas.copy_from_bbox(self._picture.figure.bbox)

    def _caption(self, k, z, log_q, log_r):
        name = "N(0, I)" if k == 0 else f"the mixture, K = {k}"
        words = (f"At z = ({signed(z[0], 1)}, {signed(z[1], 1)}): log q = {signed(log_q, 1)}, log of {name} = "
                 f"{signed(log_r, 1)}. {verdict(log_q - log_r, self.HOLE)} Behind {name}, held-out images have a rate "
                 f"of {self.rates[k]:.2f} nats, and {self.in_holes[k]:.0%} of its samples fall into holes.")
        if self._before is not None and self._before != k:
            change = self.rates[k] - self.rates[self._before]
            words += (f" K changed from {self._before} to {k}: the rate {'rose' if change > 0 else 'fell'} by "
                      f"{abs(change):.2f} nats.")
        self._before = k
        return words


def verdict(log_ratio, hole):
    """What log q(z) - log p(z) says about a place, in words."""
    if log_ratio < -20:
        return "There are no codes here at all: <b>a hole</b>."
    times = math.exp(abs(log_ratio))
    times = f"{times:.1f}" if times < 10 else f"{float(f'{times:.2g}'):,.0f}"
    if log_ratio < -hole:
        return f"Codes are {times} times rarer here than the prior says: <b>a hole</b>."
    if log_ratio > hole:
        return f"Codes are {times} times denser here than the prior says: it hardly knows this place."
    return f"Codes are {times} times {'rarer' if log_ratio < 0 else 'denser'} than the prior says: no hole."

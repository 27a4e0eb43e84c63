"""The widget of chapter 11: does q cover the posterior, and what does the bound make of it?"""

import copy
import math

import ipywidgets as widgets
import numpy as np
import torch
from torch import nn

from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, Blitted, style, subplots
from gmvae_lib.gaussian import log_prob_diag, sample_diag
from gmvae_lib.network import Encoder
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


def quick_plane(x, epochs=60, seed=0):
    """A VAE of images x (N, 64) with two latent dimensions and a smooth decoder (tanh), so that sums over a grid of z
    are as good as integrals; trained in seconds."""
    torch.manual_seed(seed)
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    model = VAE(Encoder(64, 2, (128, 128)), decoder)
    fit(model, x, epochs=epochs, lr=3e-3, seed=seed, device="cpu", progress=False)
    return model


def _log_joint(model, image, z):
    """log p(x, z) of one image (D,) at z (..., 2)."""
    return model.likelihood.log_prob(image, model.decoder(z)) + model.prior.log_prob(z.flatten(0, -2)).reshape(
        z.shape[:-1])


class BoundExplorer(Panel):
    """For one image: the posterior, the q that z is drawn from, and what S draws make of log p(x).

    Arguments:
        model: a `VAE` with d = 2 and a `Binomial` likelihood.
        x: images (N, D), from which some are taken, from the tightest ELBO to the loosest.
        truth: their log p(x), (N,).
        n_images, draws: how many images are taken, and how many draws there are of each.
    """

    WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
    SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    GRID = 61

    def __init__(self, model, x, truth, n_images=12, draws=4000, image=9, widen=1.0, size=10, seed=0):
        if model.encoder.latent_dim != 2:
            raise ValueError(f"The model has {model.encoder.latent_dim} latent dimensions: a plane needs 2.")
        self.model = copy.deepcopy(model)
        self._measure(x, truth, n_images, draws, seed)
        self.image_number = widgets.IntSlider(min(image, n_images), min=1, max=n_images, description="image",
                                              layout={"width": "22em"})
        self.widen = widgets.SelectionSlider(options=self.WIDTHS, value=widen, description="widen",
                                             layout={"width": "22em"})
        self.draws = widgets.SelectionSlider(options=self.SIZES, value=size, description="draws S",
                                             layout={"width": "22em"})
        self._before = None
        self._prepare_figure()
        super().__init__([[with_box(self.image_number)], [self.widen, self.draws]],
                         "A widget: for one image the posterior on the latent plane, the outline of the q that draws "
                         "come from and some draws; beside it estimates of log p(x) over the number of draws, with the "
                         "truth as a line. Sliders choose the image, how much q is widened, and the number of draws, "
                         "when the notebook runs.")
        self.image_number.observe(self.refresh, "value")

    @torch.no_grad()
    def _measure(self, x, truth, n_images, draws, seed):
        """Everything that does not depend on the controls: which images, their posteriors, and the log-weights of the
        draws for each width."""
        mean, log_var = self.model.encode(x)
        generator = torch.Generator().manual_seed(seed)
        first = sample_diag(mean.expand(8, *mean.shape), log_var.expand(8, *mean.shape), generator)
        joint = self.model.likelihood.log_prob(x, self.model.decoder(first)) + self.model.prior.log_prob(
            first.flatten(0, 1)).reshape(8, -1)
        gap = torch.as_tensor(truth) - (joint - log_prob_diag(first, mean, log_var)).mean(0)
        ranks = torch.linspace(0, 0.985 * (len(x) - 1), n_images).round().long()
        chosen = gap.argsort()[ranks]
        self.x, self.truth = x[chosen], torch.as_tensor(truth)[chosen].tolist()
        self.mean, self.sd = mean[chosen], (0.5 * log_var[chosen]).exp()
        self.noise = torch.randn(draws, 2, generator=generator)
        self.log_w = torch.empty(n_images, len(self.WIDTHS), draws)
        self.maps = [self._posterior(i) for i in range(n_images)]
        for i in range(n_images):
            for j, widen in enumerate(self.WIDTHS):
                z = self.mean[i] + widen * self.sd[i] * self.noise
                log_q = log_prob_diag(z, self.mean[i], 2 * (widen * self.sd[i]).log())
                self.log_w[i, j] = _log_joint(self.model, self.x[i], z) - log_q

    def _posterior(self, i):
        """(extent, posterior density on a grid, 1 at its top) in a window that holds q and the posterior."""
        axis = torch.linspace(-6, 6, 241)
        plane = torch.cartesian_prod(axis, axis)
        weight = _log_joint(self.model, self.x[i], plane).softmax(0)
        order = weight.argsort(descending=True)
        kept = plane[order[:int((weight[order].cumsum(0) < 0.99).sum()) + 1]]
        low = torch.minimum(kept.amin(0), self.mean[i] - 3 * self.sd[i])
        high = torch.maximum(kept.amax(0), self.mean[i] + 3 * self.sd[i])
        half, center = 0.65 * float((high - low).max()), (low + high) / 2
        axes = [torch.linspace(float(c) - half, float(c) + half, self.GRID) for c in center]
        density = _log_joint(self.model, self.x[i], torch.cartesian_prod(*axes))
        density = (density - density.max()).exp().reshape(self.GRID, self.GRID).T
        return (*(float(a[e]) for a in axes for e in (0, -1)),), density.numpy()

    def _prepare_figure(self):
        figure, (plane, axis) = subplots(1, 2, size=(10.5, 4.4), width_ratios=(1, 1.25))
        with style():
            self._map = plane.imshow(np.zeros((self.GRID, self.GRID)), origin="lower", extent=(0, 1, 0, 1),
                                     transform=plane.transAxes, cmap="Blues", vmin=0, vmax=1, zorder=0)
            self._dots, = plane.plot([], [], ".", color="black", markersize=3, alpha=0.6)
            self._outline, = plane.plot([], [], color=COLORS[1], linewidth=2.5)
            plane.set(xlabel="$z_1$", ylabel="$z_2$", title="Posterior (blue), q's 2 sd (line), draws",
                      xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
            plane.grid(False)
            self._estimates, = axis.plot([], [], "o", color=COLORS[0], markersize=4, alpha=0.35, label="one estimate")
            self._curve, = axis.plot([], [], "-", color=COLORS[1], linewidth=2.5, label="their mean")
            self._truth, = axis.plot([1, 1000], [0, 0], "--", color="black", label="log p(x)")
            axis.set(xscale="log", xlim=(0.7, 1500), xlabel="draws S", ylabel="nats above log p(x)",
                     title="What S draws say")
            axis.set_yscale("symlog", linthresh=2)
            axis.set(ylim=(-100, 20), yticks=(-100, -30, -10, -3, -1, 0, 1, 3, 10))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
            axis.legend(loc="lower right")
        self._picture = Blitted(figure, [self._map, self._dots, self._outline, self._estimates, self._curve,
                                         self._truth])

    def draw(self):
        """The picture of this image, this width and this number of draws, and what they mean in words."""
        i, widen, size = self.image_number.value - 1, self.widen.value, self.draws.value
        log_w = self.log_w[i, self.WIDTHS.index(widen)]
        (left, right, bottom, top), density = self.maps[i]
        corner, extent = torch.tensor([left, bottom]), torch.tensor([right - left, top - bottom])
        self._map.set_data(density)
        z = (self.mean[i] + widen * self.sd[i] * self.noise[:size] - corner) / extent
        self._dots.set_data(*z.T)
        angle = torch.linspace(0, 2 * math.pi, 100).unsqueeze(1)
        circle = torch.cat([angle.cos(), angle.sin()], 1)
        self._outline.set_data(*((self.mean[i] + 2 * widen * self.sd[i] * circle - corner) / extent).T)
        estimates = {s: (log_w[:len(log_w) // s * s].reshape(-1, s).logsumexp(1) - math.log(s) - self.truth[i])
                     for s in self.SIZES}
        self._curve.set_data(self.SIZES, [float(values.mean()) for values in estimates.values()])
        shown = estimates[size][:200]
        self._estimates.set_data([size] * len(shown), shown)
        return self._picture, self._caption(i, widen, size, log_w, estimates)

    def _caption(self, i, widen, size, log_w, estimates):
        gap, spread = -float(estimates[size].mean()), float(estimates[size].std())
        sets = log_w[:len(log_w) // size * size].reshape(-1, size)
        ess = (2 * sets.logsumexp(1) - (2 * sets).logsumexp(1)).exp().mean()
        words = (f"Image {i + 1}, q widened {widen:g} times, {size} draw{'s' if size > 1 else ''}: the bound is "
                 f"{signed(gap, 2)} nats below log p(x) = {signed(self.truth[i], 1)}; estimates scatter by "
                 f"{spread:.2f}; effective sample size {float(ess):.1f} on average.")
        state = (i, widen, size)
        if self._before is not None and self._before[0] != state and self._before[0][0] == i:
            change = self._before[1] - gap
            what = "Widening" if self._before[0][1] != widen else "The number of draws"
            words += f" {what} changed the bound by {signed(change, 2)} nats."
        self._before = state, gap
        return words

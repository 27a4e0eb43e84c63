"""The widget of chapter 0: a finished mixture-prior VAE."""

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from gmvae_lib.evaluation import clustering_accuracy
from gmvae_lib.explorers.panel import Panel, with_box
from gmvae_lib.figures import (
    COLORS,
    Blitted,
    ellipse,
    style,
)
from gmvae_lib.prior import MixturePrior


class GMVAEExplorer(Panel):
    """A trained mixture-prior VAE of images: K and beta move, and the latent map, each component's samples, and the
    reconstructions follow at once.

    The networks serve every beta. For each K and beta the prior follows from a stored partition of the training images
    into K clusters: its M-step, and two more steps of EM, on the encoder's Gaussians at that beta.
    Arguments:
        model: a `VAE` gated by beta.
        partitions: (max K, N) components of the training images, row K - 1 for K components.
        train, test: `Dataset`s; labels of the test set only measure how well components and classes agree.
    """

    COLUMNS, ROWS = 20, 8  # of the samples' grid, shared among the components
    MOSAIC, SIZE, RATIOS = [["map", "samples"], ["map", "strip"]], (11.5, 5.4), {"width_ratios": (1, 1.55),
                                                                                 "height_ratios": (8, 2.4)}
    TITLE = ("A widget: a mixture-prior VAE of handwritten digits. Sliders set the number of components K and the "
             "rate's weight beta; a map of the latent space, samples of each component, and held-out digits with their "
             "reconstructions follow when the notebook runs.")

    def __init__(self, model, partitions, train, test, n_components=10, beta=1.0):
        self.model, self.partitions, self.test = model, partitions, test
        self.train_x, self.test_x = model.check(train.x), model.check(test.x)
        generator = torch.Generator().manual_seed(0)
        dim = model.encoder.latent_dim
        self.grid_noise = torch.randn(self.COLUMNS, self.ROWS, dim, generator=generator)
        self.code_noise = torch.randn(len(test), dim, generator=generator)
        self.k = widgets.IntSlider(n_components, 1, len(partitions), description="K", layout={"width": "24em"})
        self.beta = widgets.FloatLogSlider(beta, base=10, min=-2, max=2, step=0.1, description="β",
                                           readout_format=".2f", layout={"width": "24em"})
        self.state = None
        self._prepare_figure()
        super().__init__([[with_box(self.k), with_box(self.beta)]], self.TITLE)

    def prior(self, n_components, beta):
        """The mixture prior for K components at this beta, by EM from the stored partition."""
        mean, log_var = self.model.encode(self.train_x, beta)
        prior = MixturePrior(n_components, mean.shape[1], "full", min_var=1e-3)
        resp = torch.nn.functional.one_hot(self.partitions[n_components - 1], n_components).to(mean)
        for _ in range(3):
            prior.update(mean, log_var, resp)
            resp = prior.responsibilities(mean, log_var)
        return prior

    def _prepare_figure(self):
        with torch.no_grad():
            codes = self.model.encode(self.test_x, 0.3)[0].numpy(force=True)
        self.center = codes.mean(0)
        self.axes = np.linalg.svd(codes - self.center, full_matrices=False)[2][:2]
        extent = 1.15 * np.abs((codes - self.center) @ self.axes.T).max(0)
        height, width = self.test.image_shape
        shape = (self.ROWS * (height + 1) - 1, self.COLUMNS * (width + 1) - 1)
        figure = Figure(figsize=self.SIZE, layout="constrained")
        with style():
            axes = figure.subplot_mosaic(self.MOSAIC, **self.RATIOS)
            self._points = axes["map"].scatter(*np.zeros((2, len(self.test))), s=14, alpha=0.75)
            self._outlines = LineCollection([], linewidths=2)
            axes["map"].add_collection(self._outlines)
            self._names = [axes["map"].text(0, 0, str(k + 1), ha="center", va="center", fontsize=11, fontweight="bold",
                                            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "alpha": 0.85})
                           for k in range(len(self.partitions))]
            axes["map"].set(title="Codes of held-out digits, by component", xlim=(-extent[0], extent[0]),
                            ylim=(-extent[1], extent[1]), xlabel="first principal axis of z",
                            ylabel="second principal axis of z")
            scale = self.model.likelihood.scale
            self._samples = axes["samples"].imshow(np.zeros(shape), vmin=0, vmax=scale, interpolation="nearest")
            self._heads = [axes["samples"].text(0, -2, str(k + 1), ha="center", va="bottom", fontsize=11,
                                                fontweight="bold") for k in range(len(self.partitions))]
            axes["samples"].set_title("Samples of each component", pad=18)
            axes["samples"].set_axis_off()
            rest = self._prepare_rest(axes)
        self._picture = Blitted(figure, [self._points, self._outlines, *self._names, self._samples, *self._heads,
                                         *rest])

    def _prepare_rest(self, axes):
        """Sets up what stands below the samples, and returns the artists that will change."""
        height, width = self.test.image_shape
        blank = np.zeros((2 * height + 1, self.COLUMNS * (width + 1) - 1))
        self._strip = axes["strip"].imshow(blank, vmin=0, vmax=self.model.likelihood.scale, interpolation="nearest")
        axes["strip"].set_title("Held-out digits, and their reconstructions below")
        axes["strip"].set_axis_off()
        return [self._strip]

    def _draw_rest(self, prior, beta, mean, labels):
        pairs = torch.stack([self.test_x[:self.COLUMNS], self.model.decode(mean[:self.COLUMNS], beta)], 1)
        self._strip.set_data(self._tiles(pairs.flatten(0, 1), 2))

    def _tiles(self, images, rows):
        """Images (COLUMNS * rows, D), column by column, as one array with blank lines between."""
        height, width = self.test.image_shape
        tiles = np.pad(images.numpy(force=True).reshape(self.COLUMNS, rows, height, width),
                       ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        return tiles.transpose(1, 2, 0, 3).reshape(rows * (height + 1), -1)[:-1, :-1]

    @torch.no_grad()
    def draw(self):
        """The picture for K and beta, and what the last move did, in words."""
        n_components, beta = self.k.value, self.beta.value
        prior, mean, labels, distortion, rate = self._measure(n_components, beta)
        self._draw_map(prior, mean, labels)
        share = torch.arange(self.COLUMNS) * n_components // self.COLUMNS
        z = prior.means[share, None] + (prior.scale_tril[share, None] @ self.grid_noise.unsqueeze(-1)).squeeze(-1)
        self._samples.set_data(self._tiles(self.model.decode(z.flatten(0, 1), beta), self.ROWS))
        width = self.test.image_shape[1] + 1
        for k, head in enumerate(self._heads):
            head.set_visible(k < n_components)
            if k < n_components:
                columns = (share == k).nonzero().double()
                head.set(x=float(columns.mean() + 0.5) * width - 1, color=COLORS[k % 10])
        self._draw_rest(prior, beta, mean, labels)
        accuracy = clustering_accuracy(self.test.y, labels)
        return self._picture, self._caption(n_components, beta, rate, distortion, accuracy)

    @torch.no_grad()
    def _measure(self, n_components, beta):
        """The prior, and of held-out digits: means and components, and the averages of distortion and rate."""
        prior = self.prior(n_components, beta)
        mean, log_var = self.model.encode(self.test_x, beta)
        z = mean + (0.5 * log_var).exp() * self.code_noise
        distortion = -float(self.model.likelihood.log_prob(self.test_x, self.model.decoder(z, beta)).mean())
        rate = float(prior.rate(mean, log_var).mean())
        return prior, mean, prior.responsibilities(mean, log_var).argmax(1), distortion, rate

    def _draw_map(self, prior, mean, labels):
        colors = np.array([to_rgba(COLORS[k % 10]) for k in range(prior.n_components)])
        self._points.set_offsets((mean.numpy() - self.center) @ self.axes.T)
        self._points.set_facecolors(colors[labels])
        means = (prior.means.numpy() - self.center) @ self.axes.T
        covariances = self.axes @ prior.covariances.numpy() @ self.axes.T
        self._outlines.set_segments([ellipse(m, c, 1.5) for m, c in zip(means, covariances, strict=True)])
        self._outlines.set_colors(colors)
        for k, name in enumerate(self._names):
            name.set_visible(k < prior.n_components)
            if k < prior.n_components:
                name.set_position(means[k])

    def _caption(self, n_components, beta, rate, distortion, accuracy):
        words = (f"<b>K = {n_components}, β = {beta:.3g}.</b> On held-out digits, the code costs {rate:.1f} nats (the "
                 f"rate), and drawing the image from its code {distortion:.1f} nats (the distortion). ")
        if n_components > 1:
            words += f"Paired off one to one, components and digits agree for {accuracy:.0%} of the images. "
        if self.state is not None and self.state[:2] != (n_components, beta):
            k, b, r, d = self.state
            moved = [f"{name} {'rose' if new > old else 'fell'}" for name, new, old in
                     (("K", n_components, k), ("β", beta, b)) if new != old]
            words += (f"{' and '.join(moved)}: the code became {abs(rate - r):.1f} nats "
                      f"{'longer' if rate > r else 'shorter'}, ")
            words += ("and the drawing stayed as it was, because K changes only the prior." if b == beta else
                      f"and the drawing {abs(distortion - d):.1f} nats {'worse' if distortion > d else 'better'}.")
        self.state = (n_components, beta, rate, distortion)
        return words

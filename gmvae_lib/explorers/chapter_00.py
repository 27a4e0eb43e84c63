"""The widget of chapters 0 and 9: a finished mixture-prior VAE, and what its clusters are worth."""

from functools import lru_cache
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch.nn.functional import one_hot

from gmvae_lib.evaluation import ari, clustering_accuracy, homogeneity, match_clusters, nmi, purity
from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import COLORS, MARKERS, Blitted, Labels, apart, discriminant_plane, ellipse, style
from gmvae_lib.prior import MixturePrior


class Codes(NamedTuple):
    """What the networks make of the images at one beta, whatever K is: means and log-variances (N, d) of training and
    held-out images, and of the latter the mean distortion, and some drawn again from a random code."""

    train: tuple
    test: tuple
    distortion: float
    rebuilt: torch.Tensor


class Clusters(NamedTuple):
    """K components at one beta: the prior, and of held-out images the components (N,), the mean rate, and scores."""

    prior: MixturePrior
    labels: torch.Tensor
    rate: float
    scores: dict


class GMVAEExplorer(Panel):
    """A trained mixture-prior VAE of images: K and beta move, and at once there follow the latent map, each component's
    samples, reconstructions, which classes each component holds, five scores, and the held-out bound.

    The networks serve every beta. For each K and beta the prior follows from a stored partition of the training images
    into K clusters: its M-step, and two more steps of EM, on the encoder's Gaussians at that beta.
    Arguments:
        model: a `VAE` gated by beta.
        partitions: (max K, N) components of the training images, row K - 1 for K components.
        train, test: `Dataset`s; labels of the test set only measure how well components and classes agree.
    """

    COLUMNS, ROWS = 20, 7  # of the samples' grid, shared among the components
    # Pixels: left, top, width, height; one pixel of a digit is 4 x 4 of the picture's.
    SIZE = (1150, 690)
    PLACES = {"map": (66, 30, 336, 316), "samples": (424, 52, 716, 248), "strip": (424, 330, 716, 68),
              "confusion": (62, 448, 400, 184), "scores": (592, 448, 190, 184), "bound": (880, 448, 256, 184)}
    TITLE = ("A widget: a mixture-prior VAE of handwritten digits. Sliders set the number of components K and the "
             "rate's weight beta; a map of the latent space, samples of each component, held-out digits with their "
             "reconstructions, a table of digits against components, five scores, and the held-out bound for every K "
             "follow when the notebook runs.")
    SCORES = {"accuracy": clustering_accuracy, "NMI": nmi, "ARI": ari, "purity": purity, "homogeneity": homogeneity}

    def __init__(self, model, partitions, train, test, n_components=10, beta=1.0):
        self.model, self.partitions, self.test = model, partitions, test
        self.train_x, self.test_x = model.check(train.x), model.check(test.x)
        generator = torch.Generator().manual_seed(0)
        dim = model.encoder.latent_dim
        self.grid_noise = torch.randn(self.COLUMNS, self.ROWS, dim, generator=generator)
        self.code_noise = torch.randn(len(test), dim, generator=generator)
        # What was seen once comes back at once; a few megabytes.
        self.codes, self.clusters = lru_cache(maxsize=64)(self._codes), lru_cache(maxsize=512)(self._clusters)
        self.k = widgets.IntSlider(n_components, 1, len(partitions), description="K", layout={"width": "24em"})
        self.beta = widgets.FloatLogSlider(beta, base=10, min=-2, max=2, step=0.1, description="β",
                                           readout_format=".2f", layout={"width": "24em"})
        self.state = None
        self._prepare_figure()
        super().__init__([[with_box(self.k), with_box(self.beta)]], self.TITLE)

    @torch.no_grad()
    def _codes(self, beta):
        train, (mean, log_var) = self.model.encode(self.train_x, beta), self.model.encode(self.test_x, beta)
        params = self.model.decoder(mean + (0.5 * log_var).exp() * self.code_noise, beta)
        distortion = -float(self.model.likelihood.log_prob(self.test_x, params).mean())
        return Codes(train, (mean, log_var), distortion, self.model.likelihood.mean(params[:self.COLUMNS]))

    @torch.no_grad()
    def prior(self, n_components, beta):
        """The mixture prior for K components at this beta, by EM from the stored partition."""
        mean, log_var = self.codes(beta).train
        prior = MixturePrior(n_components, mean.shape[1], "full", min_var=1e-3)
        prior.update(mean, log_var, one_hot(self.partitions[n_components - 1], n_components).float())
        for _ in range(2):
            prior.update(mean, log_var)
        return prior

    @torch.no_grad()
    def _clusters(self, n_components, beta):
        prior, (mean, log_var) = self.prior(n_components, beta), self.codes(beta).test
        labels = prior.responsibilities(mean, log_var).argmax(1)
        scores = {name: score(self.test.y, labels) for name, score in self.SCORES.items()}
        return Clusters(prior, labels, float(prior.rate(mean, log_var).mean()), scores)

    def _prepare_figure(self):
        prior = self.prior(min(10, len(self.partitions)), 1.0)
        self.axes = discriminant_plane((prior.weights, prior.means, prior.covariances))
        places = np.concatenate([self._on_map(self.codes(beta).test[0]) for beta in (0.1, 1.0)])
        limits = np.stack([places.min(0) - 1, places.max(0) + 1], 1)
        width, height = self.SIZE
        figure = Figure(figsize=(width / 100, height / 100))
        with style():
            axes = {name: figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))
                    for name, (left, top, wide, tall) in self.PLACES.items()}
            artists = [*self._prepare_map(axes["map"], *limits), *self._prepare_images(axes["samples"], axes["strip"]),
                       *self._prepare_table(axes["confusion"]), *self._prepare_scores(axes["scores"]),
                       *self._prepare_bound(axes["bound"])]
        self._picture = Blitted(figure, artists)
        self._draw(len(self.partitions), 1.0)  # with all the colours there are
        self._picture.keep_palette()

    def _prepare_map(self, axes, xlim, ylim):
        self._points = axes.scatter(*np.zeros((2, len(self.test))), s=14, alpha=0.75, linewidths=0)
        self._outlines = axes.add_collection(LineCollection([], linewidths=2))
        self._discs = axes.scatter([], [], s=230, facecolor="white", edgecolor="black", alpha=0.85, linewidths=1)
        self._names = Labels(axes, 11)
        self._disc = 0.08 * (xlim[1] - xlim[0])  # its diameter, in the plane
        axes.set(title="Codes of held-out digits, by component", xlim=xlim, ylim=ylim,
                 xlabel="first discriminant axis of z", ylabel="second discriminant axis of z")
        return self._points, self._outlines, self._discs, self._names

    def _prepare_images(self, samples, strip):
        width, settings = self.COLUMNS * (self.test.image_shape[1] + 1) - 1, {"vmin": 0, "interpolation": "nearest"}
        settings["vmax"] = self.model.likelihood.scale
        tall = self.ROWS * (self.test.image_shape[0] + 1) - 1
        self._samples = samples.imshow(np.zeros((tall, width)), **settings)
        self._heads = Labels(samples, 11)
        samples.set_title("Samples of each component", pad=24)
        self._strip = strip.imshow(np.zeros((2 * self.test.image_shape[0] + 1, width)), **settings)
        strip.set_title("Held-out digits, and below each drawn again from its code")
        for axes in (samples, strip):
            axes.set_axis_off()
        return self._samples, self._heads, self._strip

    def _prepare_table(self, axes):
        digits = range(int(self.test.y.max()) + 1)
        self._table = axes.imshow(np.zeros((len(digits), len(self.partitions))), cmap="Blues", vmin=0, vmax=1,
                                  aspect="auto", interpolation="nearest")
        self._columns = Labels(axes, 9)
        axes.set(title="Where the digits went", ylabel="digit", xticks=[])
        axes.set_yticks(digits, digits, fontsize=9)
        axes.set_xlabel("component", labelpad=17)
        axes.grid(False)
        return self._table, self._columns

    def _prepare_scores(self, axes):
        rows = range(len(self.SCORES))
        self._bars = axes.hlines(rows, 0, np.zeros(len(rows)), color=COLORS[0], linewidth=13)
        self._values = Labels(axes, 10, horizontal="left", weight="normal")
        axes.set(title="Scores", xlim=(0, 1.25), xticks=(0, 0.5, 1), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(rows, self.SCORES)
        axes.grid(False)
        return self._bars, self._values

    def _prepare_bound(self, axes):
        counts = range(1, len(self.partitions) + 1)
        self.bounds = {k: -self.codes(1.0).distortion - self.clusters(k, 1.0).rate for k in counts}
        axes.plot(counts, self.bounds.values(), color=COLORS[8], marker=".")
        self._here = axes.plot([1], [self.bounds[1]], MARKERS[1], color=COLORS[1], markersize=10)[0]
        axes.set(title="Held-out bound at β = 1", xlabel="K", ylabel="−(D + R) (nats)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes.grid(False)
        return [self._here]

    def _tiles(self, images, rows):
        """Images (COLUMNS * rows, D), column by column, as one array with blank lines between."""
        height, width = self.test.image_shape
        tiles = np.pad(images.numpy(force=True).reshape(self.COLUMNS, rows, height, width),
                       ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        return tiles.transpose(1, 2, 0, 3).reshape(rows * (height + 1), -1)[:-1, :-1]

    def draw(self):
        """The picture for K and beta, and what the last move did, in words."""
        n_components, beta = self.k.value, self.beta.value
        codes, clusters = self._draw(n_components, beta)
        return self._picture, self._caption(n_components, beta, clusters, codes.distortion)

    @torch.no_grad()
    def _draw(self, n_components, beta):
        codes, clusters = self.codes(beta), self.clusters(n_components, beta)
        colors = np.array([to_rgba(COLORS[k % 10]) for k in range(n_components)])
        self._draw_map(clusters, codes.test[0], colors)
        self._draw_samples(clusters.prior, beta, colors)
        self._strip.set_data(self._tiles(torch.stack([self.test_x[:self.COLUMNS], codes.rebuilt], 1).flatten(0, 1), 2))
        self._draw_worth(clusters, n_components, colors)
        return codes, clusters

    def _on_map(self, z):
        """Codes z (N, d) in the plane in which ten components at beta = 1 are farthest apart, (N, 2)."""
        return z.numpy(force=True) @ self.axes.T

    def _draw_map(self, clusters, codes, colors):
        self._points.set_offsets(self._on_map(codes))
        self._points.set_facecolors(colors[clusters.labels])
        means, covariances = self._on_map(clusters.prior.means), clusters.prior.covariances.numpy(force=True)
        covariances = self.axes @ covariances @ self.axes.T
        self._outlines.set_segments([ellipse(m, c, 1.5) for m, c in zip(means, covariances, strict=True)])
        self._outlines.set_colors(colors)
        places = apart(means, self._disc)
        self._discs.set_offsets(places)
        self._names.write([str(k + 1) for k in range(len(places))], places)

    def _draw_samples(self, prior, beta, colors):
        share = torch.arange(self.COLUMNS) * len(colors) // self.COLUMNS
        z = prior.means[share, None] + (prior.scale_tril[share, None] @ self.grid_noise.unsqueeze(-1)).squeeze(-1)
        self._samples.set_data(self._tiles(self.model.decode(z.flatten(0, 1), beta), self.ROWS))
        middles = [float((share == k).nonzero().double().mean()) for k in range(len(colors))]
        places = [[(middle + 0.5) * (self.test.image_shape[1] + 1) - 1, -5] for middle in middles]
        self._heads.write([str(k + 1) for k in range(len(colors))], places, colors)

    def _draw_worth(self, clusters, n_components, colors):
        y, most = self.test.y, len(self.partitions)
        counts = torch.zeros(int(y.max()) + 1, n_components)
        counts.index_put_((y, clusters.labels), torch.ones(len(y)), accumulate=True)
        matched = match_clusters(y, clusters.labels)
        order = sorted(range(n_components), key=lambda k: (matched.get(k, most), k))
        self._table.set_data((counts[:, order] / counts.sum(1, keepdim=True)).numpy())
        self._table.set_extent((-0.5, most - 0.5, len(counts) - 0.5, -0.5))
        places = [[(place + 0.5) * most / n_components - 0.5, len(counts) + 0.3] for place in range(n_components)]
        self._columns.write([str(k + 1) for k in order], places, colors[order])
        values = list(clusters.scores.values())
        self._bars.set_segments([[(0, row), (value, row)] for row, value in enumerate(values)])
        self._values.write([f"{value:.2f}" for value in values], [[v + 0.04, row] for row, v in enumerate(values)])
        self._here.set_data([n_components], [self.bounds[n_components]])

    def _caption(self, n_components, beta, clusters, distortion):
        rate, accuracy = clusters.rate, clusters.scores["accuracy"]
        words = (f"<b>K = {n_components}, β = {beta:.3g}.</b> On held-out digits, the code costs {rate:.1f} nats (the "
                 f"rate), and drawing the image from its code {distortion:.1f} nats (the distortion). ")
        if n_components > 1:
            words += (f"Paired off one to one, components and digits agree for {accuracy:.0%} of the images; "
                      f"{clusters.scores['purity']:.0%} show their component's commonest digit (purity: it rises with "
                      "K and is no accuracy). ")
        words += f"At β = 1 the held-out bound is {signed(self.bounds[n_components], 1)} nats for this K. "
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

"""The widgets. A `Panel` is a picture that follows its controls; each subclass says what to draw.

Before a cell is run, and where there is no kernel, readers see the panel's static picture; run, it becomes live.
Pictures go to a `widgets.Image`, which nbval and static viewers tolerate; errors are shown in the panel.
"""

import html
import io
import math
import traceback
import warnings

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from gmvae_lib import em
from gmvae_lib.data import load
from gmvae_lib.evaluation import clustering_accuracy
from gmvae_lib.figures import (
    COLORS,
    LINES,
    MARKERS,
    Picture,
    blend,
    ellipse,
    full_covariances,
    shares,
    style,
    subplots,
)
from gmvae_lib.gaussian import log_prob_diag
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


class Panel:
    """Controls, a picture, and a caption that says in words what the controls changed.

    Subclasses set up what they need, then call `super().__init__(controls, title)`, and implement `draw`.
    controls: widgets, or lists of widgets (a list becomes a row). Those with a value redraw the picture when it moves.
    """

    def __init__(self, controls, title):
        self.title = title
        # Its own size: stretched to the cell's width, it would be blurred.
        self.image = widgets.Image(format="png", layout={"align_self": "flex-start", "max_width": "100%"})
        self.image.add_class("gmvae-picture")
        self.status = widgets.HTML()
        self.status.add_class("gmvae-status")
        rows = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) if isinstance(row, list) else row
                for row in controls]
        self.box = widgets.VBox([*rows, self.image, self.status])
        self.box.add_class("gmvae-panel")
        self._quiet, self.picture = False, None
        for row in controls:
            for control in row if isinstance(row, list) else [row]:
                if isinstance(control, widgets.HBox):  # a slider with its number box, which follows it
                    control = control.children[0]
                if hasattr(control, "value") and not isinstance(control, widgets.HTML):
                    control.observe(self.refresh, "value")
        self.refresh()

    def draw(self):
        """Returns (Picture, caption) for the controls' present values. The picture's figure may be kept and reused."""
        raise NotImplementedError

    def refresh(self, change=None):
        """Draws again. An error is shown in the panel, since nobody sees what a callback raises."""
        if self._quiet:
            return
        try:
            picture, caption = self.draw()
        except Exception as error:  # shown to the reader, in the panel
            self.error = error
            lines = traceback.format_exception_only(error)
            self.status.value = f"<p role='alert'><b>This did not work.</b> {html.escape(lines[-1].strip())}</p>"
            return
        self.error = None
        self.picture = picture
        self.image.value = picture.png()
        self.status.value = f"<p role='status'>{caption}</p>"

    def set_quietly(self, **values):
        """Sets several controls (attributes of this panel) and draws once."""
        self._quiet = True
        try:
            for name, value in values.items():
                getattr(self, name).value = value
        finally:
            self._quiet = False
        self.refresh()

    def _repr_mimebundle_(self, include=None, exclude=None):
        figure = self.picture.figure if self.picture else Figure(figsize=(6, 1))  # blank, where nothing could be drawn
        data, metadata = Picture(figure, self.title)._repr_mimebundle_()
        view = self.box._repr_mimebundle_()
        return data | {key: value for key, value in view.items() if key.startswith("application/")}, metadata


def with_box(slider):
    """The slider with a number box beside it, for readers who would rather type; the two follow each other."""
    whole, logarithmic = isinstance(slider, widgets.IntSlider), isinstance(slider, widgets.FloatLogSlider)
    low, high = (slider.base**slider.min, slider.base**slider.max) if logarithmic else (slider.min, slider.max)
    kind = widgets.BoundedIntText if whole else widgets.BoundedFloatText

    def shown(value):
        return value if whole else float(f"{value:.3g}")

    box = kind(shown(slider.value), min=low, max=high, step=0.01 if logarithmic else slider.step,
               layout={"width": "6em"})

    def type_into_slider(change):
        if change["new"] != shown(slider.value):  # else the box only shows, rounded, what the slider has
            slider.value = change["new"]

    slider.observe(lambda change: box.set_trait("value", shown(change["new"])), "value")
    box.observe(type_into_slider, "value")
    return widgets.HBox([slider, box])


# Chapter 05: the variational autoencoder


def quick_vae(data, latent_dim=2, epochs=60, seed=0):
    """A small VAE of `data`, a `Dataset` of images, trained in seconds: a preview of what chapter 5 builds."""
    torch.manual_seed(seed)
    model = VAE.build(data.x.shape[1], latent_dim, hidden=(128, 128))
    fit(model, data, epochs=epochs, lr=2e-3, seed=seed, device="cpu", progress=False)
    return model


class LatentExplorer(Panel):
    """A point on the plane of a VAE with two latent dimensions: the map, what the decoder draws there, and the nearest
    encoded image.

    Arguments:
        model: a `VAE` with d = 2.
        data: a `Dataset` of images to encode; its labels only mark the map's points.
        start: where the point stands first.
    """

    def __init__(self, model, data, start=(0.0, 0.0)):
        if model.encoder.latent_dim != 2:
            raise ValueError(f"The model has {model.encoder.latent_dim} latent dimensions: a plane needs 2.")
        self.model, self.data = model, data
        with torch.no_grad():
            self.codes = model.encode(model.check(data.x))[0].cpu()
        self.extent = max(3.0, math.ceil(float(self.codes.abs().max())))
        self.z1, self.z2 = (
            widgets.FloatSlider(value, min=-self.extent, max=self.extent, step=0.1, description=f"z{i}",
                                readout_format=".1f", layout=widgets.Layout(width="24em"))
            for i, value in enumerate(start, 1))
        self._prepare_figure()
        super().__init__([[with_box(self.z1), with_box(self.z2)]],
                         f"A widget: a point among the encoded {data.name} on the latent plane, the image that the "
                         "decoder draws there, and the nearest encoded image. Two sliders move the point when the "
                         "notebook runs.")
        for slider in (self.z1, self.z2):  # not the boxes: they follow, and would draw everything twice
            slider.observe(self.refresh, "value")

    def _prepare_figure(self):
        """The figure, drawn once; only the point, the line to its neighbour and the two images change later."""
        figure, (plane, drawn, nearest) = subplots(1, 3, size=(9.6, 4.2), width_ratios=(1.5, 1, 1))
        with style():
            for i, label in enumerate(self.data.y.unique().tolist()):
                plane.plot(*self.codes[self.data.y == label].T, MARKERS[i % 10], color=COLORS[i % 10], markersize=4,
                           alpha=0.7, label=str(label))
            plane.legend(fontsize=9, markerscale=1.4, handletextpad=0, borderaxespad=0, loc="center left",
                         bbox_to_anchor=(1.01, 0.5))
            limits = (-self.extent - 0.2, self.extent + 0.2)
            plane.set(title="Encoded images and z", xlabel="$z_1$", ylabel="$z_2$", xlim=limits, ylim=limits)
            self._point, = plane.plot(0, 0, "o", markersize=14, markerfacecolor="none", markeredgecolor="black",
                                      markeredgewidth=3)
            self._line, = plane.plot([0, 0], [0, 0], color="black", linewidth=1.5)
            blank = torch.zeros(self.data.image_shape).numpy()
            self._images = []
            for axis, title in ((drawn, "Decoded at z"), (nearest, "Nearest encoded image")):
                self._images.append(axis.imshow(blank, cmap="gray_r", vmin=0, vmax=self.model.likelihood.scale))
                axis.set(title=title, xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                axis.grid(False)
        self._picture = Blitted(figure, [self._line, self._point, *self._images])
        self._previous = None

    def draw(self):
        """The point's picture, and where it stands in words."""
        z = torch.tensor([self.z1.value, self.z2.value]) + 0.0  # -0.0 becomes 0.0
        with torch.no_grad():
            image = self.model.decode(z.unsqueeze(0).to(self.model.device))[0].cpu()
        distances = (self.codes - z).norm(dim=1)
        nearest = int(distances.argmin())
        self._point.set_data(*z.unsqueeze(1))
        self._line.set_data(*torch.stack([z, self.codes[nearest]], 1))
        for artist, pixels in zip(self._images, (image, self.data.x[nearest]), strict=True):
            artist.set_data(pixels.reshape(self.data.image_shape).numpy())
        around = self.data.y[distances.topk(15, largest=False).indices]
        majority = int(around.mode().values)
        label = int(self.data.y[nearest])
        caption = (f"At z = ({z[0]:.1f}, {z[1]:.1f}) the nearest encoded image shows "
                   f"{'an' if label == 8 else 'a'} {label}, "
                   f"{float(distances[nearest]):.2f} away; of the 15 nearest, {int((around == majority).sum())} show "
                   f"{'an' if majority == 8 else 'a'} {majority}.")
        if float(distances[nearest]) > 0.5:
            caption += " No image was encoded here: the decoder makes this one up."
        if self._previous is not None:
            change = float((image - self._previous).abs().mean())
            caption += f" The last move changed a pixel by {change:.1f} grey levels on average."
        self._previous = image
        return self._picture, caption


class Blitted(Picture):
    """A picture of which only some artists change: the rest is drawn once and kept, which makes `png` much faster."""

    def __init__(self, figure, artists, alt="", dpi=100):
        super().__init__(figure, alt)
        self.artists, self.dpi = artists, dpi
        figure.set_dpi(dpi)
        self.canvas = FigureCanvasAgg(figure)
        for artist in artists:
            artist.set_animated(True)
        self.canvas.draw()
        figure.set_layout_engine("none")
        self.background = self.canvas.copy_from_bbox(figure.bbox)

    def png(self, dpi=None):
        """The picture as PNG bytes, at the resolution it was made for."""
        self.canvas.restore_region(self.background)
        for artist in self.artists:
            artist.axes.draw_artist(artist)
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3]).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


# Chapter 00: a finished mixture-prior VAE


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
        super().__init__([[with_box(self.k), with_box(self.beta)]],
                         "A widget: a mixture-prior VAE of handwritten digits. Sliders set the number of components K "
                         "and the rate's weight beta; a map of the latent space, samples of each component, and "
                         "held-out digits with their reconstructions follow when the notebook runs.")

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
        figure = Figure(figsize=(11.5, 5.4), layout="constrained")
        with style():
            axes = figure.subplot_mosaic([["map", "samples"], ["map", "strip"]], width_ratios=(1, 1.55),
                                         height_ratios=(self.ROWS, 2.4))
            self._points = axes["map"].scatter(*np.zeros((2, len(self.test))), s=14, alpha=0.75)
            self._outlines = LineCollection([], linewidths=2)
            axes["map"].add_collection(self._outlines)
            self._names = [axes["map"].text(0, 0, str(k + 1), ha="center", va="center", fontsize=11, fontweight="bold",
                                            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "alpha": 0.85})
                           for k in range(len(self.partitions))]
            axes["map"].set(title="Codes of held-out digits, by component", xlim=(-extent[0], extent[0]),
                            ylim=(-extent[1], extent[1]), xlabel="first principal axis of z",
                            ylabel="second principal axis of z")
            blank, scale = np.zeros(shape), self.model.likelihood.scale
            self._samples = axes["samples"].imshow(blank, vmin=0, vmax=scale, interpolation="nearest")
            self._heads = [axes["samples"].text(0, -2, str(k + 1), ha="center", va="bottom", fontsize=11,
                                                fontweight="bold") for k in range(len(self.partitions))]
            self._strip = axes["strip"].imshow(np.zeros((2 * height + 1, shape[1])), vmin=0, vmax=scale,
                                               interpolation="nearest")
            axes["samples"].set_title("Samples of each component", pad=18)
            axes["strip"].set_title("Held-out digits, and their reconstructions below")
            for name in ("samples", "strip"):
                axes[name].set_axis_off()
        self._picture = Blitted(figure, [self._points, self._outlines, *self._names, self._samples, *self._heads,
                                         self._strip])

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
        prior = self.prior(n_components, beta)
        mean, log_var = self.model.encode(self.test_x, beta)
        labels = prior.responsibilities(mean, log_var).argmax(1)
        z = mean + (0.5 * log_var).exp() * self.code_noise
        distortion = -float(self.model.likelihood.log_prob(self.test_x, self.model.decoder(z, beta)).mean())
        rate = float(prior.rate(mean, log_var).mean())
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
        pairs = torch.stack([self.test_x[:self.COLUMNS], self.model.decode(mean[:self.COLUMNS], beta)], 1)
        self._strip.set_data(self._tiles(pairs.flatten(0, 1), 2))
        accuracy = clustering_accuracy(self.test.y, labels)
        return self._picture, self._caption(n_components, beta, rate, distortion, accuracy)

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


# Chapter 02: EM step by step


class EMExplorer(Panel):
    """EM for a Gaussian mixture on 2-D toys, forward and backward, from a start that the reader chooses or moves.

    A run is computed once, when its start changes, so that stepping through it only draws.
    Arguments:
        data: the toy to begin with, a name that `load` knows.
        n_components, covariance_type, seed: of the first start, random data points with equal weights.
        means: (K, 2), in place of the first start's random points.
        step: the step of the run to show first.
    """

    TOYS = ("cigars", "blobs", "unequal", "rings", "moons")
    FAMILIES = ("full", "diag", "spherical", "tied")
    MOST = 8  # components
    GRID = 0.25  # of the start's sliders: exact in binary, or the browser would round what it is shown and send it back
    POINTS, STEPS, TOL = 300, 50, 1e-4  # points, steps at most, and the rise (nats per point) that ends a run

    def __init__(self, data="cigars", n_components=3, covariance_type="full", seed=0, means=None, step=0):
        wide, narrow = {"width": "20em"}, {"width": "14em"}
        self.back, self.on, self.reset, self.another = (
            widgets.Button(description=text, layout={"width": "9em"})
            for text in ("◀ Back", "Step ▶", "Reset", "Another start"))
        self.iteration = widgets.IntSlider(0, 0, self.STEPS, description="step", readout=False, layout=wide)
        self.data = widgets.Dropdown(options=self.TOYS, value=data, description="data", layout=narrow)
        self.k = widgets.IntSlider(n_components, 1, self.MOST, description="K", readout=False, layout=wide)
        self.family = widgets.Dropdown(options=self.FAMILIES, value=covariance_type, description="covariance",
                                       layout=narrow)
        self.component = widgets.IntSlider(1, 1, self.MOST, description="mean no.", readout=False, layout=wide)
        self.x1, self.x2 = (widgets.FloatSlider(0, min=-8, max=8, step=self.GRID, description=f"start x{i}",
                                                readout=False, layout={"width": "17em"}) for i in (1, 2))
        self.seed, self._given, self._runs, self._last = seed, means, {}, {}
        self.back.on_click(lambda _: self._go(self.iteration.value - 1))
        self.on.on_click(lambda _: self._go(self.iteration.value + 1))
        self.reset.on_click(lambda _: self._restart(self.seed))
        self.another.on_click(lambda _: self._restart(self.seed + 1))
        self._prepare_figure()
        super().__init__([[with_box(self.iteration), self.back, self.on], [with_box(self.k), self.data, self.family],
                          [with_box(self.component), with_box(self.x1), with_box(self.x2)],
                          [self.another, self.reset]],
                         "A widget: points coloured by responsibility, the outlines of a Gaussian mixture's components "
                         "and the paths of their means, beside the log-likelihood after each step of EM. When the "
                         "notebook runs, controls step through EM, choose K, family and data, and move the start.")
        for slider in (self.iteration, self.k, self.component, self.x1, self.x2):  # not the boxes: they follow
            slider.observe(self.refresh, "value")
        self._go(step)

    def _go(self, step):
        self.iteration.value = min(max(step, 0), len(self._run[1]) - 1)

    def _restart(self, seed):
        """The start of that number, unmoved."""
        self.seed, self._given = seed, self._given if seed == self.seed else None
        self._last.pop("k")
        self.refresh()

    def _prepare_figure(self):
        figure, (self._plane, self._curve) = subplots(1, 2, size=(10.4, 4.6), width_ratios=(1.35, 1))
        with style():
            plane, curve = self._plane, self._curve
            self._clouds = [plane.scatter([], [], marker=MARKERS[k], s=22, linewidths=0) for k in range(self.MOST)]
            self._outlines = [plane.plot([], [], "k", linestyle=LINES[k % 4])[0] for k in range(self.MOST)]
            self._paths = [plane.plot([], [], color="black", linewidth=1.2, marker="o", markersize=9, markevery=[0],
                                      markerfacecolor="white", markeredgewidth=1.5)[0] for k in range(self.MOST)]
            self._names = [plane.text(0, 0, str(k + 1), ha="center", va="center", fontsize=12, fontweight="bold",
                                      color="white", clip_on=True, bbox={"boxstyle": "circle,pad=0.2",
                                                                         "facecolor": color, "edgecolor": "black"})
                           for k, color in enumerate(COLORS[:self.MOST])]
            self._whole, = curve.plot([], [], ":", color=COLORS[9], label="the whole run")
            self._done, = curve.plot([], [], color=COLORS[0], label="so far")
            self._now, = curve.plot([], [], "o", color=COLORS[1], markersize=12, label="present step")
            plane.set(title="Points, outlines and the means' paths", xlabel="$x_1$", ylabel="$x_2$")
            plane.set_aspect("equal")  # so that spherical components are circles
            curve.set(title="Log-likelihood", xlabel="step", ylabel="nats per point")
            curve.legend(loc="lower right")
            curve.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
            curve.yaxis.set_major_formatter("{x:.2f}")
        self._figure = figure

    def draw(self):
        """The picture of the present step, and in words what the last change did."""
        self._quiet = True  # controls that follow others must not draw
        try:
            said = self._follow()
            self.iteration.value = min(self.iteration.value, len(self._run[1]) - 1)
        finally:
            self._quiet = False
        run, t = self._run, self.iteration.value
        self._draw_step(run, t)
        return self._picture, said + self._describe(run, t)

    def _follow(self):
        """Brings start, run and controls in line with what the reader changed; says what that was."""
        names = ("data", "k", "family", "component", "x1", "x2")
        now = {name: getattr(self, name).value for name in names}
        changed = {name for name in names if self._last.get(name) != now[name]}
        said = ""
        if "data" in changed:
            self._x = load(self.data.value, n_samples=self.POINTS).x.double()
            self._set_limits()
        if changed & {"data", "k"}:
            self._start = self._new_start()
            said = f"Start number {self.seed + 1} for K = {self.k.value} on {self.data.value}. "
        elif changed & {"x1", "x2"} and "component" not in changed:
            self._start = self._start.clone()
            mean = self._start[self.component.value - 1]
            for i, name in enumerate(("x1", "x2")):
                if name in changed:
                    mean[i] = now[name]
            place = f"({_signed(float(mean[0]), 2)}, {_signed(float(mean[1]), 2)})"
            said = f"Component {self.component.value} now starts at {place}. "
        elif "component" in changed:
            said = (f"The sliders now move the start of component {self.component.value}, the one with the "
                    "yellow ring. ")
        if "family" in changed and self._last:
            said += f"The covariances are now {self.family.value}. "
        self.component.value = min(self.component.value, self.k.value)
        mean = self._start[self.component.value - 1]
        self.x1.value, self.x2.value = (min(max(self.GRID * round(v / self.GRID), -8), 8) for v in mean.tolist())
        if changed - {"component"}:
            self._run = self._find_run()
            self.iteration.value = 0
        self._last = {name: getattr(self, name).value for name in names}
        return said

    def _new_start(self):
        if self._given is not None and len(self._given) == self.k.value:
            return torch.as_tensor(self._given, dtype=torch.float64)
        order = torch.randperm(len(self._x), generator=torch.Generator().manual_seed(self.seed))
        return self._x[order[:self.k.value]]

    def _find_run(self):
        """All steps from the present start: ([Parameters], [log-likelihood]), from the cache if they are there."""
        kind, n_components = self.family.value, self.k.value
        key = (self.data.value, kind, tuple(self._start.flatten().tolist()))
        if key not in self._runs:
            if len(self._runs) > 50:
                self._runs.clear()
            eye, var = torch.eye(2, dtype=torch.float64), self._x.var(0).mean() / n_components
            shape = {"full": eye.expand(n_components, 2, 2), "diag": eye.new_ones(n_components, 2),
                     "spherical": eye.new_ones(n_components), "tied": eye}[kind]
            now = em.Parameters(eye.new_full((n_components,), 1 / n_components), self._start, var * shape)
            steps, history = [], []
            with warnings.catch_warnings(action="ignore"):  # a component without data is named in the caption
                while len(steps) <= self.STEPS and (len(history) < 2 or history[-1] - history[-2] >= self.TOL):
                    steps.append(now)
                    now, log_likelihood = em.em_step(self._x, now, kind, 1e-4)
                    history.append(log_likelihood)
            self._runs[key] = steps, history
        return self._runs[key]

    def _set_limits(self):
        """What stays while the reader looks at one data set, so that runs can be compared; drawn once."""
        eye = torch.eye(2, dtype=torch.float64)
        one = em.em_step(self._x, em.Parameters(eye[:1, 0], self._x[:1], eye[None]))[0]
        single = em.em_step(self._x, one)[1]  # one Gaussian's log-likelihood
        self._lowest = single - 1.5
        middle, half = (self._x.amin(0) + self._x.amax(0)) / 2, (self._x.amax(0) - self._x.amin(0)) / 2 + 1
        half = half.maximum(half.flip(0) * torch.tensor([1.1, 0.8]))  # fills the panel, which is wider than high
        limits = torch.stack([middle - half, middle + half], 1).tolist()
        self._plane.set(xlim=limits[0], ylim=limits[1])
        self._curve.set(xlim=(-1, self.STEPS + 1), ylim=(self._lowest - 0.1, single + 1.8))
        self._picture = Blitted(self._figure, [*self._clouds, *self._outlines, *self._paths, *self._names,
                                               self._whole, self._done, self._now])

    def _draw_step(self, run, t):
        steps, history = run
        now, n_components = steps[t], self.k.value
        full = torch.as_tensor(full_covariances(now.covariances, self.family.value, n_components, 2))
        resp = shares(self._x, now.weights, now.means, full).numpy()
        colors, likeliest = blend(resp), resp.argmax(1)
        for k in range(self.MOST):
            for artist in (self._clouds[k], self._outlines[k], self._paths[k], self._names[k]):
                artist.set_visible(k < n_components)
            if k < n_components:
                mine = likeliest == k
                self._clouds[k].set_offsets(self._x.numpy()[mine])
                self._clouds[k].set_facecolors(colors[mine])
                self._outlines[k].set_data(*ellipse(now.means[k], full[k]).T)
                self._paths[k].set_data(*torch.stack([step.means[k] for step in steps[:t + 1]]).T.numpy())
                self._names[k].set_position(now.means[k].tolist())
                chosen = k == self.component.value - 1  # whose start the sliders move
                self._paths[k].set(markersize=12 if chosen else 8, markerfacecolor=COLORS[4] if chosen else "white")
                self._names[k].get_bbox_patch().set(edgecolor=COLORS[4] if chosen else "black",
                                                    linewidth=3.5 if chosen else 1)
        shown = [max(value, self._lowest) for value in history]
        self._whole.set_data(range(len(shown)), shown)
        self._done.set_data(range(t + 1), shown[:t + 1])
        self._now.set_data([t], [shown[t]])

    def _describe(self, run, t):
        steps, history = run
        last = len(history) - 1
        if t == 0:
            words = (f"Step 0 of {last}, the start: the log-likelihood is {_signed(history[0], 2)} nats per point.")
        else:
            rise = history[t] - history[t - 1]
            change = steps[t].weights - steps[t - 1].weights
            k = int(change.abs().argmax())
            words = (f"Step {t} of {last}: the log-likelihood rose by {rise:.4f} to {_signed(history[t], 2)} nats per "
                     "point. ")
            if change[k].abs() < 0.005:
                words += "No component's share of the points changed by half a percent."
            else:
                words += (f"Component {k + 1} now claims {steps[t].weights[k]:.0%} of the points, "
                          f"{'up' if change[k] > 0 else 'down'} from {steps[t - 1].weights[k]:.0%}.")
        if dead := [k + 1 for k, weight in enumerate(steps[t].weights.tolist()) if weight * len(self._x) < 0.01]:
            words += f" Component {', '.join(map(str, dead))} claims no point at all."
        if t == last:
            words += " EM has converged." if last < self.STEPS else " The run was stopped here."
        return words


def _signed(value, digits):
    return f"{value:.{digits}f}".replace("-", "−")


# Chapter 08: the mixture-prior VAE


def quick_gmvae(data, n_components=10, latent_dim=10, seed=0):
    """A GMVAE of `data`, a `Dataset` of images, trained in seconds: a preview of what chapter 8 builds."""
    torch.manual_seed(seed)
    model = VAE.build(data.x.shape[1], latent_dim, hidden=(128, 128))
    settings = {"lr": 2e-3, "seed": seed, "device": "cpu", "progress": False}
    fit(model, data, epochs=50, beta=0.1, **settings)
    start = GaussianMixture(n_components, n_init=10, max_iter=300, reg_covar=1e-2, seed=seed, device="cpu")
    start.fit(model.encode(data.x)[0].detach())
    model.prior = MixturePrior(n_components, latent_dim, "full")
    model.prior.set_parameters(start.weights_, start.means_, start.covariances_)
    fit(model, data, epochs=30, prior_update="em", **settings)
    return model


class RateExplorer(Panel):
    """Two unit Gaussian components on a line and one encoder: place and width of the encoder, and the components'
    distance, set the three rates of chapter 8."""

    NAMES = ("exact", "collapsed", "joint, γ = π")
    SHOWN = slice(1000, 2201, 5)  # of the grid that the exact rate is integrated on

    def __init__(self, place=0.0, width=0.5, distance=4.0):
        layout, style_ = {"width": "26em"}, {"description_width": "9em"}
        self.place = widgets.FloatSlider(place, min=-4, max=4, step=0.1, description="encoder's mean m",
                                         layout=layout, style=style_)
        self.width = widgets.FloatSlider(width, min=0.1, max=2.5, step=0.1, description="encoder's σ",
                                         layout=layout, style=style_)
        self.distance = widgets.FloatSlider(distance, min=0, max=6, step=0.2, description="distance",
                                            layout=layout, style=style_)
        self.z = torch.linspace(-16, 16, 3201, dtype=torch.float64).unsqueeze(1)
        self._prepare_figure()
        super().__init__([[with_box(self.place), with_box(self.width)], with_box(self.distance)],
                         "A widget: a prior of two components on a line and one encoder. Sliders move and widen the "
                         "encoder and move the components apart; the densities, the responsibilities and the exact, "
                         "collapsed and joint rate follow when the notebook runs.")

    def rates(self):
        """Exact, collapsed and joint rate, gamma* (2,), and on the grid the prior, q, and p(c = 2 | z)."""
        mean = torch.tensor([[self.place.value]], dtype=torch.float64)
        log_var = 2 * torch.tensor([[self.width.value]], dtype=torch.float64).log()
        prior, half = MixturePrior(2, 1).double(), self.distance.value / 2
        prior.set_parameters(torch.full((2,), 0.5), torch.tensor([[-half], [half]]), torch.ones(2, 1))
        log_q, log_p = log_prob_diag(self.z, mean, log_var), prior.log_prob(self.z)
        exact = (log_q.exp() * (log_q - log_p)).sum() * 0.01
        joint = prior.rate(mean, log_var, "joint", prior.weights.expand(1, 2))
        rates = torch.stack([exact, prior.rate(mean, log_var)[0], joint[0]]).tolist()
        share = (prior.logits.log_softmax(0) + prior.component_log_prob(self.z)).softmax(1)[:, 1]
        return rates, prior.responsibilities(mean, log_var)[0], log_p.exp(), log_q.exp(), share

    def _prepare_figure(self):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        with style():
            axes = figure.subplot_mosaic([["density", "rate"], ["share", "rate"]], height_ratios=(1.7, 1),
                                         width_ratios=(1.5, 1))
            z = self.z[self.SHOWN].ravel()
            self._prior, = axes["density"].plot(z, 0 * z, LINES[0], color=COLORS[0], label="prior p(z)")
            self._q, = axes["density"].plot(z, 0 * z, LINES[1], color=COLORS[1], label="encoder q(z)")
            axes["density"].set(xlim=(-6, 6), ylim=(0, 1), title="Prior and encoder", ylabel="density")
            axes["density"].legend(loc="upper right")
            self._share, = axes["share"].plot(z, 0 * z, LINES[0], color=COLORS[0], label="p(c = 2 | z)")
            self._gamma, = axes["share"].plot([-6, 6], [0, 0], LINES[1], color=COLORS[1], label="γ*, one for all z")
            axes["share"].set(xlim=(-6, 6), ylim=(-0.05, 1.05), xlabel="z", ylabel="share of c = 2")
            axes["share"].legend(loc="upper left", fontsize=10)
            self._bars = axes["rate"].barh(range(3), [1] * 3, color=[COLORS[1], COLORS[2], COLORS[3]], height=0.6)
            self._values = [axes["rate"].text(0, i, "", va="center", ha="left", fontsize=12,
                                              bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
                            for i in range(3)]
            axes["rate"].set(title="Three rates of this encoder", xlim=(0, 10), xlabel="nats (bars end at 10)")
            axes["rate"].set_yticks(range(3), self.NAMES)
            axes["rate"].invert_yaxis()
        self._picture = Blitted(figure, [self._prior, self._q, self._share, self._gamma, *self._bars, *self._values])

    @torch.no_grad()
    def draw(self):
        """The picture, and what the encoder's place means for the rates, in words."""
        rates, gamma, prior, q, share = self.rates()
        for line, values in ((self._prior, prior), (self._q, q), (self._share, share)):
            line.set_ydata(values[self.SHOWN])
        self._gamma.set_ydata([float(gamma[1])] * 2)
        for bar, text, rate in zip(self._bars, self._values, rates, strict=True):
            bar.set_width(min(rate, 10))
            text.set(text=f" {rate:.2f}", x=min(rate, 8.0) + 0.15)
        gap = rates[1] - rates[0]
        verdict = ("no γ fits all the places that the encoder reaches, and the collapsed rate charges for it"
                   if gap > 0.1 else "one γ fits all the places that the encoder reaches: collapsed is nearly exact")
        caption = (f"Encoder at {_signed(self.place.value, 1)} with σ = {self.width.value:.1f}, components "
                   f"{self.distance.value:.1f} apart: exact {rates[0]:.2f}, collapsed {rates[1]:.2f}, joint "
                   f"{rates[2]:.2f} nats. The gap of the first two is {gap:.2f} nats: {verdict}.")
        self._picture.alt = caption
        return self._picture, caption

"""The widgets. A `Panel` is a picture that follows its controls; each subclass says what to draw.

Before a cell is run, and where there is no kernel, readers see the panel's static picture; run, it becomes live. Pictures
go to a `widgets.Image`, which nbval and static viewers tolerate; errors are shown in the panel.
"""

import io
import math
import traceback

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from gmvae_lib.evaluation import clustering_accuracy
from gmvae_lib.figures import COLORS, MARKERS, Picture, ellipse, style, subplots
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


class Panel:
    """Controls, a picture, and a caption that says in words what the controls changed.

    Subclasses set up what they need, then call `super().__init__(controls, title)`, and implement `draw`.
    controls: widgets, or lists of widgets (a list becomes a row). Those with a value redraw the picture when it changes.
    """

    def __init__(self, controls, title):
        self.title = title
        self.image = widgets.Image(format="png")
        self.image.add_class("gmvae-picture")
        self.status = widgets.HTML()
        self.status.add_class("gmvae-status")
        rows = [widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) if isinstance(row, list) else row
                for row in controls]
        self.box = widgets.VBox([*rows, self.image, self.status])
        self.box.add_class("gmvae-panel")
        self._quiet = False
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
            self.status.value = f"<p role='alert'><b>This did not work.</b> {lines[-1].strip()}</p>"
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
        data, metadata = Picture(self.picture.figure, self.title)._repr_mimebundle_()
        view = self.box._repr_mimebundle_()
        return data | {key: value for key, value in view.items() if key.startswith("application/")}, metadata


def with_box(slider):
    """The slider with a number box beside it, for readers who would rather type; the two follow each other."""
    kind = widgets.BoundedIntText if isinstance(slider, widgets.IntSlider) else widgets.BoundedFloatText
    low, high = slider.min, slider.max
    if isinstance(slider, widgets.FloatLogSlider):
        low, high, step = slider.base**low, slider.base**high, 0.01
    else:
        step = slider.step
    box = kind(slider.value, min=low, max=high, step=step, layout={"width": "6em"})
    widgets.link((slider, "value"), (box, "value"))
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
                         f"A widget: a point among the encoded {data.name} on the latent plane, the image that the decoder "
                         "draws there, and the nearest encoded image. Two sliders move the point when the notebook runs.")
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
                axis.grid(False)
        self._picture = Blitted(figure, [self._line, self._point, *self._images])
        self._previous = None

    def draw(self):
        """The point's picture, and where it stands in words."""
        z = torch.tensor([self.z1.value, self.z2.value])
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
        caption = (f"At z = ({z[0]:.1f}, {z[1]:.1f}) the nearest encoded image is a {int(self.data.y[nearest])}, "
                   f"{float(distances[nearest]):.2f} away; of the 15 nearest, {int((around == majority).sum())} are "
                   f"a {majority}.")
        if float(distances[nearest]) > 0.5:
            caption += " No image was encoded here: the decoder makes this one up."
        if self._previous is not None:
            change = float((image - self._previous).abs().mean())
            caption += f" The last move changed a pixel by {change:.1f} grey levels on average."
        self._previous = image
        return self._picture, caption


class Blitted(Picture):
    """A picture of which only some artists change: the rest is drawn once and kept, which makes `png` several times faster."""

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

    COLUMNS, ROWS = 20, 6  # of the samples' grid, shared among the components

    def __init__(self, model, partitions, train, test, n_components=10, beta=0.3):
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
                         "A widget: a mixture-prior VAE of handwritten digits. Sliders set the number of components K and "
                         "the rate's weight beta; a map of the latent space, samples of each component, and held-out "
                         "digits with their reconstructions follow when the notebook runs.")

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
                                         height_ratios=(self.ROWS, 2.1))
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
        words = (f"<b>K = {n_components}, β = {beta:.3g}.</b> On held-out digits, the code costs {rate:.1f} nats (the rate), "
                 f"and drawing the image from its code {distortion:.1f} nats (the distortion). ")
        if n_components > 1:
            words += f"Paired off one to one, components and digits agree for {accuracy:.0%} of the images. "
        if self.state is not None and self.state[:2] != (n_components, beta):
            k, b, r, d = self.state
            moved = [f"{name} {'rose' if new > old else 'fell'}" for name, new, old in
                     (("K", n_components, k), ("β", beta, b)) if new != old]
            words += (f"{' and '.join(moved)}: the code became {abs(rate - r):.1f} nats "
                      f"{'longer' if rate > r else 'shorter'}, and the drawing {abs(distortion - d):.1f} nats "
                      f"{'worse' if distortion > d else 'better'}.")
        self.state = (n_components, beta, rate, distortion)
        return words

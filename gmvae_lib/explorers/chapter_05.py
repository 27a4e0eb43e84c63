"""The widget of chapter 5: a walk on the latent plane."""

import math

import ipywidgets as widgets
import torch

from gmvae_lib.explorers.panel import Panel, with_box
from gmvae_lib.figures import (
    COLORS,
    MARKERS,
    Blitted,
    style,
    subplots,
)
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


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

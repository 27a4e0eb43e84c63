"""The widgets of chapter 6: one network for every beta, and a training to watch."""

import atexit
import math
import threading
import time
import weakref

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

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


class BetaExplorer(Panel):
    """A network gated by beta: at each beta its point on the rate-distortion curve, reconstructions, samples from the
    prior, the codes in two chosen dimensions, and how many of its units are active.

    Arguments:
        model: a `VAE` gated by beta.
        data: a `Dataset` of images, not those it was trained on; labels only mark the map's points.
    """

    COLUMNS = 10  # of images
    STEPS = 81  # of the slider, from 0.01 to 100; the curve is computed at every fourth of them

    def __init__(self, model, data, beta=1.0, n_samples=2):
        self.model, self.data, self.x = model, data, model.check(data.x)
        dim = model.encoder.latent_dim
        generator = torch.Generator().manual_seed(0)
        self.code_noise = torch.randn(n_samples, len(data), dim, generator=generator)
        self.prior_z = model.prior.sample(self.COLUMNS, generator=generator)
        self.beta = widgets.FloatLogSlider(beta, base=10, min=-2, max=2, step=4 / (self.STEPS - 1), description="β",
                                           readout_format=".2f", layout={"width": "26em"})
        spread = self._codes(1.0)[0].var(0).argsort(descending=True).tolist()  # the most active two at beta = 1
        self.across, self.up = (
            widgets.Dropdown(options=[(f"z{i + 1}", i) for i in range(dim)], value=spread[n], description=name,
                             layout={"width": "12em"}) for n, name in enumerate(("across", "up")))
        self.grid = torch.logspace(-2, 2, (self.STEPS - 1) // 4 + 1)
        self.curve = np.array([self.measure(float(b))[:2] for b in self.grid])
        self.state = None
        self._prepare_figure()
        super().__init__([[with_box(self.beta), self.across, self.up]],
                         "A widget: one network for every beta. A slider sets the rate's weight beta; the point on the "
                         "rate-distortion curve, a map of the codes, held-out digits with their reconstructions, and "
                         "samples from the prior follow when the notebook runs.")
        self.beta.observe(self.refresh, "value")  # not its box, which follows

    @torch.no_grad()
    def _codes(self, beta):
        return self.model.encode(self.x, beta)

    @torch.no_grad()
    def measure(self, beta):
        """(rate, distortion, mean (N, d), active units (d,)) on the data, with the same noise for every beta."""
        mean, log_var = self._codes(beta)
        z = mean + (0.5 * log_var).exp() * self.code_noise
        params = self.model.decoder(z.flatten(0, 1), beta).reshape(*z.shape[:2], -1)
        distortion = -float(self.model.likelihood.log_prob(self.x, params).mean())
        return float(self.model.prior.rate(mean, log_var).mean()), distortion, mean, mean.var(0) > 0.01

    def _prepare_figure(self):
        figure = Figure(figsize=(11.5, 4.8), layout="constrained")
        with style():
            axes = figure.subplot_mosaic([["plane", "map", "images"]], width_ratios=(1.05, 1, 1.6))
            axes["plane"].plot(*self.curve.T, color=COLORS[0], label="all β")
            self._tangent, = axes["plane"].plot([0, 1], [0, 1], color=COLORS[1], linestyle="--", linewidth=1.5,
                                                label="slope −β")
            self._point, = axes["plane"].plot(0, 0, "o", color=COLORS[1], markersize=11)
            axes["plane"].set(title="Rate and distortion", xlabel="rate R (nats)", ylabel="distortion D (nats)",
                              xlim=(-1, self.curve[:, 0].max() * 1.05),
                              ylim=(self.curve[:, 1].min() - 12, self.curve[:, 1].max() + 12))
            axes["plane"].legend(loc="upper right", fontsize=10)
            self._clouds = [axes["map"].plot([], [], MARKERS[i % 10], color=COLORS[i % 10], markersize=3.5, alpha=0.7,
                                             label=str(label))[0] for i, label in enumerate(self.data.y.unique())]
            axes["map"].set(title="Codes (means) of held-out digits", xlim=(-4, 4), ylim=(-4, 4))
            self._labels = [axes["map"].text(0.5, -0.1, "", transform=axes["map"].transAxes, ha="center"),
                            axes["map"].text(-0.22, 0.5, "", transform=axes["map"].transAxes, va="center")]
            height, width = self.data.image_shape
            self._grid = axes["images"].imshow(np.zeros((6 * (height + 1) - 1, self.COLUMNS * (width + 1) - 1)), vmin=0,
                                               vmax=self.model.likelihood.scale, interpolation="nearest")
            axes["images"].set_title("Image, drawn again · samples below")
            axes["images"].set_xticks([])
            axes["images"].set_yticks([r * (height + 1) + height / 2 - 0.5 for r in range(6)],
                                      ["image", "again", "image", "again", "sample", "sample"])
            axes["images"].tick_params(length=0)
            axes["images"].grid(False)
            axes["images"].spines[:].set_visible(False)
        self._picture = Blitted(figure, [self._tangent, self._point, *self._clouds, *self._labels, self._grid])

    @torch.no_grad()
    def draw(self):
        """The picture at this beta, and what it means in words."""
        beta = self.beta.value
        rate, distortion, mean, active = self.measure(beta)
        self._point.set_data([rate], [distortion])
        reach = min(6.0, 40 / beta)
        self._tangent.set_data([rate - reach, rate + reach], [distortion + beta * reach, distortion - beta * reach])
        i, j = self.across.value, self.up.value
        codes = mean.numpy()
        for cloud, label in zip(self._clouds, self.data.y.unique(), strict=True):
            chosen = (self.data.y == label).numpy()
            cloud.set_data(codes[chosen, i], codes[chosen, j])
        self._labels[0].set_text(f"$z_{{{i + 1}}}$")
        self._labels[1].set_text(f"$z_{{{j + 1}}}$")
        n = self.COLUMNS
        shown = self.x[:2 * n]
        again = self.model.decode(mean[:2 * n], beta)
        z = torch.cat([self.prior_z, -self.prior_z])
        rows = torch.cat([shown[:n], again[:n], shown[n:], again[n:], self.model.decode(z, beta)])
        self._grid.set_data(tile(rows.numpy(), self.data.image_shape, n))
        return self._picture, self._caption(beta, rate, distortion, int(active.sum()))

    def _caption(self, beta, rate, distortion, active):
        words = (f"<b>β = {beta:.3g}.</b> The code costs {rate:.1f} nats: {worth(rate)}. Drawing the image from its "
                 f"code costs another {distortion:.1f} nats. {active} of {self.model.encoder.latent_dim} units are "
                 f"active. ")
        if self.state is not None and self.state[0] != beta:
            b, r, d = self.state
            words += (f"β {'rose' if beta > b else 'fell'}: the code became {abs(rate - r):.1f} nats "
                      f"{'longer' if rate > r else 'shorter'}, the drawing {abs(distortion - d):.1f} nats "
                      f"{'worse' if distortion > d else 'better'}.")
        self.state = (beta, rate, distortion)
        return words


def worth(rate):
    """What a code of so many nats can say, in words."""
    if rate < 0.05:
        return "nothing, so that every image is drawn alike"
    if rate < 9:
        return f"enough to tell about {float(f'{math.exp(rate):.2g}'):g} images apart"
    return f"about {rate:.0f} nats, enough to tell roughly e<sup>{rate:.0f}</sup> images apart"


def tile(images, image_shape, columns):
    """Images (N, D), row by row, as one array with blank lines between."""
    height, width = image_shape
    framed = np.pad(images.reshape(-1, columns, height, width), ((0, 0), (0, 0), (0, 1), (0, 1)),
                    constant_values=np.nan)
    return framed.transpose(0, 2, 1, 3).reshape(-1, columns * (width + 1))[:-1, :-1]


class LiveTraining(Panel):
    """A training to watch and to steer: start it, move beta while it runs, stop it; the model is kept.

    It runs in a background thread, of which there is never more than one: a new panel (the cell run again), `close`,
    and the kernel's end stop it.

    Arguments:
        data: a `Dataset` of images.
        epochs: how long a training lasts if nobody stops it.
        seconds: the shortest time between two pictures.
    """

    _latest = None  # the last panel made, by a weak reference

    def __init__(self, data, latent_dim=8, epochs=200, beta=1.0, seconds=0.25, seed=0):
        LiveTraining.stop_all()
        self.data, self.latent_dim, self.epochs, self.seconds, self.seed = data, latent_dim, epochs, seconds, seed
        self.start_button = widgets.Button(description="Start", icon="play")
        self.stop_button = widgets.Button(description="Stop", icon="stop", disabled=True)
        self.progress = widgets.IntProgress(0, 0, epochs, description="epochs")
        self.beta = widgets.FloatLogSlider(beta, base=10, min=-2, max=2, step=0.1, description="β",
                                           readout_format=".2f", layout={"width": "26em"})
        self.stopping, self.thread, self.model, self.failure, self.ended = threading.Event(), None, None, None, True
        self.history = []  # (distortion, rate, beta) of each epoch
        self._prepare_figure()
        super().__init__([[with_box(self.beta)], [self.start_button, self.stop_button, self.progress]],
                         "A widget: a training to watch. Buttons start and stop it, a slider moves beta while it runs, "
                         "and the curves of loss, distortion and rate grow epoch by epoch when the notebook runs.")
        LiveTraining._latest = weakref.ref(self)
        self.beta.observe(self.refresh, "value")
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())

    def _prepare_figure(self):
        figure, axes = subplots(1, 2, size=(8.6, 3.0))
        with style():
            curves = (axes[0], 0, "-", "distortion D"), (axes[1], 1, "-", "rate R"), (axes[0], 2, "--", "loss D + βR")
            self._lines = [axis.plot([], [], color=COLORS[i], linestyle=line, label=name)[0]
                           for axis, i, line, name in curves]
            for axis, name, top in zip(axes, ("Loss and distortion", "Rate"), (280, 30), strict=True):
                axis.set(title=name, xlabel="epoch", ylabel="nats per image", xlim=(0, self.epochs), ylim=(0, top))
            axes[0].legend(loc="lower left", fontsize=10)
            self._note = axes[1].text(0.97, 0.9, "", transform=axes[1].transAxes, ha="right")
        self._picture = Blitted(figure, [*self._lines, self._note])

    @property
    def running(self):
        """Whether a training runs at present."""
        return self.thread is not None and self.thread.is_alive()

    def start(self):
        """Starts a new training, after the last one has ended."""
        LiveTraining.stop_all()
        self.stop()
        LiveTraining._latest = weakref.ref(self)
        torch.manual_seed(self.seed)
        self.model = VAE.build(self.data.x.shape[1], self.latent_dim, (128, 128))
        self.history, self.failure, self.ended = [], None, False
        self.stopping.clear()
        self.thread = threading.Thread(target=self._train, daemon=True, name="live training")
        self.start_button.disabled, self.stop_button.disabled = True, False
        self.thread.start()

    def stop(self):
        """Ends the training, if there is one, and waits for it. The model stays as it is then."""
        self.stopping.set()
        if self.running and self.thread is not threading.current_thread():
            self.thread.join()

    def close(self):
        """Ends the training and takes the panel off the page."""
        self.stop()
        super().close()

    @staticmethod
    def stop_all():
        """Ends the training that runs, if there is one, whichever panel it belongs to."""
        panel = LiveTraining._latest and LiveTraining._latest()
        if panel is not None:
            panel.stop()

    def _train(self):
        drawn = [time.monotonic()]

        def each(epoch, history):
            self.history.append((history.distortion[-1], history.rate[-1], history.beta[-1]))
            self.progress.value = epoch + 1
            if time.monotonic() - drawn[0] > self.seconds:
                self.refresh()
                drawn[0] = time.monotonic()
            return self.stopping.is_set()

        try:
            fit(self.model, self.data, self.epochs, beta=lambda _: self.beta.value, lr=2e-3, seed=self.seed,
                device="cpu", progress=False, on_epoch=each)
        except Exception as error:  # shown to the reader, in the panel
            self.failure = error
        self.start_button.disabled, self.stop_button.disabled = False, True
        self.ended = True
        self.refresh()

    def draw(self):
        """The curves so far, and what is going on in words."""
        if self.failure is not None:
            raise self.failure
        done, history = len(self.history), list(self.history)
        curves = zip(*[(d, r, d + beta * r) for d, r, beta in history], strict=True) if history else [()] * 3
        for line, values in zip(self._lines, curves, strict=True):
            line.set_data(range(1, len(values) + 1), values)
        self._note.set_text(f"β = {self.beta.value:.3g}")
        if not history:
            return self._picture, (f"<b>Not started.</b> β = {self.beta.value:.3g} will be the price of a nat of rate. "
                                   "Press Start.")
        distortion, rate, _ = history[-1]
        state = "Running" if not self.ended else "Finished" if done >= self.epochs else "Stopped"
        words = (f"<b>{state}</b>, epoch {done} of {self.epochs}, β = {self.beta.value:.3g}: distortion "
                 f"{distortion:.1f}, rate {rate:.1f} nats an image.")
        if self.ended:
            words += " The model is kept."
        return self._picture, words


atexit.register(LiveTraining.stop_all)  # a thread that still computes while Python ends may crash it

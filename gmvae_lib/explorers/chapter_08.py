"""The widget of chapter 8: three rates."""

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure

from gmvae_lib.explorers.panel import Panel, signed, with_box
from gmvae_lib.figures import (
    COLORS,
    LINES,
    Blitted,
    style,
)
from gmvae_lib.gaussian import log_prob_diag
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


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
        caption = (f"Encoder at {signed(self.place.value, 1)} with σ = {self.width.value:.1f}, components "
                   f"{self.distance.value:.1f} apart: exact {rates[0]:.2f}, collapsed {rates[1]:.2f}, joint "
                   f"{rates[2]:.2f} nats. The gap of the first two is {gap:.2f} nats: {verdict}.")
        self._picture.alt = caption
        return self._picture, caption

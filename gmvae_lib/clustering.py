"""Clusters of images without labels: chapter 9's recipe, the same for the digits and for MNIST.

1. A denoising autoencoder learns latents of slightly moved images.
2. Gaussian mixtures are fitted to them from many starts, on groups: moved copies of one image, its views, share a
   component. The one under which views agree most stays.
3. It becomes the prior of a GMVAE, which is trained on groups.
Neither labels nor held-out images play a part.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning

from gmvae_lib.data import near_float64, random_affine, views
from gmvae_lib.likelihood import Binomial
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit, one_cycle, warm_up
from gmvae_lib.vae import VAE, Elbo


@dataclass(frozen=True)
class Recipe:
    """The recipe's settings; the defaults are the digits'.

    Arguments:
        latent_dim, hidden, precision: the networks, and how they are computed.
        drop, autoencoder_epochs, autoencoder_batch_size: the share of pixels that the autoencoder does not see; how
            long it trains, and on how many images at a time.
        starts, mixture_views, min_var: from how many starts mixtures are fitted, to how many views of each image, and
            the floor under their variances.
        n_views, epochs, batch_size: views of an image in the GMVAE's training, how long it trains, and on how many
            images at a time.
        beta, warm_up_epochs: the weight of the rate, and during how many epochs it rises from 0.
    """

    latent_dim: int = 16
    hidden: tuple = (256, 256)
    precision: str = "float32"
    drop: float = 0.2
    autoencoder_epochs: int = 300
    autoencoder_batch_size: int = 64
    starts: int = 40
    mixture_views: int = 16
    min_var: float = 1e-2
    n_views: int = 4
    epochs: int = 34
    batch_size: int = 128
    beta: float = 2.0
    warm_up_epochs: int = 2


class Clustering(NamedTuple):
    """A trained GMVAE; its loss, distortion + beta * rate in nats per view, averaged over the last third of its
    training; and its `views_agreement`. Of several seeds' models, keep the one with the most agreement (chapter 12)."""

    model: VAE
    loss: float
    agreement: float


class DenoisingAutoencoder(VAE):
    """A VAE's networks without noise and without rate: z is the encoder's mean, given x with a share `drop` of its
    pixels set to 0; the target is x. Source: Vincent et al. (2008)."""

    def __init__(self, vae, drop):
        super().__init__(vae.encoder, vae.decoder, vae.likelihood)
        self.drop = drop

    def elbo(self, x, beta=1.0, method=None, generator=None, validate=True, free_bits=0.0):
        """An `Elbo` with rate 0: `method` and `free_bits` make no difference."""
        x = self.check(x) if validate else x
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.drop
        params = self.decoder(self.encoder(x * kept / self.likelihood.scale)[0]).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            distortion = -self.likelihood.log_prob(x, params)
        return Elbo(distortion, torch.zeros_like(distortion), beta)


def cluster(data, n_components, recipe=None, seed=0, transform=None, likelihood=None, **settings):
    """Finds `n_components` clusters among the images of a `Dataset`; its labels are not looked at.

    Arguments:
        recipe: a `Recipe`, by default the digits'.
        transform: a function (x, generator) -> x that moves images a little; `random_affine` by default.
        likelihood: the VAE's, by default a `Binomial` that counts to the largest pixel.
        settings: passed on to `fit`: device, progress.
    Returns a `Clustering`.
    """
    recipe = Recipe() if recipe is None else recipe
    transform = random_affine(data.image_shape) if transform is None else transform
    settings |= {"seed": seed, "precision": recipe.precision}
    vae = train_autoencoder(data, recipe, transform, likelihood, **settings)
    latents = encode_views(vae, data.x, views(transform, recipe.mixture_views), seed)
    mixtures = fit_mixtures(latents, n_components, recipe.starts, recipe.min_var)
    mixture = max(mixtures, key=lambda mixture: agreement(mixture, latents))
    return train_gmvae(vae, mixture, data, recipe, transform, **settings)


def train_autoencoder(data, recipe, transform, likelihood=None, seed=0, **settings):
    """Step 1: a VAE whose networks were trained as a `DenoisingAutoencoder`."""
    torch.manual_seed(seed)
    likelihood = Binomial(int(data.x.max())) if likelihood is None else likelihood
    vae = VAE.build(data.x.shape[1], recipe.latent_dim, recipe.hidden, likelihood)
    fit(DenoisingAutoencoder(vae, recipe.drop), data, recipe.autoencoder_epochs, lr=one_cycle(2e-3), seed=seed,
        batch_size=recipe.autoencoder_batch_size, transform=transform, **settings)
    return vae


@torch.no_grad()
def encode_views(vae, x, grouped, seed=0, size=1000):
    """The encoder's means (N, V, d) of `grouped` images, in float64, `size` at a time: their views need not all be
    kept."""
    generator = torch.Generator(vae.device).manual_seed(seed)
    parts = (vae.encode(grouped(part, generator))[0] for part in vae.check(x).split(size))
    return torch.cat([near_float64(mean).double() for mean in parts])


def fit_mixtures(latents, n_components, starts, min_var):
    """Full `GaussianMixture`s of points (N, d) or groups (N, V, d), one from each start, where the latents are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training goes on from here in any case
        return [GaussianMixture(n_components, reg_covar=min_var, max_iter=300, seed=start, device=latents.device)
                .fit(latents) for start in range(starts)]


def agreement(mixture, latents):
    """The mean over groups (N, V, d) of log p(z_1, ..., z_V) - sum_v log p(z_v), in nats: how much better views are
    known together than apart, because they share a component. Eq. (9.9)."""
    return mixture.score(latents) - latents.shape[1] * mixture.score(latents.flatten(0, 1))


def views_agreement(vae, x, grouped):
    """The `agreement` of `grouped` images x, with the prior of the vae as the mixture, in nats per image. The moves are
    the same for every model, so that models can be compared."""
    parameters = (value.detach() for value in (vae.prior.weights, vae.prior.means, vae.prior.covariances))
    mixture = GaussianMixture(vae.prior.n_components, vae.prior.covariance_type, device=vae.device)
    return agreement(mixture.set_parameters(*parameters), encode_views(vae, x, grouped))


def train_gmvae(vae, mixture, data, recipe, transform, **settings):
    """Step 3: a `Clustering`; the VAE's prior becomes the mixture, and all is trained together in place."""
    vae.encoder.reset_log_var(-3.0)
    vae.prior = MixturePrior(mixture.n_components, recipe.latent_dim, "full", recipe.min_var).to(vae.device)
    vae.prior.set_parameters(mixture.weights_, mixture.means_, mixture.covariances_)
    history = fit(vae, data, recipe.epochs, warm_up(recipe.beta, recipe.warm_up_epochs / recipe.epochs),
                  recipe.batch_size, transform=views(transform, recipe.n_views), prior_update="em", **settings)
    late = range(len(history) - max(1, len(history) // 3), len(history))
    loss = sum(history.distortion[i] + recipe.beta * history.rate[i] for i in late) / len(late)
    return Clustering(vae, loss, views_agreement(vae, data.x, views(transform, recipe.mixture_views)))

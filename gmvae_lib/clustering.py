"""Clusters of images without labels: chapter 9's recipe, the same for the digits and for MNIST.

1. A denoising autoencoder learns latents of slightly moved images.
2. Gaussian mixtures are fitted to them on groups: moved copies of one image, its views, share a component.
3. Each mixture becomes the prior of a GMVAE, trained on groups. After each round those with the lowest loss go on; the
   last one stays.
Neither labels nor held-out images play a part.
"""

import copy
import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning

from gmvae_lib.data import random_affine, views
from gmvae_lib.evaluation import ari
from gmvae_lib.likelihood import Binomial
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit, one_cycle, warm_up
from gmvae_lib.vae import VAE, Elbo

SAME = 0.97  # adjusted Rand index from which on two partitions count as one


@dataclass(frozen=True)
class Recipe:
    """The recipe's settings; the defaults are the digits'.

    Arguments:
        latent_dim, hidden, precision: the networks, and how they are computed.
        drop, autoencoder_epochs, autoencoder_batch: the share of pixels that the autoencoder does not see; how long it
            trains, and on how many images at a time.
        starts, candidates, mixture_views: how many mixtures are fitted, how many of them are tried as priors (the
            likeliest ones that differ), and to how many views of each image they are fitted.
        min_var: the floor under the components' variances.
        rounds: epochs of the rounds of the GMVAE's training. Each ends with a third of the candidates, the last one
            begins with one.
        n_views, batch_size, beta, warm_up_epochs: views of an image, images at a time, and the weight of the rate in
            that training; in its first round beta rises from 0 during so many epochs.
    """

    latent_dim: int = 16
    hidden: tuple = (256, 256)
    precision: str = "float32"
    drop: float = 0.2
    autoencoder_epochs: int = 300
    autoencoder_batch: int = 64
    starts: int = 80
    candidates: int = 9
    mixture_views: int = 16
    min_var: float = 1e-2
    rounds: tuple = (4, 6, 24)
    n_views: int = 4
    batch_size: int = 128
    beta: float = 2.0
    warm_up_epochs: int = 2


class Clustering(NamedTuple):
    """A trained GMVAE and its loss, distortion + beta * rate in nats per view, averaged over its last round's second
    half: of several seeds' models, the one with the lowest loss is the one to keep."""

    model: VAE
    loss: float


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
    likelihood = Binomial(int(data.x.max())) if likelihood is None else likelihood
    torch.manual_seed(seed)
    vae = VAE.build(data.x.shape[1], recipe.latent_dim, recipe.hidden, likelihood)
    settings |= {"seed": seed, "precision": recipe.precision}
    fit(DenoisingAutoencoder(vae, recipe.drop), data, recipe.autoencoder_epochs, lr=one_cycle(2e-3),
        batch_size=recipe.autoencoder_batch, transform=transform, **settings)
    mixtures = fit_mixtures(vae, data.x, n_components, views(transform, recipe.mixture_views), recipe, seed)
    vae.encoder.reset_log_var(-3.0)
    models = [with_prior(vae, mixture, recipe.min_var) for mixture in mixtures]
    return tournament(models, data, views(transform, recipe.n_views), recipe, **settings)


def fit_mixtures(vae, x, n_components, grouped, recipe, seed=0):
    """Step 2: the likeliest Gaussian mixtures of the latents of `grouped` images, at most `recipe.candidates` of them,
    whose partitions differ. EM starts from seeds by k-means++ among the groups' means, and from a quarter of all views'
    covariance for each component."""
    generator = torch.Generator(vae.device).manual_seed(seed)
    with torch.no_grad():  # some images at a time: their views need not all be kept
        latents = torch.cat([vae.encode(grouped(part, generator))[0].double() for part in vae.check(x).split(1000)])
    quarter = torch.linalg.inv(torch.cov(latents.flatten(0, 1).T) / 4)
    settings = {"reg_covar": recipe.min_var, "weights_init": torch.full((n_components,), 1 / n_components),
                "precisions_init": quarter.expand(n_components, -1, -1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # training goes on from here in any case
        mixtures = [GaussianMixture(n_components, seed=seed * recipe.starts + i, **settings).fit(latents)
                    for i in range(recipe.starts)]
    chosen = {}
    for mixture in sorted(mixtures, key=lambda mixture: -mixture.lower_bound_):
        partition = mixture.predict(latents)
        if len(chosen) < recipe.candidates and all(ari(partition, other) < SAME for other in chosen.values()):
            chosen[mixture] = partition
    return list(chosen)


def with_prior(vae, mixture, min_var):
    """A copy of the VAE whose prior is this fitted `GaussianMixture`, but for the weights, which are equal."""
    model = copy.deepcopy(vae)
    model.prior = MixturePrior(mixture.n_components, vae.encoder.latent_dim, "full", min_var).to(vae.device)
    model.prior.set_parameters(mixture.weights_, mixture.means_, mixture.covariances_)
    equalize(model)
    return model


def equalize(model):
    """Sets all weights of the model's prior to 1 / K."""
    model.prior.logits.data.zero_()


def tournament(models, data, grouped, recipe, **settings):
    """Step 3: trains all models in place, in rounds that each leave the third with the lowest loss: a `Clustering`.

    All see the same views in the same order, so that their losses can be told apart early. Components have equal
    weights throughout: which clusters there are is to be learnt, not that one is large.
    """
    for number, epochs in enumerate(recipe.rounds):
        beta = recipe.beta if number else warm_up(recipe.beta, recipe.warm_up_epochs / epochs)
        found = []
        for model in models if number + 1 < len(recipe.rounds) else models[:1]:
            history = fit(model, data, epochs, beta, recipe.batch_size, transform=grouped, prior_update="em",
                          on_epoch=lambda *_, model=model: equalize(model), **settings)
            late = range(epochs // 2, epochs)
            loss = sum(history.distortion[i] + recipe.beta * history.rate[i] for i in late) / len(late)
            found.append(Clustering(model, loss))
        found.sort(key=lambda one: one.loss)
        models = [one.model for one in found[:math.ceil(len(found) / 3)]]
    return found[0]

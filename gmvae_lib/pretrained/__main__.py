"""Trains the models that come with the course and writes them beside this file: `make checkpoints` (a few minutes).

The recipe for the digits, in which no label plays a part. Steps 1 and 2 are chapter 9's, with `clustering.Recipe()`:
1. a denoising autoencoder learns codes of slightly moved images;
2. for each K = 1..20, Gaussian mixtures are fitted to the codes from 40 starts, on groups: 16 moved copies of an image,
   its views, share a component. The mixture under which views agree most partitions the training images;
3. the autoencoder's layers get gates, so that one network serves every beta, and the mixture of ten becomes its prior.
   All is trained on groups of four views, with another beta for each batch, drawn between 0.01 and 100; the prior, by
   its M-step at beta = 1;
4. from each partition, ten more steps of EM on such groups, in the trained network's codes at beta = 1: some images
   change sides.
"""

import torch
from torch.nn.functional import one_hot

from gmvae_lib.clustering import agreement, encode_views, fit_mixtures, train_autoencoder
from gmvae_lib.data import load, random_affine, views
from gmvae_lib.pretrained import MAX_COMPONENTS, N_COMPONENTS, RECIPE, digits_model, write_shipped
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import decay, fit, log_uniform


def build_digits(recipe=RECIPE, epochs=200, seed=0):
    """Returns (model, partitions) as `load_digits_gmvae` does, freshly trained."""
    data = load("digits")
    move = random_affine(data.image_shape)
    settings = {"seed": seed, "device": "cpu"}
    autoencoder = train_autoencoder(data, recipe, move, **settings)
    latents = encode_views(autoencoder, data.x, views(move, recipe.mixture_views), seed)
    mixtures = [max(fit_mixtures(latents, k, recipe.starts, recipe.min_var), key=lambda m: agreement(m, latents))
                for k in range(1, MAX_COMPONENTS + 1)]
    start, model = mixtures[N_COMPONENTS - 1], digits_model(recipe)
    model.load_state_dict(autoencoder.state_dict(), strict=False)  # all but the gates and the prior
    model.encoder.reset_log_var(-3.0)
    model.prior.set_parameters(start.weights_, start.means_, start.covariances_)
    fit(model, data, epochs, log_uniform(0.01, 100, seed), recipe.batch_size, lr=decay(4e-3),
        transform=views(move, recipe.n_views), prior_update="em", **settings)
    grouped = views(move, recipe.n_views)(model.check(data.x), torch.Generator().manual_seed(seed))
    return model, torch.stack([refine(mixture.predict(latents), mixture.n_components, model, grouped, recipe.min_var)
                               for mixture in mixtures])


@torch.no_grad()
def refine(partition, n_components, model, grouped, min_var, steps=10):
    """The components (N,) of groups (N, V, D) after `steps` of EM in the model's codes, from those in `partition`."""
    mean, log_var = model.encode(grouped, 1.0)
    prior = MixturePrior(n_components, mean.shape[-1], "full", min_var)
    prior.update(mean, log_var, one_hot(partition, n_components).float())
    for _ in range(steps):
        prior.update(mean, log_var)
    return prior.responsibilities(mean, log_var).argmax(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained, partitions = build_digits()
    networks = {name: value.half() for name, value in trained.state_dict().items()}
    write_shipped(networks | {"partitions": partitions.to(torch.uint8)}, "digits.safetensors")

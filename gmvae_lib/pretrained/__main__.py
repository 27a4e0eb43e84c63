"""Trains the models that come with the course and writes them beside this file: `make checkpoints` (a few minutes).

The recipe for the digits, in which no label plays a part:
1. one network for every beta (gated) is trained with a standard normal prior and a small beta on slightly moved images;
2. a Gaussian mixture of its latents becomes its prior. Moved copies of one image share a component (chapter 9), and
   of 15 starts the likeliest is kept;
3. network and prior are trained together, for every beta;
4. for each K, step 2 again partitions the training images into K clusters.
"""

import torch

from gmvae_lib.data import load, random_affine
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.pretrained import MAX_COMPONENTS, N_COMPONENTS, digits_model, write_shipped
from gmvae_lib.prior import StandardNormal
from gmvae_lib.training import fit, log_uniform

N_VIEWS, MIN_VAR = 8, 1e-2


def build_digits(epochs=200, n_init=15, seed=0):
    """Returns (model, partitions) as `load_digits_gmvae` does, freshly trained."""
    torch.manual_seed(seed)
    data, model = load("digits"), digits_model()
    move = random_affine(data.image_shape)
    generator = torch.Generator().manual_seed(seed)
    settings = {"transform": move, "batch_size": 128, "seed": seed, "device": "cpu"}
    mixture_prior, model.prior = model.prior, StandardNormal(model.encoder.latent_dim)
    fit(model, data, epochs, beta=log_uniform(0.02, 0.2, seed), **settings)

    def clusters(n_components, beta):
        views = torch.stack([move(data.x, generator) for _ in range(N_VIEWS)], 1)
        latents = model.encode(model.check(views), beta)[0].detach()
        mixture = GaussianMixture(n_components, "full", n_init=n_init, reg_covar=MIN_VAR, seed=seed).fit(latents)
        return mixture, mixture.predict(latents)

    model.prior = mixture_prior
    start, _ = clusters(N_COMPONENTS, beta=0.05)
    model.prior.set_parameters(start.weights_, start.means_, start.covariances_)
    fit(model, data, epochs, beta=log_uniform(0.01, 100, seed), **settings)
    partitions = torch.stack([clusters(k, beta=0.3)[1] for k in range(1, MAX_COMPONENTS + 1)])
    partitions[N_COMPONENTS - 1] = model.predict(data.x, beta=0.3)
    return model, partitions


if __name__ == "__main__":
    trained, parts = build_digits()
    write_shipped(trained.state_dict() | {"partitions": parts.to(torch.uint8)}, "digits.safetensors")

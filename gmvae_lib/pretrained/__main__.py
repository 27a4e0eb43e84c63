"""Trains the models that come with the course and writes them beside this file: `make checkpoints` (a few minutes).

The recipe for the digits, in which no label plays a part:
1. one network for every beta (gated) is trained with a standard normal prior and a small beta on slightly moved images;
2. a Gaussian mixture of its latents becomes its prior. Moved copies of one image share a component, so
   responsibilities come from the sum of their log-densities, and of 15 starts the likeliest is kept;
3. network and prior are trained together, for every beta;
4. for each K, step 2 again partitions the training images into K clusters.
"""

import hashlib
import json

import torch
from safetensors.torch import save_file

from gmvae_lib import em, families
from gmvae_lib.data import load, random_affine
from gmvae_lib.points import Points
from gmvae_lib.pretrained import FOLDER, MAX_COMPONENTS, N_COMPONENTS, digits_model
from gmvae_lib.prior import StandardNormal
from gmvae_lib.seeding import seed_means
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
        views = [model.encode(model.check(move(data.x, generator)), beta)[0].detach() for _ in range(N_VIEWS)]
        return best_grouped_mixture(torch.stack(views, 1).double(), n_components, n_init, generator)

    model.prior = mixture_prior
    model.prior.set_parameters(*clusters(N_COMPONENTS, beta=0.05)[0])
    fit(model, data, epochs, beta=log_uniform(0.01, 100, seed), **settings)
    partitions = torch.stack([clusters(k, beta=0.3)[1].argmax(1) for k in range(1, MAX_COMPONENTS + 1)])
    partitions[N_COMPONENTS - 1] = model.predict(data.x, beta=0.3)
    return model, partitions


def best_grouped_mixture(z, n_components, n_init, generator):
    """The likeliest mixture of `n_init` starts for groups z (N, V, d), and its responsibilities (N, K)."""
    runs = (grouped_em(z, n_components, generator) for _ in range(n_init))
    return max(runs, key=lambda run: run[2])[:2]


def grouped_em(z, n_components, generator, max_iter=100, tol=1e-3):
    """EM in which the V points of a group share a component: (Parameters, responsibilities, log-likelihood)."""
    n_groups, n_views, dim = z.shape
    seeds = Points(z.mean(1), device="cpu")
    means = seed_means(seeds, n_components, "k-means++", generator) * seeds.scale + seeds.center
    flat = z.reshape(-1, dim)
    covariances = (torch.cov(flat.T) / 4).expand(n_components, dim, dim)
    mixture = families.Parameters(torch.full((n_components,), 1 / n_components, dtype=z.dtype), means, covariances)
    last = -torch.inf
    for _ in range(max_iter):
        points = Points(flat, device="cpu", center=torch.zeros(dim))
        joint = torch.cat([part.clone() for *_, part in em.log_joint(points, mixture, "full")], 1)
        joint = joint.reshape(n_components, n_groups, n_views)
        log_weights = mixture.weights.log()[:, None]
        resp = (joint - log_weights[:, :, None]).sum(2) + log_weights  # the group draws its component once
        log_likelihood = float(em.normalize(resp).mean())
        statistics = em.weighted_sums(flat.T, resp.repeat_interleave(n_views, 1), mixture.means, "full")
        mixture = families.maximization(families.Statistics(*statistics, mixture.means), "full", MIN_VAR, mixture)
        if log_likelihood - last < tol:
            break
        last = log_likelihood
    return mixture, resp.T, log_likelihood


if __name__ == "__main__":
    trained, parts = build_digits()
    path = FOLDER / "digits.safetensors"
    save_file(trained.state_dict() | {"partitions": parts.to(torch.uint8)}, path)
    path.chmod(0o644)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    (FOLDER / "checksums.json").write_text(json.dumps({path.name: checksum}, indent=2) + "\n")
    print(f"wrote {path.name}, {path.stat().st_size / 1e3:.0f} kB")

"""Chapter 9's five seeds on the digits: simpler methods, forty starts three ways, and the whole recipe.

    python -m gmvae_lib.pretrained.clustering          (about five minutes)

writes clustering.json beside this file, and clustering.safetensors: the autoencoder and the GMVAE of the seed whose
GMVAE has the lowest loss. Labels are used for scores alone, and scores are those of held-out images.
"""

import copy
import json
import sys

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from gmvae_lib.clustering import Recipe, agreement, encode_views, fit_mixtures, train_autoencoder, train_gmvae
from gmvae_lib.data import load, random_affine, views
from gmvae_lib.evaluation import ari, clustering_accuracy, mean_elbo, nmi
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.pretrained import FOLDER, read_shipped, write_shipped
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE

SEEDS, RECIPE = range(5), Recipe()


def scores(y, clusters):
    """Accuracy, NMI and ARI, rounded."""
    return [round(score(y, clusters), 4) for score in (clustering_accuracy, nmi, ari)]


def likeliest(x, seed, **settings):
    """The likeliest of ten mixtures of x (N, D)."""
    return GaussianMixture(10, n_init=10, max_iter=300, seed=seed, device="cpu", **settings).fit(x)


def baselines(train, test, seed):
    """Scores of k-means and mixtures on pixels, and of mixtures on ten principal components, of images and of groups.

    The floor under the pixels' variances, 0.1 grey levels squared, is what held-out likelihood asks for.
    """
    k_means = KMeans(10, n_init=10, random_state=seed).fit(train.x)
    moving = train.x.std(0) > 0  # a pixel that is always 0 has no density
    pixels = likeliest(train.x[:, moving], seed, reg_covar=0.1)
    blurred = likeliest(train.x[:, moving], seed, reg_covar=10.0)
    pca = PCA(10, random_state=seed).fit(train.x)
    grouped = views(random_affine(train.image_shape), RECIPE.mixture_views)
    moved = grouped(train.x, torch.Generator().manual_seed(seed))
    reduced, of_moved, held_out = (torch.tensor(pca.transform(x)) for x in (train.x, moved.flatten(0, 1), test.x))
    of_groups = of_moved.unflatten(0, moved.shape[:2])
    found = {"k-means on pixels": torch.tensor(k_means.predict(test.x)).long(),
             "mixture on pixels": pixels.predict(test.x[:, moving]),
             "mixture on pixels, floor 10": blurred.predict(test.x[:, moving]),
             "PCA + mixture": likeliest(reduced, seed, reg_covar=1e-2).predict(held_out),
             "PCA + mixture on groups": likeliest(of_groups, seed, reg_covar=1e-2).predict(held_out)}
    return {name: scores(test.y, clusters) for name, clusters in found.items()}


@torch.no_grad()
def codes(vae, x):
    """Latents of x (N, d), and of views of each, (N, V, d)."""
    return vae.encode(x)[0], encode_views(vae, x, views(random_affine((8, 8)), RECIPE.mixture_views), size=len(x))


def starts(vae, train, test, n_starts=RECIPE.starts):
    """For single images, for four views of which each goes its own way, and for groups of views: the final
    log-likelihood and the held-out accuracy of each start of EM, and for groups the agreement.

    Returns these numbers and, for each kind, the likeliest mixture; under "agreement" the one on groups with the most.
    """
    single, grouped = codes(vae, train.x)
    held_out, found, chosen = vae.encode(test.x)[0].detach(), {}, {}
    for name, z in (("single", single), ("apart", grouped[:, :4].flatten(0, 1)), ("groups", grouped)):
        runs = fit_mixtures(z, 10, n_starts, RECIPE.min_var)
        found[name] = [[round(run.lower_bound_, 4), round(clustering_accuracy(test.y, run.predict(held_out)), 4)]
                       for run in runs]
        chosen[name] = max(runs, key=lambda run: run.lower_bound_)
    agreements = [agreement(run, grouped) for run in runs]
    found["groups"] = [[*row, round(value, 4)] for row, value in zip(found["groups"], agreements, strict=True)]
    chosen["agreement"] = runs[max(range(n_starts), key=agreements.__getitem__)]
    return found, chosen


def run(seed, train, test):
    """One seed: its row of results, its autoencoder and its GMVAE."""
    row = {"seed": seed, "scores": baselines(train, test, seed)}
    transform = random_affine(train.image_shape)
    settings = {"seed": seed, "device": "cpu", "progress": False}
    vae = train_autoencoder(train, RECIPE, transform, **settings)
    row["starts"], chosen = starts(vae, train, test)
    held_out = vae.encode(test.x)[0].detach()
    for name, kind in (("mixture on latents", "single"), ("on groups, by likelihood", "groups"),
                       ("on groups, by agreement", "agreement")):
        row["scores"][name] = scores(test.y, chosen[kind].predict(held_out))
    for name, kind in (("GMVAE, by likelihood", "groups"), ("GMVAE, by agreement", "agreement")):
        model, loss, _ = train_gmvae(copy.deepcopy(vae), chosen[kind], train, RECIPE, transform, **settings)
        row["scores"][name] = scores(test.y, model.predict(test.x))
    row["loss"], row["held-out bound"] = round(loss, 4), round(-sum(mean_elbo(model, test.x)), 3)
    return row, vae, model


def load_clustering():
    """The rows of `run` as shipped, and of the seed with the lowest loss the autoencoder and the GMVAE.

    Raises ValueError as `read_shipped` does.
    """
    tensors = {name: value.float() for name, value in read_shipped("clustering.safetensors").items()}
    models = []
    for name, prior in (("autoencoder", None), ("gmvae", MixturePrior(10, RECIPE.latent_dim, "full", RECIPE.min_var))):
        model = VAE.build(64, RECIPE.latent_dim, RECIPE.hidden, prior=prior)
        model.load_state_dict({key.removeprefix(f"{name}."): value for key, value in tensors.items()
                               if key.startswith(f"{name}.")})
        models.append(model.eval())
    return json.loads((FOLDER / "clustering.json").read_text()), *models


def main():
    train, test = load("digits"), load("digits", "test")
    torch.set_num_threads(1)
    rows, kept = [], None
    for seed in SEEDS:
        row, *models = run(seed, train, test)
        print(seed, row["scores"], row["loss"], file=sys.stderr, flush=True)
        rows.append(row)
        kept = models if row["loss"] <= min(other["loss"] for other in rows) else kept
    names = ("autoencoder", "gmvae")
    tensors = {f"{name}.{key}": value.half() for name, model in zip(names, kept, strict=True)
               for key, value in model.state_dict().items()}
    write_shipped(tensors, "clustering.safetensors")
    (FOLDER / "clustering.json").write_text("[" + ",\n".join(json.dumps(row) for row in rows) + "]\n")


if __name__ == "__main__":
    main()

"""Chapter 12's seeds on MNIST: simpler methods, and chapter 9's recipe, once for a processor and once for a GPU.

    python -m gmvae_lib.pretrained.mnist                             (ten minutes on a GPU, four hours on two cores)
    python -m gmvae_lib.pretrained.mnist --recipe short              (half an hour on two cores)
    python -m gmvae_lib.pretrained.mnist --recipe long --seeds 3 4   (these alone, beside the others' rows)

writes mnist.json beside this file, and mnist.safetensors: of the long recipe, the GMVAE of the seed whose views agree
most. Training images alone are trained on and chosen by. Labels are used for scores alone, and scores are those of the
10,000 test images.
"""

import argparse
import json
import time
from dataclasses import replace

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from gmvae_lib.clustering import Recipe, agreement, encode_views, fit_mixtures, train_autoencoder, train_gmvae
from gmvae_lib.data import load, pick_device, random_affine, views
from gmvae_lib.evaluation import log_likelihood, mean_elbo
from gmvae_lib.likelihood import DynamicBernoulli
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.pretrained import FOLDER, read_shipped, write_shipped
from gmvae_lib.pretrained.clustering import scores
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE

SEEDS = {"short": range(5), "long": range(10)}
SHORT = Recipe(latent_dim=16, hidden=(500, 500), precision="auto", drop=0.15, autoencoder_epochs=30,
               autoencoder_batch_size=256, starts=20, mixture_views=8, min_var=1e-3, n_views=2, epochs=16,
               batch_size=256, beta=2.0, warm_up_epochs=4)
RECIPES = {"short": SHORT, "long": replace(SHORT, autoencoder_epochs=60, n_views=4, epochs=40, beta=3.0)}
MOVES = {"shear": 0.1}
NLL_IMAGES, NLL_DRAWS = 1000, 1000


def baselines(train, test, seed, device):
    """Scores of k-means on pixels, and of the likeliest of ten mixtures on the latents' number of principal
    components."""
    k_means = KMeans(10, n_init=3, random_state=seed).fit(train.x)
    pca = PCA(SHORT.latent_dim, random_state=seed).fit(train.x / 255)
    reduced, held_out = (torch.tensor(pca.transform(data.x / 255)) for data in (train, test))
    mixture = GaussianMixture(10, n_init=10, max_iter=300, seed=seed, device=device).fit(reduced)
    return {"k-means on pixels": scores(test.y, torch.tensor(k_means.predict(test.x)).long()),
            "PCA + mixture": scores(test.y, mixture.predict(held_out))}


def run(seed, train, test, recipe=SHORT, device=None, progress=None):
    """One seed: its row of results, and its GMVAE. The row's "bound" is that of the training images as they are, with
    beta = 1, in nats per image."""
    device = pick_device(device)
    row = {"seed": seed, "device": device.type, "scores": baselines(train, test, seed, device), "seconds": {}}
    transform = random_affine(train.image_shape, **MOVES)
    settings = {"seed": seed, "device": device, "precision": recipe.precision, "progress": progress}
    clock = Clock(row["seconds"])
    vae = train_autoencoder(train, recipe, transform, DynamicBernoulli(), **settings)
    clock("autoencoder")
    latents = encode_views(vae, train.x, views(transform, recipe.mixture_views), seed)
    mixtures = fit_mixtures(latents, 10, recipe.starts, recipe.min_var)
    agreements = [agreement(mixture, latents) for mixture in mixtures]
    clock("starts")
    codes = [vae.encode(vae.check(data.x))[0].detach() for data in (train, test)]
    single = max(fit_mixtures(codes[0], 10, 5, recipe.min_var), key=lambda mixture: mixture.lower_bound_)
    found = [scores(test.y, mixture.predict(codes[1]).cpu()) for mixture in mixtures]
    row["starts"] = [[round(mixture.lower_bound_, 4), each[0], round(value, 4)]
                     for mixture, each, value in zip(mixtures, found, agreements, strict=True)]
    likeliest = max(range(recipe.starts), key=lambda start: mixtures[start].lower_bound_)
    agreed = max(range(recipe.starts), key=agreements.__getitem__)
    row["scores"] |= {"mixture on latents": scores(test.y, single.predict(codes[1]).cpu()),
                      "on groups, by likelihood": found[likeliest], "on groups, by agreement": found[agreed]}
    clock()
    histories = []
    model, loss, agreed_on = train_gmvae(vae, mixtures[agreed], train, recipe, transform, **settings,
                                         on_epoch=lambda _, history: histories.append(history))
    clock("GMVAE")
    history = histories[-1]
    row["scores"]["GMVAE"] = scores(test.y, model.predict(test.x).cpu())
    row |= {"loss": round(loss, 4), "agreement": round(agreed_on, 4), "precision": history.precision,
            "curve": [[round(value, 3) for value in point]
                      for point in zip(history.distortion, history.rate, history.beta, strict=True)],
            "bound": round(-sum(mean_elbo(model, train.x, 4)), 3),
            "held-out bound": round(-sum(mean_elbo(model, test.x, 4)), 3)}
    bits = model.likelihood.draw(test.x[:NLL_IMAGES], torch.Generator().manual_seed(seed))
    nll = -log_likelihood(model, bits, NLL_DRAWS, seed=seed)
    row["NLL"] = [round(float(nll.mean()), 3), round(float(nll.std()) / len(nll)**0.5, 3)]
    return row, model


class Clock:
    """Called after each step, notes in `seconds` under the step's name how long it took; without a name, nothing."""

    def __init__(self, seconds):
        self.seconds, self.began = seconds, time.perf_counter()

    def __call__(self, name=None):
        now = time.perf_counter()
        if name is not None:
            self.seconds[name] = round(now - self.began, 1)
        self.began = now


def chosen(rows, by="agreement"):
    """Of rows of `run` the one whose views agree most, or with the highest `by`, "bound" for one."""
    return max(rows, key=lambda row: row[by])


def load_mnist_results():
    """The rows of `run` as shipped, by recipe."""
    return json.loads((FOLDER / "mnist.json").read_text())


def load_mnist_gmvae():
    """The trained GMVAE as shipped."""
    recipe = RECIPES["long"]
    prior = MixturePrior(10, recipe.latent_dim, "full", recipe.min_var)
    model = VAE.build(784, recipe.latent_dim, recipe.hidden, DynamicBernoulli(), prior)
    model.load_state_dict({name: value.float() for name, value in read_shipped("mnist.safetensors").items()})
    return model.eval()


def added(results, name, row):
    """`results` with `row` among the recipe's rows, in place of its seed's if there is one, in order of the seeds."""
    rows = [each for each in results.get(name, []) if each["seed"] != row["seed"]]
    return results | {name: sorted([*rows, row], key=lambda each: each["seed"])}


def main():
    """Runs the seeds one after the other, and writes after each what it gave."""
    parser = argparse.ArgumentParser(prog="python -m gmvae_lib.pretrained.mnist", description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, help="run these, and keep the other seeds' rows")
    parser.add_argument("--device", help="cuda, mps or cpu; the best at hand by default")
    options = parser.parse_args()
    results = load_mnist_results()
    if options.seeds is None:
        results |= {name: [] for name in options.recipe}
    elif "long" in options.recipe and chosen(results["long"])["seed"] in options.seeds:
        parser.error("The shipped model is one of these seeds', and another run's may be better: leave --seeds out.")
    train, test, path = load("mnist"), load("mnist", "test"), FOLDER / "mnist.json"
    for name in options.recipe:
        for seed in options.seeds or SEEDS[name]:
            row, model = run(seed, train, test, RECIPES[name], options.device)
            print(name, json.dumps({key: row[key] for key in ("seed", "scores", "bound", "seconds")}), flush=True)
            if options.seeds:  # other processes may have been at work on other seeds
                results = load_mnist_results()
            results = added(results, name, row)
            if name == "long" and row is chosen(results[name]):
                state = {key: value.cpu().half() for key, value in model.state_dict().items()}
                write_shipped(state, "mnist.safetensors")
            path.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()

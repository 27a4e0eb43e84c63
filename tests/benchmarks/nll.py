"""Chapter 11's comparison on MNIST: standard normal, mixture and VampPrior, same network and budget, as −log p(x).

    python -m tests.benchmarks.nll [--epochs 50] [--components 100] [--images 1000] [--samples 5000] [--seeds 0]
                                   [--device cpu] [--write]

Pixels become black or white once, by a draw from their grey value.
Only training images are trained on; nothing is chosen, and there is no early stopping. Prints a line for each prior:
−ELBO and −log p(x) of held-out images, and the difference to the standard normal on the same images, each with its
standard error over images. With --write the chapter's table, gmvae_lib/pretrained/likelihoods.json, is replaced by the
numbers of all the seeds.
"""

import argparse
import math
import time

import numpy as np
import torch

from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.likelihood import Bernoulli
from gmvae_lib.pretrained.likelihoods import write_likelihoods
from gmvae_lib.prior import MixturePrior, StandardNormal, VampPrior
from gmvae_lib.training import decay, fit, warm_up
from gmvae_lib.vae import VAE

PRIORS = ("standard", "VampPrior", "mixture")


def binarized(split, seed=0):
    """MNIST's images as 0 and 1, each pixel drawn once with its grey value as probability: (N, 784) float32."""
    grey = load("mnist", split).x.numpy()
    draws = np.random.default_rng([seed, len(grey)]).random(grey.shape, dtype=np.float32)
    return torch.from_numpy((draws < grey / np.float32(255)).astype(np.float32))


def build(prior, x, latent_dim=40, hidden=(300, 300), components=100, seed=0):
    """The untrained model: the same network, and the same start of it, whatever the prior."""
    torch.manual_seed(seed)
    model = VAE.build(x.shape[1], latent_dim, hidden, Bernoulli())
    model.prior = {"standard": lambda: StandardNormal(latent_dim),
                   "mixture": lambda: MixturePrior(components, latent_dim, seed=seed),
                   "VampPrior": lambda: VampPrior(components, model.encoder, x, seed=seed)}[prior]()
    return model


def compare(train, test, epochs=50, components=100, samples=5000, batch_size=256, seed=0, show=print, device="cpu",
            **network):
    """Trains and measures each prior: from its name to (−ELBO, −log p(x)), each (N,), in nats."""
    found = {}
    for prior in PRIORS:
        began = time.process_time()
        model = build(prior, train, components=components, seed=seed, **network)
        history = fit(model, train, epochs, beta=warm_up(share=0.2), lr=decay(1e-3, share=0.5), batch_size=batch_size,
                      method="exact", precision="auto", seed=seed, device=device, progress=False)
        trained = time.process_time() - began
        bound = -log_likelihood(model, test, samples, seed=seed, chunk=5 * len(test)).cpu()
        dice = torch.Generator(model.device).manual_seed(seed)
        with torch.no_grad():
            elbo = -torch.stack([model.elbo(test, method="exact", generator=dice).value for _ in range(20)]).mean(0)
        found[prior] = elbo.cpu(), bound
        gain = found["standard"][1] - bound
        show(f"{prior:10} −ELBO {elbo.mean():.2f}, −log p(x) {mean_error(bound)}, better than standard by "
             f"{mean_error(gain)}; {history.precision}, processor seconds {trained:.0f}, "
             f"{time.process_time() - began - trained:.0f}")
    return found


def mean_error(values):
    """Mean and standard error over images, in words."""
    return "{:.2f} ± {:.2f}".format(*mean_and_error(values))


def mean_and_error(values):
    """Mean and standard error over images, two floats."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def rows(found, seed):
    """What the chapter's table needs of `compare`'s result: a dict for each prior, with means over images and their
    standard errors, in nats."""
    for prior, (elbo, bound) in found.items():
        (cost, error), (gain, gain_error) = (mean_and_error(part) for part in (bound, found["standard"][1] - bound))
        yield {"prior": prior, "seed": seed, "elbo": float(elbo.mean()), "bound": cost, "bound_error": error,
               "gain": gain, "gain_error": gain_error}


def main():
    """The comparison, as its options say."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nll", description=__doc__.splitlines()[0])
    for name, value in {"epochs": 50, "components": 100, "images": 1000, "samples": 5000}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="replace the numbers that the chapter shows")
    options = parser.parse_args()
    train, test = (binarized(split) for split in ("train", "test"))
    print(vars(options), flush=True)
    found = []
    for seed in options.seeds:
        found += rows(compare(train, test[:options.images], options.epochs, options.components, options.samples,
                              seed=seed, device=options.device, show=lambda line: print(line, flush=True)), seed)
    if options.write:
        write_likelihoods({"images": options.images, "samples": options.samples, "epochs": options.epochs,
                           "components": options.components, "rows": found})


if __name__ == "__main__":
    main()

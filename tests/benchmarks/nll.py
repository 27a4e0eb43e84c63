"""Chapter 11's comparison on MNIST: standard normal, mixture and VampPrior, same network and budget, as −log p(x).

    python -m tests.benchmarks.nll [--epochs 50] [--components 100] [--images 1000] [--samples 5000] [--seed 0]

Pixels become black or white once, by a draw from their grey value.
Only training images are trained on; nothing is chosen, and there is no early stopping. Prints a line for each prior:
−ELBO and −log p(x) of held-out images, and the difference to the standard normal on the same images, each with its
standard error over images.
"""

import argparse
import math
import time

import numpy as np
import torch

from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.likelihood import Bernoulli
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


def compare(train, test, epochs=50, components=100, samples=5000, batch_size=256, seed=0, show=print, **network):
    """Trains and measures each prior: from its name to (−ELBO, −log p(x)), each (N,), in nats."""
    found = {}
    for prior in PRIORS:
        began = time.process_time()
        model = build(prior, train, components=components, seed=seed, **network)
        history = fit(model, train, epochs, beta=warm_up(share=0.2), lr=decay(1e-3, share=0.5), batch_size=batch_size,
                      method="exact", precision="auto", seed=seed, device="cpu", progress=False)
        trained = time.process_time() - began
        bound = -log_likelihood(model, test, samples, seed=seed, chunk=5 * len(test))
        elbo = -torch.stack([model.elbo(test, method="exact", validate=False, generator=torch.Generator().manual_seed(s)
                                        ).value.detach() for s in range(20)]).mean(0)
        found[prior] = elbo, bound
        gain = found["standard"][1] - bound
        show(f"{prior:10} −ELBO {elbo.mean():.2f}, −log p(x) {mean_error(bound)}, better than standard by "
             f"{mean_error(gain)}; {history.precision}, processor seconds {trained:.0f}, "
             f"{time.process_time() - began - trained:.0f}")
    return found


def mean_error(values):
    """Mean and standard error over images, in words."""
    return f"{values.mean():.2f} ± {values.std() / math.sqrt(len(values)):.2f}"


def main():
    """The comparison, as its options say."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nll", description=__doc__.splitlines()[0])
    for name, value in {"epochs": 50, "components": 100, "images": 1000, "samples": 5000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    train, test = (binarized(split) for split in ("train", "test"))
    print(vars(options), flush=True)
    compare(train, test[:options.images], options.epochs, options.components, options.samples, seed=options.seed,
            show=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()

"""Chapter 11's comparison on MNIST: standard normal, mixture and VampPrior, same network and budget, as −log p(x).

    python -m tests.benchmarks.nll FOLDER [--epochs 50] [--components 100] [--images 1000] [--samples 5000] [--seed 0]

FOLDER holds MNIST's four idx files, gzipped or not. Pixels become black or white once, by a draw from their grey value.
Only training images are trained on; nothing is chosen, and there is no early stopping. Prints a line for each prior:
−ELBO and −log p(x) of held-out images, and the difference to the standard normal on the same images, each with its
standard error over images.
"""

import argparse
import gzip
import math
import time
from pathlib import Path

import numpy as np
import torch

from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.likelihood import Bernoulli
from gmvae_lib.prior import MixturePrior, StandardNormal, VampPrior
from gmvae_lib.training import decay, fit, warm_up
from gmvae_lib.vae import VAE

PRIORS = ("standard", "VampPrior", "mixture")


def read_images(path):
    """The images (N, H * W) of an idx file, gzipped or not, as uint8; ValueError if it is none."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    magic, n, height, width = np.frombuffer(raw[:16].ljust(16, b"\0"), ">i4").tolist()
    if magic != 2051 or len(raw) != 16 + n * height * width:
        raise ValueError(f"{path} is not an idx file of images.")
    return np.frombuffer(raw, np.uint8, offset=16).reshape(n, height * width)


def binarized(folder, split, seed=0):
    """MNIST's images as 0 and 1, each pixel drawn once with its grey value as probability: (N, 784) float32."""
    name = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}[split]
    found = [path for path in (Path(folder) / f"{name}.gz", Path(folder) / name) if path.exists()]
    if not found:
        raise FileNotFoundError(f"{folder} holds neither {name}.gz nor {name}: give the folder of MNIST's files.")
    grey = read_images(found[0])
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
    parser.add_argument("folder", type=Path)
    for name, value in {"epochs": 50, "components": 100, "images": 1000, "samples": 5000, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    train, test = (binarized(options.folder, split) for split in ("train", "test"))
    print(f"{vars(options) | {'folder': options.folder.name}}", flush=True)
    compare(train, test[:options.images], options.epochs, options.components, options.samples, seed=options.seed,
            show=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()

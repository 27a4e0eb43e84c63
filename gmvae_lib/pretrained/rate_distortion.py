"""Chapter 6's comparison: networks trained for one beta each, three seeds, and networks trained for every beta at once.

    python -m gmvae_lib.pretrained.rate_distortion          (some minutes: 18 + 3 trainings)

writes rate_distortion.json beside this file: for each network, its distortion and rate on training and held-out digits.
"""

import json

import torch

from gmvae_lib.data import load
from gmvae_lib.evaluation import active_units, mean_elbo, rate_distortion
from gmvae_lib.pretrained import FOLDER
from gmvae_lib.training import decay, fit
from gmvae_lib.vae import VAE

BETAS, SEEDS = (0.1, 0.5, 1.0, 4.0, 16.0, 64.0), (0, 1, 2)
LATENT_DIM, HIDDEN, EPOCHS = 6, (128, 128), 600
LOW, HIGH, WIDEN, TILT = 0.01, 80.0, 0.2, 0.45


def widening(progress):
    """The range of betas in training: its upper end grows from 1 to HIGH during the first WIDEN of it."""
    return LOW, HIGH ** min(1.0, progress / WIDEN), TILT


def train_gated(data, seed=0, epochs=EPOCHS):
    """One network for every beta: chapter 6's recipe."""
    torch.manual_seed(seed)
    model = VAE.build(data.x.shape[1], LATENT_DIM, HIDDEN, gated=2.0)
    fit(model, data, epochs, beta=widening, lr=decay(3e-3), seed=seed, device="cpu", progress=False)
    return model


def train_single(data, beta, seed=0, epochs=EPOCHS):
    """A network for this beta: the same sizes and epochs."""
    torch.manual_seed(seed)
    model = VAE.build(data.x.shape[1], LATENT_DIM, HIDDEN)
    fit(model, data, epochs, beta=beta, lr=decay(2e-3), seed=seed, device="cpu", progress=False)
    return model


def comparison():
    """Rows of numbers: kind, seed, beta, then distortion and rate on training and on held-out digits, active units."""
    train, test = load("digits"), load("digits", "test")
    rows = []
    for seed in SEEDS:
        gated = train_gated(train, seed)
        curves = [rate_distortion(gated, data.x, BETAS) for data in (train, test)]
        for i, beta in enumerate(BETAS):
            single = train_single(train, beta, seed)
            parts = [mean_elbo(single, data.x, beta=beta) for data in (train, test)]
            active = int(active_units(single, train.x).sum())
            rows.append(["single", seed, beta, *(round(part, 3) for pair in parts for part in pair), active])
            parts = [float(part[i]) for curve in curves for part in (curve.distortion, curve.rate)]
            rows.append(["gated", seed, beta, *(round(part, 3) for part in parts), int(curves[0].active[i])])
            print(*rows[-2:], sep="\n", flush=True)
    return rows


def load_comparison():
    """`comparison()`'s rows, as shipped."""
    return json.loads((FOLDER / "rate_distortion.json").read_text())


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(row) for row in comparison())
    (FOLDER / "rate_distortion.json").write_text(f"[{lines}]\n")

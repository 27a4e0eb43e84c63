"""Chapter 11's likelihoods of MNIST behind three priors, as `python -m tests.benchmarks.nll --write` measured them."""

import json

from gmvae_lib.pretrained import FOLDER

FILE = FOLDER / "likelihoods.json"
PRIORS = ("standard", "mixture", "VampPrior")


def write_likelihoods(found, file=FILE):
    """Replaces the shipped numbers: `found` is a dict as `load_likelihoods` returns it."""
    rows = [{key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            for row in found["rows"]]
    file.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")


def load_likelihoods(file=FILE):
    """How the comparison was made, and a dict for each prior and seed, in "rows".

    A row holds, in nats per test image: "elbo", minus the evidence lower bound; "bound", minus the importance-weighted
    bound of "samples" draws, and its standard error over images, "bound_error"; how much less than with the standard
    normal prior of that seed this is, "gain", and the error of that, image by image, "gain_error". Raises ValueError
    unless each seed has a row for each prior.
    """
    found = json.loads(file.read_text())
    pairs = sorted((row["prior"], row["seed"]) for row in found["rows"])
    seeds = sorted({seed for _, seed in pairs})
    if not seeds or pairs != sorted((prior, seed) for prior in PRIORS for seed in seeds):
        raise ValueError(f"{file.name} does not hold one row for each seed and each of {', '.join(PRIORS)}.")
    return found

"""Models that come with the course, so that a chapter can show them at once.

Each was made by a command that anyone can rerun: `make checkpoints`, which is `python -m gmvae_lib.pretrained` and, for
chapter 6's comparison of trainings (rate_distortion.json), `python -m gmvae_lib.pretrained.rate_distortion`. Run again
on one thread of the same machine, the comparison gives the same numbers; elsewhere every mean of
D + beta R agrees within 2 %, since training is chaotic. Chapter 9's clusters (clustering.json and
clustering.safetensors) are made by `python -m gmvae_lib.pretrained.clustering`.
Commands of their own, outside `make checkpoints`, are `python -m gmvae_lib.pretrained.mnist`, which needs MNIST and
four hours or a GPU, and `python -m gmvae_lib.pretrained.speed`, which times the machine that it runs on.
"""

import hashlib
import json
from pathlib import Path

from safetensors.torch import load, save

from gmvae_lib.clustering import Recipe
from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE

FOLDER = Path(__file__).parent
MEND = "restore it (git checkout), or rebuild it with `make checkpoints`."
RECIPE, N_COMPONENTS, MAX_COMPONENTS = Recipe(), 10, 20


def digits_model(recipe=RECIPE):
    """The untrained architecture of the digits' GMVAE: gated by beta, 10 full components in 16 dimensions."""
    prior = MixturePrior(N_COMPONENTS, recipe.latent_dim, "full", recipe.min_var)
    # Flatter gates hardly follow a high beta within the training; steeper ones would undo what the autoencoder learnt.
    return VAE.build(64, recipe.latent_dim, recipe.hidden, prior=prior, gated=0.5)


def write_shipped(tensors, name):
    """Writes tensors (a dict by name) into the file `name` beside this one, for all to read, and notes its checksum."""
    path, checksums = FOLDER / name, _checksums()
    path.write_bytes(save({key: value.detach().contiguous() for key, value in tensors.items()}))
    path.chmod(0o644)
    checksums[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (FOLDER / "checksums.json").write_text(json.dumps(checksums, indent=2, sort_keys=True) + "\n")


def read_shipped(name):
    """The tensors, a dict by name, in the file `name` beside this one.

    Raises ValueError unless it is, to the last byte, the file that `make checkpoints` wrote.
    """
    path, expected = FOLDER / name, _checksums().get(name)
    if expected is None:
        raise ValueError(f"No file named {name!r} comes with the course: there are {', '.join(sorted(_checksums()))}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error}): {MEND}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(f"{name} is damaged: {MEND}")
    return load(content)


def _checksums():
    return json.loads((FOLDER / "checksums.json").read_text())


def load_digits_gmvae():
    """The trained GMVAE of the digits, and for each K = 1..20 a partition of the training images into K clusters.

    Returns (model, partitions), where partitions (20, 1437) holds in row K - 1 the component of each training image.
    Raises ValueError as `read_shipped` does.
    """
    tensors = read_shipped("digits.safetensors")
    partitions = tensors.pop("partitions").long()
    model = digits_model()
    model.load_state_dict({name: value.float() for name, value in tensors.items()})  # stored in half precision
    return model.eval(), partitions

"""Models that come with the course, so that a chapter can show them at once.

Each was made by a command that anyone can rerun: `make checkpoints`, which is `python -m gmvae_lib.pretrained` and, for
chapter 6's comparison of trainings (rate_distortion.json), `python -m gmvae_lib.pretrained.rate_distortion`. Run again
on one thread of the same machine, the comparison gives the same numbers; elsewhere every mean of
D + beta R agrees within 2 %, since training is chaotic. Chapter 9's clusters (clustering.json and
clustering.safetensors) are made by `python -m gmvae_lib.pretrained.clustering`.
"""

import hashlib
import json
from pathlib import Path

from safetensors.torch import load_file

from gmvae_lib.prior import MixturePrior
from gmvae_lib.vae import VAE

FOLDER = Path(__file__).parent
LATENT_DIM, HIDDEN, N_COMPONENTS, MAX_COMPONENTS = 16, (128, 128), 10, 20


def digits_model():
    """The untrained architecture of the digits' GMVAE: gated by beta, 10 full components in 16 dimensions."""
    return VAE.build(64, LATENT_DIM, HIDDEN, prior=MixturePrior(N_COMPONENTS, LATENT_DIM, "full"), gated=True)


def load_digits_gmvae():
    """The trained GMVAE of the digits, and for each K = 1..20 a partition of the training images into K clusters.

    Returns (model, partitions), where partitions (20, 1437) holds in row K - 1 the component of each training image.
    Raises ValueError if the file is not the one that `make checkpoints` wrote.
    """
    path = FOLDER / "digits.safetensors"
    expected = json.loads((FOLDER / "checksums.json").read_text())[path.name]
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{path.name} is damaged: restore it (git checkout), or rebuild it with `make checkpoints`.")
    tensors = load_file(path)
    partitions = tensors.pop("partitions").long()
    model = digits_model()
    model.load_state_dict(tensors)
    return model.eval(), partitions

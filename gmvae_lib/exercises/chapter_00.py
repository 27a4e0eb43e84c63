"""Exercises of chapter 0."""

import torch

from gmvae_lib.exercises import Exercise


def _images():
    return torch.arange(12.0).reshape(4, 3) ** 2


EXERCISES = {
    "0.1": Exercise(
        cases=lambda: [(_images(),)],
        solution=lambda x: x.mean(0),
        mistakes={
            "you averaged over the pixels, which gives a number an image; the images are axis 0.": lambda x: x.mean(1),
            "you averaged over everything; name the axis of the images, 0.": lambda x: x.mean(),
            "you added the images up without dividing by how many there are.": lambda x: x.sum(0),
        },
    ),
}

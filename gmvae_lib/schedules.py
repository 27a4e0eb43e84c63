"""Schedules: functions from a training's progress, in [0, 1], to beta or to Adam's step."""

import math
from random import Random


def warm_up(beta=1.0, share=0.2):
    """A schedule that raises beta linearly from 0 during the first `share` of the training."""
    return lambda progress: beta * min(1.0, progress / share)


def cyclic(beta=1.0, cycles=4, share=0.5):
    """A schedule of several warm-ups: each cycle raises beta from 0 during its first `share`. Fu et al. (2019)."""
    return lambda progress: beta * min(1.0, (progress * cycles) % 1.0 / share) if progress < 1 else beta


def decay(lr=2e-3, share=0.3):
    """A schedule for `lr`: constant, then falling linearly to nothing during the last `share` of the training."""
    return lambda progress: lr * min(1.0, (1 - progress) / share)


def one_cycle(lr=2e-3, share=0.3):
    """A schedule for `lr`: up linearly during the first `share` of the training, down by a cosine to nothing. Smith &
    Topin (2019)."""
    return lambda progress: lr * (progress / share if progress < share else
                                  0.5 + 0.5 * math.cos(math.pi * (progress - share) / (1 - share)))


def log_uniform(low=0.01, high=100.0, seed=0):
    """A schedule for gated networks: for each batch, a beta drawn uniformly on a log scale. Bae et al. (2023).

    The draw depends on `seed` and progress alone, so that a resumed training draws what an uninterrupted one would.
    """
    return lambda progress: math.exp(Random(f"{seed} {progress}").uniform(math.log(low), math.log(high)))

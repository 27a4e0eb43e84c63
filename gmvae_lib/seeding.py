"""Where EM starts: means by k-means++ or at random, and the statistics of the partition by nearest means."""

import math

import torch

from gmvae_lib.em import Statistics, accumulate, weighted_sums

SAMPLE = 20_000  # seeds are chosen among no more points than this


def seed_means(points, n_components, init, generator):
    """K starting means (K, D), in the frame of `points`: data points drawn at random, or spread out by greedy k-means++
    (Arthur & Vassilvitskii, 2007), among at most `SAMPLE` of the points. Heavier points are drawn more often."""
    sample, weights = points.rows(_draw(points.n, generator))
    equal = points.weights is None
    if init == "random":
        chosen = torch.arange(n_components) if equal else torch.multinomial(weights.cpu(), n_components,
                                                                            generator=generator)
        return sample[chosen.to(sample.device)]
    first = 0 if equal else int(torch.multinomial(weights.cpu(), 1, generator=generator))
    means = sample[first:first + 1]
    distance = (sample - means[0]).square().sum(1) * weights
    for _ in range(n_components - 1):
        if not distance.any():
            raise ValueError(f"x has only {len(means)} distinct points: lower n_components to that.")
        n_draws = 2 + int(math.log(n_components))
        draws = torch.multinomial(distance.cpu(), n_draws, replacement=True, generator=generator)
        candidates = sample[draws.to(sample.device)]
        exact = torch.cdist(candidates, sample, compute_mode="donot_use_mm_for_euclid_dist")  # 0 between equals
        rivals = torch.minimum(distance, exact.square() * weights)
        best = rivals.sum(1).argmin()
        means, distance = torch.cat([means, candidates[best:best + 1]]), rivals[best]
    return means


def _draw(n, generator):
    """The numbers of at most SAMPLE of n points, in random order."""
    if n <= 2**24:
        return torch.randperm(n, generator=generator)[:SAMPLE]
    drawn = torch.randint(n, (SAMPLE,), generator=generator).unique()  # a permutation of billions would fill the memory
    return drawn[torch.randperm(len(drawn), generator=generator)]


def partition_statistics(points, means, kind):
    """`Statistics` in which each point belongs to its nearest mean alone: k-means' E-step, Eq. (2.29)."""
    sums = None
    for chunk, weights in points.chunks(2 * means.shape[1] + len(means)):
        nearest = (means.square().sum(1, keepdim=True) - 2 * means @ chunk).argmin(0)  # |x|² is the same for all
        resp = torch.nn.functional.one_hot(nearest, len(means)).T.to(chunk)
        if weights is not None:
            resp = resp * weights
        sums = accumulate(sums, weighted_sums(chunk, resp, means, kind))
    return Statistics(*points.total(*sums), means)

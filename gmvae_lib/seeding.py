"""Where EM starts: means at random, by k-means++ or by k-means; and the statistics of a partition by nearest means."""

import math

import torch

from gmvae_lib.em import accumulate, weighted_sums
from gmvae_lib.families import Statistics
from gmvae_lib.points import Points

SAMPLE = 20_000  # means are sought among no more points than this
RUNS, STEPS = 3, 10  # "k-means": the best of so many runs of so many steps


def seed_means(points, n_components, init, generator):
    """K starting means (K, D), in the frame of `points`, from at most `SAMPLE` of them; heavier points count more, and
    one with several views lies at their mean.

    init: "random" draws points; "k-means++" draws them far apart (Arthur & Vassilvitskii, 2007); "k-means" moves those
        to the centers of the points nearest to them, `STEPS` times, and keeps the best of `RUNS` attempts.
    """
    sample, weights = points.rows(_draw(points.n, generator))
    weights = None if points.weights is None else weights
    if init == "random":
        chosen = torch.arange(n_components) if weights is None else _choose(weights, n_components, generator)
        return sample[chosen.to(sample.device)]
    if init == "k-means++":
        return _spread_out(sample, weights, n_components, generator)
    frame = Points(sample, weights, sample.device, torch.float64, center=torch.zeros_like(sample[0]))
    runs = (_k_means(frame, _spread_out(sample, weights, n_components, generator)) for _ in range(RUNS))
    return min(runs, key=lambda run: run[1])[0]


def _spread_out(sample, weights, n_components, generator):
    """Greedy k-means++: the next seed is the best of a few points, drawn in proportion to their squared distance from
    the seeds so far."""
    first = 0 if weights is None else int(_choose(weights, 1, generator))  # the sample's order is random
    means = sample[first:first + 1]
    distance = (sample - means[0]).square().sum(1)
    distance = distance if weights is None else distance * weights
    for _ in range(n_components - 1):
        if not distance.any():
            raise ValueError(f"x has only {len(means)} distinct points: lower n_components to that.")
        candidates = sample[_choose(distance, 2 + int(math.log(n_components)), generator, replacement=True)]
        rivals = torch.cdist(candidates, sample, compute_mode="donot_use_mm_for_euclid_dist").square()  # 0 for equals
        rivals = torch.minimum(distance, rivals if weights is None else rivals * weights)
        best = rivals.sum(1).argmin()
        means, distance = torch.cat([means, candidates[best:best + 1]]), rivals[best]
    return means


def _choose(weights, n, generator, replacement=False):
    """n numbers, drawn in proportion to the weights; on the CPU, where the generator is."""
    return torch.multinomial(weights.cpu(), n, replacement, generator=generator).to(weights.device)


def _k_means(points, means):
    """`STEPS` steps of k-means: (means, the sum of squared distances before the last step)."""
    for _ in range(STEPS):
        counts, first, second, _ = partition_statistics(points, means, "spherical")
        means = means + first / counts.clamp(min=1e-100).unsqueeze(1)
    return means, float(second.sum())


def _draw(n, generator):
    """The numbers of at most SAMPLE of n points, in random order."""
    if n <= 2**24:
        return torch.randperm(n, generator=generator)[:SAMPLE]
    drawn = torch.randint(n, (SAMPLE,), generator=generator).unique()  # a permutation of billions would fill the memory
    return drawn[torch.randperm(len(drawn), generator=generator)]


def partition_statistics(points, means, kind):
    """`Statistics` in which each point belongs to its nearest mean alone: k-means' E-step, Eq. (2.29). The views of a
    point go where their mean goes."""
    sums = None
    for chunk, weights in points.chunks(2 * means.shape[1] + len(means)):
        square = points.views * means.square().sum(1, keepdim=True)
        nearest = (square - 2 * means @ points.sum_views(chunk)).argmin(0)  # |x|² is the same for all
        resp = torch.nn.functional.one_hot(nearest, len(means)).T.to(chunk)
        if weights is not None:
            resp = resp * weights
        sums = accumulate(sums, weighted_sums(chunk, points.to_views(resp), means, kind))
    return Statistics(*points.total(*sums), means)

"""Exercises of chapter 12: scaling up."""

import torch
from torch.nn import functional as F

from gmvae_lib.exercises import Exercise


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=_generator(seed), dtype=torch.float64)


def _uniform(*shape, seed=0):
    return torch.rand(*shape, generator=_generator(seed), dtype=torch.float64)


def _ends(asked, work):
    end, ends = 0.0, []
    for s, w in zip(asked, work, strict=True):
        end = max(float(s), end) + float(w)
        ends.append(end)
    return torch.tensor(ends, dtype=torch.float64)


def _share(asked, work):
    return work.sum() / _ends(asked, work)[-1]


def _lanes():
    return [((torch.ones(12) * 2 + _uniform(12)).cumsum(0), 3 * _uniform(12, seed=1)),
            (_uniform(9, seed=2).cumsum(0), 4 * _uniform(9, seed=3)),
            (torch.tensor([5.0, 6.0, 7.0, 30.0]).double(), torch.tensor([1.0, 9.0, 1.0, 2.0]).double())]


def _log_prob(grey, logits):
    g = grey / 255
    return (g * logits - F.softplus(logits)).sum(1)


def _pixels():
    grey = (255 * _uniform(5, 12).square()).round()
    grey[:, :3] = torch.tensor([0.0, 255.0, 255.0], dtype=torch.float64)
    large = 3 * _normal(5, 12, seed=1)
    large[0, :2] = torch.tensor([-200.0, 190.0], dtype=torch.float64)
    large[1, 0] = 200.0
    return [(grey, _normal(5, 12, seed=2)), (grey, large)]


def _gradient(gradients, sizes):
    weights = sizes.to(gradients.dtype) / sizes.sum()
    return weights @ gradients


def _m_step(counts, sums, squares):
    counts, sums, squares = counts.sum(0), sums.sum(0), squares.sum(0)
    means = sums / counts[:, None]
    return (counts / counts.sum(), means,
            squares / counts[:, None, None] - means[:, :, None] * means[:, None, :])


def _each(counts, sums, squares):
    """The M-step of every share for itself, stacked."""
    found = [_m_step(c[None], s[None], q[None]) for c, s, q in zip(counts, sums, squares, strict=True)]
    return [torch.stack(part) for part in zip(*found, strict=True)]


def _statistics():
    cases = []
    for seed, (shares, k, dim) in enumerate([((7, 20, 60), 3, 2), ((15, 40), 2, 4)]):
        parts = []
        for i, n in enumerate(shares):
            x = _normal(n, dim, seed=10 * seed + i) + 2 * i
            resp = (3 * _normal(n, k, seed=10 * seed + i + 5)).softmax(1)
            parts.append((resp.sum(0), resp.T @ x, torch.einsum("nk,ni,nj->kij", resp, x, x)))
        cases.append(tuple(torch.stack(part) for part in zip(*parts, strict=True)))
    return cases


def _times(ask, work, n, steps, ahead=True, wait=False):
    each = ask * torch.arange(1, n * steps + 1, dtype=torch.float64)
    together = ask * torch.arange(1, steps + 1, dtype=torch.float64).repeat_interleave(n)
    if not ahead:  # each step's recording is asked for only as late as its last operation would be
        together = n * together
    found = []
    for asked in (each, together):
        found += [_ends(asked, torch.full_like(asked, w))[-1] for w in (work, work / 2)]
    return torch.stack(found)


EXERCISES = {
    "12.1": Exercise(
        cases=_lanes,
        solution=_share,
        mistakes={
            "the lanes overlap: the GPU computes while the processor asks for more, so times do not simply add up.":
                lambda asked, work: work.sum() / (asked[-1] + work.sum()),
            "the last operation ends after it was asked for: its work, and the queue before it, come on top.":
                lambda asked, work: work.sum() / asked[-1],
            "an operation may have to wait for the one before it: e_i = max(s_i, e_(i-1)) + w_i.":
                lambda asked, work: work.sum() / (asked + work).max(),
            "you let operations start before they were asked for: the GPU waits for the processor, too.":
                lambda asked, work: work.sum() / work.sum(),
            "this is the share that the GPU waits: take it from 1.":
                lambda asked, work: 1 - _share(asked, work),
            "this is the time of the end; divide the GPU's work by it.":
                lambda asked, work: _ends(asked, work)[-1],
            "count from 0, not from the first request.":
                lambda asked, work: work.sum() / (_ends(asked, work)[-1] - asked[0]),
            "this is upside down: work above, time below.":
                lambda asked, work: 1 / _share(asked, work),
        },
        hint="If everything is asked for at time 0, the share must be 1.",
    ),
    "12.2": Exercise(
        cases=_pixels,
        solution=_log_prob,
        mistakes={
            "pixels run from 0 to 255: divide by 255 to get probabilities.":
                lambda grey, logits: (grey * logits - F.softplus(logits)).sum(1),
            "you rounded the probabilities to bits: the mean over the draws needs the grey values themselves.":
                lambda grey, logits: _log_prob(255 * (grey > 127.5).double(), logits),
            "average over the draws, but sum over the pixels: dividing by D changes beta.":
                lambda grey, logits: _log_prob(grey, logits).div(grey.shape[1]),
            "the sign is wrong: log-probabilities, not a loss.": lambda grey, logits: -_log_prob(grey, logits),
            "the log of a sigmoid is -inf for logits like these, and 0 times -inf is NaN: use softplus or logsigmoid.":
                lambda grey, logits: (grey / 255 * logits.sigmoid().log()
                                      + (1 - grey / 255) * (1 - logits.sigmoid()).log()).sum(1),
            "an epsilon in the logarithm changes the answer where the decoder is sure: use softplus or logsigmoid.":
                lambda grey, logits: (grey / 255 * (logits.sigmoid() + 1e-7).log()
                                      + (1 - grey / 255) * (1 - logits.sigmoid() + 1e-7).log()).sum(1),
            "the paper's part is missing: (1 - g) log(1 - rho).":
                lambda grey, logits: (grey / 255 * F.logsigmoid(logits)).sum(1),
            "this is one number for all images: keep one for each, (N,).":
                lambda grey, logits: _log_prob(grey, logits).mean(),
        },
        hint="For logits of 0 each pixel must give log 1/2, whatever its grey level.",
    ),
    "12.3": Exercise(
        cases=lambda: [(_normal(3, 6), torch.tensor([10, 10, 10])),
                       (_normal(4, 5, seed=1), torch.tensor([1, 2, 40, 7]))],
        solution=_gradient,
        mistakes={
            "the shares are unequal, so their gradients do not count alike: weigh them by N_p / N.":
                lambda gradients, sizes: gradients.mean(0),
            "sum after weighing, and with weights that add up to one: you only summed.":
                lambda gradients, sizes: gradients.sum(0),
            "divide by N, the number of points: this is the gradient of the sum of losses.":
                lambda gradients, sizes: sizes.to(gradients.dtype) @ gradients,
            "the weights already add up to one: you divided by P as well.":
                lambda gradients, sizes: _gradient(gradients, sizes) / len(sizes),
            "large shares must count more: your weights are upside down.":
                lambda gradients, sizes: (1 / sizes) @ gradients.float() / (1 / sizes).sum(),
        },
        hint="If all rows are equal, the result must be that row.",
    ),
    "12.4": Exercise(
        cases=_statistics,
        solution=_m_step,
        mistakes={
            "you averaged the shares' own means and covariances: add up the statistics first, then divide once.":
                lambda *shares: tuple(part.mean(0) for part in _each(*shares)),
            "the shares' covariances were averaged, which loses the variance between them: use the summed squares.":
                lambda *shares: (*_m_step(*shares)[:2],
                                 (_each(*shares)[2] * (shares[0] / shares[0].sum(0))[..., None, None]).sum(0)),
            "the outer product of the mean is missing: squares / counts is about 0, not about the mean.":
                lambda *shares: (*_m_step(*shares)[:2], shares[2].sum(0) / shares[0].sum(0)[:, None, None]),
            "the weights must add up to one: divide the counts by their sum.":
                lambda *shares: (shares[0].sum(0), *_m_step(*shares)[1:]),
            "this is the first share alone: add up over the processes, the first axis.":
                lambda *shares: tuple(part[0] for part in _each(*shares)),
            "the weights are the mean of the shares' weights: small shares then count as much as large ones.":
                lambda *shares: (_each(*shares)[0].mean(0), *_m_step(*shares)[1:]),
        },
        hint="With one process it must be chapter 2's M-step.",
    ),
    "12.5": Exercise(
        cases=lambda: [(20.0, 2.0, 40, 5), (5.0, 60.0, 10, 3), (50.0, 3.0, 4, 6)],
        solution=_times,
        mistakes={
            "the lanes overlap: you added the times of asking and computing.":
                lambda ask, work, n, steps: torch.tensor([n * steps * (ask + w) for w in (work, work / 2)]
                                                         + [steps * (ask + n * w) for w in (work, work / 2)]),
            "you took the longer lane, and left out that the last operation still has to be computed, or the first to "
            "be asked for.":
                lambda ask, work, n, steps: torch.tensor([n * steps * max(ask, w) for w in (work, work / 2)]
                                                         + [steps * max(ask, n * w) for w in (work, work / 2)]),
            "half precision makes the GPU's work shorter, not the asking.":
                lambda ask, work, n, steps: torch.stack([value for a, b in zip(
                    _times(ask, work, n, steps)[::2], _times(ask / 2, work / 2, n, steps)[::2], strict=True)
                    for value in (a, b)]),
            "a recording is asked for in one ask a step, not in n: its operations are all there at once.":
                lambda ask, work, n, steps: _times(ask, work, n, steps, ahead=False),
            "a recording's operations are all there once it has been asked for: you let them come one by one.":
                lambda ask, work, n, steps: torch.cat([_times(ask, work, n, steps)[:2],
                                                       _times(ask / n, work, n, steps)[:2]]),
            "each step's recording must be asked for: you asked once for the whole training.":
                lambda ask, work, n, steps: torch.cat([_times(ask, work, n, steps)[:2], torch.tensor(
                    [ask + n * steps * w for w in (work, work / 2)], dtype=torch.float64)]),
            "(b) and (c) are exchanged: as it is, half precision, recorded, both.":
                lambda ask, work, n, steps: _times(ask, work, n, steps)[[0, 2, 1, 3]],
            "these are the times of one step: go on to the last.":
                lambda ask, work, n, steps: _times(ask, work, n, 1),
        },
        hint="For n = 1 and steps = 1 the first must be ask + work.",
    ),
}

"""Exercises of chapter 11: honest evaluation."""

import math

import torch

from gmvae_lib.exercises import Exercise


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _estimate(log_w):
    total = log_w.logsumexp(0)
    return total - math.log(len(log_w)), (2 * total - (2 * log_w).logsumexp(0)).exp()


def _comparison(a, b):
    return (b - a).mean(), (b - a).std() / math.sqrt(len(a))


def _pairs():
    hard = 25 * _normal(40, seed=1)
    return [(hard - 110 + 2 * _normal(40), hard - 108 + 2 * _normal(40, seed=2)),
            (hard[:9] - 90, hard[:9] - 93 + _normal(9, seed=3))]


def _choice(scores, n):
    best = scores[:, :n].mean(1).argmax()
    return scores[best, n:].mean(), scores[best, :n].mean() - scores[best, n:].mean()


def _choices():
    # Of draws in which the first images, the last and all of them choose different models.
    first = 8 * _normal(6, 30, seed=26) + _normal(6, 1, seed=27) - 110
    second = 5 * _normal(4, 12) - 90
    return [(first, 10), (second, 5)]


def _errors(scores):
    means = scores.mean(1)
    return scores[0].std() / math.sqrt(scores.shape[1]), means.std() / math.sqrt(len(means)), means.std()


def _defence(log_given, log_prior, log_q, alpha):
    log_mixture = torch.logaddexp(math.log(1 - alpha) + log_q, math.log(alpha) + log_prior)
    return torch.logsumexp(log_given + log_prior - log_mixture, 0) - math.log(len(log_q))


def _defence_cases():
    return [(-150 + 20 * _normal(30), -3 + _normal(30, seed=1), -2 + 2 * _normal(30, seed=2), 0.1),
            (-2000 + 50 * _normal(12, seed=3), -40 + 5 * _normal(12, seed=4), 3 * _normal(12, seed=5), 0.3)]


EXERCISES = {
    "11.1": Exercise(
        cases=lambda: [(2 * _normal(50, 4) - 100,), (6 * _normal(20, 3, seed=1) - 2500,)],
        solution=_estimate,
        mistakes={
            "this is the mean of the logarithms, the ELBO: average the ratios, then take the logarithm.":
                lambda log_w: (log_w.mean(0), _estimate(log_w)[1]),
            "log S is missing: the estimate is the logarithm of a mean, not of a sum.":
                lambda log_w: (log_w.logsumexp(0), _estimate(log_w)[1]),
            "the draws are in the rows: you summed over the images.":
                lambda log_w: (log_w.logsumexp(1) - math.log(log_w.shape[1]),
                               (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp()),
            "exp underflows for logarithms like these: stay in logarithms (logsumexp).":
                lambda log_w: (log_w.exp().mean(0).log(), log_w.exp().sum(0) ** 2 / (log_w.exp() ** 2).sum(0)),
            "exp underflows in the effective sample size: compute its logarithm by logsumexp first.":
                lambda log_w: (_estimate(log_w)[0], log_w.exp().sum(0) ** 2 / (log_w.exp() ** 2).sum(0)),
            "the draws are in the rows: you divided by the number of images, not of draws.":
                lambda log_w: (log_w.logsumexp(0) - math.log(log_w.shape[1]), _estimate(log_w)[1]),
            "the estimate comes first, then the effective sample size: you exchanged them.":
                lambda log_w: _estimate(log_w)[::-1],
            "this is the sum of ratios over their largest: the effective sample size has squares.":
                lambda log_w: (_estimate(log_w)[0], (log_w - log_w.amax(0)).exp().sum(0)),
            "the effective sample size is upside down: the square of the sum stands above.":
                lambda log_w: (_estimate(log_w)[0], 1 / _estimate(log_w)[1]),
            "this is the logarithm of the effective sample size.":
                lambda log_w: (_estimate(log_w)[0], _estimate(log_w)[1].log()),
            "the effective sample size lies between 1 and S: you divided it by S.":
                lambda log_w: (_estimate(log_w)[0], _estimate(log_w)[1] / len(log_w)),
        },
        hint="For equal ratios the effective sample size must be S.",
    ),
    "11.2": Exercise(
        cases=_pairs,
        solution=_comparison,
        mistakes={
            "the images are the same for both: subtract first, and what they share cancels.":
                lambda a, b: (_comparison(a, b)[0], ((a.var() + b.var()) / len(a)).sqrt()),
            "this is the standard deviation of the differences: divide by the root of N.":
                lambda a, b: (_comparison(a, b)[0], (b - a).std()),
            "divide the standard deviation by the root of N, not by N.":
                lambda a, b: (_comparison(a, b)[0], (b - a).std() / len(a)),
            "the sign is wrong: b is better where its log-likelihood is larger.":
                lambda a, b: (-_comparison(a, b)[0], _comparison(a, b)[1]),
            "divide by the root of N: the N - 1 is in the standard deviation already.":
                lambda a, b: (_comparison(a, b)[0], (b - a).std() / math.sqrt(len(a) - 1)),
            "this is the variance of the mean: take the root.":
                lambda a, b: (_comparison(a, b)[0], (b - a).var() / len(a)),
            "the standard deviation divides by N - 1: you divided by N.":
                lambda a, b: (_comparison(a, b)[0], (b - a).std(correction=0) / math.sqrt(len(a))),
            "the errors of both means do not add: they belong to the same images.":
                lambda a, b: (_comparison(a, b)[0], (a.std() + b.std()) / math.sqrt(len(a))),
            "per image, please: you summed.": lambda a, b: ((b - a).sum(), (b - a).std() * math.sqrt(len(a))),
        },
        hint="If b is a plus a constant, the error must be zero.",
    ),
    "11.3": Exercise(
        cases=_choices,
        solution=_choice,
        mistakes={
            "the last images may not choose: take the best on the first n.":
                lambda scores, n: (scores[:, n:].mean(1).max(),
                                   scores[scores[:, n:].mean(1).argmax(), :n].mean() - scores[:, n:].mean(1).max()),
            "you chose on all images, those for the verdict among them.":
                lambda scores, n: (scores[scores.mean(1).argmax(), n:].mean(),
                                   scores[scores.mean(1).argmax(), :n].mean()
                                   - scores[scores.mean(1).argmax(), n:].mean()),
            "this is the score on the images that chose: the verdict is the others'.":
                lambda scores, n: (scores[:, :n].mean(1).max(), _choice(scores, n)[1]),
            "the verdict is the others' alone: you averaged the chosen model over all images.":
                lambda scores, n: (scores[scores[:, :n].mean(1).argmax()].mean(), _choice(scores, n)[1]),
            "the second is the optimism, promised minus kept: you returned what was promised.":
                lambda scores, n: (_choice(scores, n)[0], scores[:, :n].mean(1).max()),
            "log-likelihoods: the largest is the best, you took the smallest.":
                lambda scores, n: tuple(-value for value in _choice(-scores, n)),
            "the optimism's sign is wrong: what was promised, minus what was kept.":
                lambda scores, n: (_choice(scores, n)[0], -_choice(scores, n)[1]),
            "the optimism is that of the chosen model, not of all models' mean.":
                lambda scores, n: (_choice(scores, n)[0], scores[:, :n].mean() - scores[:, n:].mean()),
            "one winner for all images, please: you took the best model of each image.":
                lambda scores, n: (scores[:, n:].max(0).values.mean(),
                                   scores[:, :n].max(0).values.mean() - scores[:, n:].max(0).values.mean()),
        },
        hint="With one model the first number is simply its mean on the others.",
    ),
    "11.4": Exercise(
        cases=lambda: [(6 * _normal(1, 40) + 2 * _normal(5, 1, seed=1) + _normal(5, 40, seed=2) - 110,),
                       (3 * _normal(3, 9, seed=3) - 90,)],
        solution=_errors,
        mistakes={
            "all M N numbers are no independent sample: trainings share images, and images a training.":
                lambda scores: (_errors(scores)[0], scores.std() / math.sqrt(scores.numel()), _errors(scores)[2]),
            "the error of the mean over trainings is missing a division by the root of M.":
                lambda scores: (_errors(scores)[0], _errors(scores)[2], _errors(scores)[2]),
            "a new training scatters by the standard deviation itself: do not divide it by the root of M.":
                lambda scores: (_errors(scores)[0], _errors(scores)[1], _errors(scores)[1]),
            "the first is a standard deviation over images: divide by the root of N.":
                lambda scores: (scores[0].std(), *_errors(scores)[1:]),
            "the first asks about the first training only: you averaged the trainings before.":
                lambda scores: (scores.mean(0).std() / math.sqrt(scores.shape[1]), *_errors(scores)[1:]),
            "a new training is asked for: this is the spread over images and trainings together.":
                lambda scores: (*_errors(scores)[:2], scores.std()),
            "the error of the mean over trainings asks about M trainings: divide by the root of M, not of N.":
                lambda scores: (_errors(scores)[0], _errors(scores)[2] / math.sqrt(scores.shape[1]),
                                _errors(scores)[2]),
            "average over the images first, then look at the spread of the trainings: you did it the other way round.":
                lambda scores: (_errors(scores)[0], scores.std(0).mean() / math.sqrt(len(scores)),
                                scores.std(0).mean()),
            "the standard deviations divide by M - 1 and N - 1.":
                lambda scores: (scores[0].std(correction=0) / math.sqrt(scores.shape[1]),
                                scores.mean(1).std(correction=0) / math.sqrt(len(scores)),
                                scores.mean(1).std(correction=0)),
        },
        hint="If all trainings gave the same scores, the second and the third would be zero.",
    ),
    "11.5": Exercise(
        cases=_defence_cases,
        solution=_defence,
        mistakes={
            "the draws came from the mixture, so its density belongs below: you divided by q.":
                lambda log_given, log_prior, log_q, alpha:
                    torch.logsumexp(log_given + log_prior - log_q, 0) - math.log(len(log_q)),
            "alpha is the prior's share: you gave it to q.":
                lambda log_given, log_prior, log_q, alpha: _defence(log_given, log_prior, log_q, 1 - alpha),
            "divided by the prior alone it would be for draws from the prior: these came from the mixture.":
                lambda log_given, log_prior, log_q, alpha: log_given.logsumexp(0) - math.log(len(log_q)),
            "a mixture adds its two parts: you took the larger one.":
                lambda log_given, log_prior, log_q, alpha:
                    torch.logsumexp(log_given + log_prior - torch.maximum(math.log(1 - alpha) + log_q,
                                                                          math.log(alpha) + log_prior), 0)
                    - math.log(len(log_q)),
            "a mixture adds densities, not their logarithms: use logaddexp.":
                lambda log_given, log_prior, log_q, alpha:
                    torch.logsumexp(log_given + log_prior - (1 - alpha) * log_q - alpha * log_prior, 0)
                    - math.log(len(log_q)),
            "the weights 1 - alpha and alpha are missing from the mixture.":
                lambda log_given, log_prior, log_q, alpha:
                    torch.logsumexp(log_given + log_prior - torch.logaddexp(log_q, log_prior), 0)
                    - math.log(len(log_q)),
            "log S is missing: the estimate is the logarithm of a mean.":
                lambda log_given, log_prior, log_q, alpha:
                    _defence(log_given, log_prior, log_q, alpha) + math.log(len(log_q)),
            "the prior is missing above: the ratio's numerator is p(x, z).":
                lambda log_given, log_prior, log_q, alpha:
                    _defence(log_given - log_prior, log_prior, log_q, alpha),
            "this is the mean of the logarithms: average the ratios first (logsumexp).":
                lambda log_given, log_prior, log_q, alpha:
                    (log_given + log_prior - torch.logaddexp(math.log(1 - alpha) + log_q,
                                                             math.log(alpha) + log_prior)).mean(),
            "exp underflows for logarithms like these: use logaddexp and logsumexp.":
                lambda log_given, log_prior, log_q, alpha:
                    ((log_given + log_prior).exp() / ((1 - alpha) * log_q.exp() + alpha * log_prior.exp())).mean()
                    .log(),
        },
        hint="With alpha = 1 it must be the logarithm of the mean of p(x|z).",
    ),
}

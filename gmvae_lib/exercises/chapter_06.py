"""Exercises of chapter 6: beta and the rate-distortion curve."""

import math

import torch

from gmvae_lib.exercises import Exercise


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _joint(rows, columns, seed=0):
    return (1.5 * _normal(rows * columns, seed=seed)).softmax(0).reshape(rows, columns)


def _information(joint):
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return (joint * (joint / independent).log()).sum()


def _water(eigenvalues, sigma2, beta):
    level = beta * sigma2
    rates = (0.5 * (eigenvalues / level).log()).clamp_min(0)
    return rates.sum(), torch.minimum(eigenvalues, torch.as_tensor(level).to(eigenvalues)).sum() / (2 * sigma2)


def _water_cases():
    eigenvalues = torch.tensor([9.0, 4.0, 1.0, 0.25, 0.1], dtype=torch.float64)
    return [(eigenvalues, 0.5, 1.0), (eigenvalues, 0.2, 8.0), (eigenvalues, 2.0, 20.0)]


def _unclamped(eigenvalues, sigma2, beta):
    return 0.5 * (eigenvalues / (beta * sigma2)).log().sum(), beta * len(eigenvalues) / 2


def _log_e_step(log_prior, log_likelihood, beta):
    return (log_prior + log_likelihood / beta).softmax(-1)


def _each(mean, log_var):
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


EXERCISES = {
    "6.1": Exercise(
        cases=lambda: [(_joint(4, 3),), (_joint(3, 6, seed=1),)],
        solution=_information,
        mistakes={
            "this is the joint's negative entropy: divide the joint by the product of its marginals in the logarithm.":
                lambda joint: (joint * joint.log()).sum(),
            "this is the joint's entropy: divide the joint by the product of its marginals, and keep the sign.":
                lambda joint: -(joint * joint.log()).sum(),
            "you divided by one marginal only: this is a negative conditional entropy.":
                lambda joint: (joint * (joint / joint.sum(0, keepdim=True)).log()).sum(),
            "you divided by one marginal only, that of z given x: this is a negative conditional entropy.":
                lambda joint: (joint * (joint / joint.sum(1, keepdim=True)).log()).sum(),
            "you used log2, which gives bits: nats need the natural logarithm.":
                lambda joint: _information(joint) / math.log(2),
            "the sign is wrong: information is never negative.": lambda joint: -_information(joint),
            "you averaged over the table's cells: they are weighted by the joint, and summed.":
                lambda joint: _information(joint) / joint.numel(),
            "the average runs over the joint, not over the product of the marginals: this is the reversed KL.":
                lambda joint: (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
                               * (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True) / joint).log()).sum(),
            "each cell must be weighted by the joint: you summed bare logarithms.":
                lambda joint: (joint / (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True))).log().sum(),
        },
        hint="For a joint that is a product of its marginals it must be zero.",
    ),
    "6.2": Exercise(
        cases=_water_cases,
        solution=_water,
        mistakes={
            "a rate below zero cannot be bought: dimensions under water get rate 0, and keep their variance as error.":
                _unclamped,
            "the pair is in the other order: the rate comes first.":
                lambda eigenvalues, sigma2, beta: _water(eigenvalues, sigma2, beta)[::-1],
            "the rates are right, but a dimension under water has its own variance as error, not the water level.":
                lambda eigenvalues, sigma2, beta: (_water(eigenvalues, sigma2, beta)[0], beta * len(eigenvalues) / 2),
            "the half of the logarithm is missing.":
                lambda eigenvalues, sigma2, beta: (2 * _water(eigenvalues, sigma2, beta)[0],
                                                   _water(eigenvalues, sigma2, beta)[1]),
            "the distortion is the error over 2 sigma²: you left that out.":
                lambda eigenvalues, sigma2, beta: (_water(eigenvalues, sigma2, beta)[0],
                                                   2 * sigma2 * _water(eigenvalues, sigma2, beta)[1]),
            "the distortion is the error over 2 sigma²: the 2 is missing.":
                lambda eigenvalues, sigma2, beta: (_water(eigenvalues, sigma2, beta)[0],
                                                   2 * _water(eigenvalues, sigma2, beta)[1]),
            "the water level is beta times sigma²: you took beta.":
                lambda eigenvalues, sigma2, beta: ((0.5 * (eigenvalues / beta).log()).clamp_min(0).sum(),
                                                   eigenvalues.clamp_max(beta).sum() / (2 * sigma2)),
            "the water level is beta times sigma²: you took sigma² (right for beta = 1).":
                lambda eigenvalues, sigma2, beta: _water(eigenvalues, sigma2, 1.0),
            "a dimension under water still costs distortion: its error is its whole variance.":
                lambda eigenvalues, sigma2, beta: (
                    _water(eigenvalues, sigma2, beta)[0],
                    beta * sigma2 * (eigenvalues > beta * sigma2).double().sum() / (2 * sigma2)),
            "you took the larger of variance and water level: the error is the smaller.":
                lambda eigenvalues, sigma2, beta: (_water(eigenvalues, sigma2, beta)[0],
                                                   eigenvalues.clamp_min(beta * sigma2).sum() / (2 * sigma2)),
        },
        hint="For beta * sigma2 above all eigenvalues the rate is 0 and the distortion sum(eigenvalues) / (2 sigma2).",
    ),
    "6.3": Exercise(
        cases=lambda: [(_normal(3).log_softmax(0), 4 * _normal(5, 3, seed=1), 2.0),
                       (_normal(4, seed=2).log_softmax(0), 6 * _normal(2, 4, seed=3), 0.25),
                       (_normal(3, seed=4).log_softmax(0), 900 * _normal(4, 3, seed=5) - 3000, 0.5)],
        solution=_log_e_step,
        mistakes={
            "the prior is not raised to a power: only the likelihood is.":
                lambda log_prior, log_likelihood, beta: ((log_prior + log_likelihood) / beta).softmax(-1),
            "the exponent is 1 / beta, not beta.":
                lambda log_prior, log_likelihood, beta: (log_prior + beta * log_likelihood).softmax(-1),
            "beta is missing: this is Bayes' rule.":
                lambda log_prior, log_likelihood, beta: (log_prior + log_likelihood).softmax(-1),
            "the exponent 1 / beta belongs to the likelihood; you gave the prior beta.":
                lambda log_prior, log_likelihood, beta: (beta * log_prior + log_likelihood).softmax(-1),
            "the prior is missing.":
                lambda log_prior, log_likelihood, beta: (log_likelihood / beta).softmax(-1),
            "normalize over z, the last axis: you normalized over the points.":
                lambda log_prior, log_likelihood, beta: (log_prior + log_likelihood / beta).softmax(0),
            "this is the logarithm of q: exponentiate.":
                lambda log_prior, log_likelihood, beta: (log_prior + log_likelihood / beta).log_softmax(-1),
            "q is not normalized: each row must sum to one.":
                lambda log_prior, log_likelihood, beta: (log_prior + log_likelihood / beta).exp(),
            "exp underflows for log-likelihoods like -3000: stay in logarithms (softmax).":
                lambda log_prior, log_likelihood, beta: (
                    lambda q: q / q.sum(-1, keepdim=True))((log_prior + log_likelihood / beta).exp()),
        },
        hint="With beta = 1 it must be Bayes' rule, and for a huge beta the prior.",
    ),
    "6.4": Exercise(
        cases=lambda: [(_normal(6, 3) * torch.tensor([1.5, 0.3, 0.0]), -_normal(6, 3, seed=1).abs() / 2, 0.2),
                       (_normal(4, 5, seed=2), 0.2 * _normal(4, 5, seed=3), 0.5)],
        solution=lambda mean, log_var, alpha: _each(mean, log_var).mean(0).clamp_min(alpha).sum(),
        mistakes={
            "average over the batch first, then compare with the allowance: you gave every image its own.":
                lambda mean, log_var, alpha: _each(mean, log_var).clamp_min(alpha).mean(0).sum(),
            "this is the plain rate: each dimension has an allowance of its own, not all of them together.":
                lambda mean, log_var, alpha: _each(mean, log_var).mean(0).sum(),
            "you took the smaller of rate and allowance: the larger counts.":
                lambda mean, log_var, alpha: _each(mean, log_var).mean(0).clamp_max(alpha).sum(),
            "you subtracted the allowance: below it the rate counts as alpha, not as zero.":
                lambda mean, log_var, alpha: (_each(mean, log_var).mean(0) - alpha).clamp_min(0).sum(),
            "you averaged over dimensions: their rates add up.":
                lambda mean, log_var, alpha: _each(mean, log_var).mean(0).clamp_min(alpha).mean(),
            "you averaged over each image's dimensions: average over the images, one number for each dimension.":
                lambda mean, log_var, alpha: _each(mean, log_var).mean(1).clamp_min(alpha).sum(),
            "you summed over the images: average over them.":
                lambda mean, log_var, alpha: _each(mean, log_var).sum(0).clamp_min(alpha).sum(),
            "the half of the rate is missing.":
                lambda mean, log_var, alpha: (2 * _each(mean, log_var)).mean(0).clamp_min(alpha).sum(),
        },
        hint="Print the mean rate of each dimension beside alpha.",
    ),
}

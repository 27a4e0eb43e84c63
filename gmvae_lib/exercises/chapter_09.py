"""Exercises of chapter 9: clustering with the GMVAE."""

import torch
from scipy.optimize import linear_sum_assignment

from gmvae_lib.exercises import Exercise


def _random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _integers(high, n, seed=0):
    return torch.randint(high, (n,), generator=torch.Generator().manual_seed(seed))


def _weights(k, seed=0):
    return (2 * _random(k, seed=seed)).softmax(0)


def _table(y, c):
    table = torch.zeros(int(y.max()) + 1, int(c.max()) + 1, dtype=torch.float64)
    return table.index_put_((y, c), torch.ones(len(y), dtype=torch.float64), accumulate=True)


def _accuracy(y, c):
    table = _table(y, c)
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return table[rows, columns].sum() / len(y)


def _purity(y, c):
    return _table(y, c).amax(0).sum() / len(y)


def _clustered(n, classes, clusters, seed=0):
    """Labels, and clusters that agree with them in part."""
    y = _integers(classes, n, seed)
    c = torch.where(_random(n, seed=seed + 1) < 0.5, (y + 1) % clusters, _integers(clusters, n, seed + 2))
    return y, c


def _unmatched(y, c):
    return (y == c).double().mean()


def _minimized(y, c):
    table = _table(y, c)
    rows, columns = linear_sum_assignment(table.numpy())
    return table[rows, columns].sum() / len(y)


def _greedy(y, c):
    """Each class takes its largest cluster, whether or not another class has it."""
    return _table(y, c).amax(1).sum() / len(y)


def _accuracy_cases():
    return [_clustered(41, 4, 4, 11), _clustered(50, 3, 6, 2), _clustered(45, 5, 3, 3)]


def _log_normal_cases():
    near, far = (-3 * _random(6, 4, 3, seed=s) for s in (1, 2))
    return [(near, _weights(3, 3)), (-2000 - 50 * _random(5, 3, 4, seed=4), _weights(4, 5)),
            (far[:, :1], _weights(3, 6))]


def _responsibilities(log_normal, weights):
    return (weights.log() + log_normal.sum(1)).softmax(1)


def _kl_cases():
    return [(3 * _random(6, 4, 3, seed=1), _weights(3, 2)), (2000 + 30 * _random(5, 6, 4, seed=3), _weights(4, 4))]


def _rate(kl, weights):
    return -(weights.log() - kl.sum(1)).logsumexp(1) / kl.shape[1]


def _agreement_cases():
    some = (3 * _random(6, 4, 3, seed=1)).softmax(2)
    many = (40 * _random(5, 60, 4, seed=2)).softmax(2)
    return [(some, _weights(3, 3)), (many, _weights(4, 4)), (some[:, :2], _weights(3, 5))]


def _agreement(resp, weights):
    return (weights.log() + (resp.log() - weights.log()).sum(1)).logsumexp(1)


def _orders(m, n, seed=0):
    return _random(m, n, seed=seed).argsort(1)


def _chance_cases():
    return [(*_clustered(30, 3, 5, 1), _orders(20, 30, 2)), (*_clustered(24, 4, 12, 4), _orders(15, 24, 5))]


def _chance(y, c, orders):
    return torch.stack([_purity(y[order], c) for order in orders]).mean()


EXERCISES = {
    "9.1": Exercise(
        cases=_accuracy_cases,
        solution=_accuracy,
        mistakes={
            "that is purity: several clusters may take the same class. The match must be one to one.": _purity,
            "each class takes its largest cluster, so that one cluster may serve two classes: match one to one.":
                _greedy,
            "you compared cluster numbers with labels, but clusters have no names: match them first.": _unmatched,
            "linear_sum_assignment minimizes unless you ask for maximize=True.": _minimized,
            "the share, not the number: divide by N.": lambda y, c: _accuracy(y, c) * len(y),
        },
        hint="Count how often class j meets cluster k in a table, and sum the entries that the assignment picks."),
    "9.2": Exercise(
        cases=_log_normal_cases,
        solution=_responsibilities,
        mistakes={
            "log pi is counted V times: the component is chosen once for the whole group.":
                lambda log_normal, weights: (weights.log() + log_normal).sum(1).softmax(1),
            "you averaged the views' log-densities: their densities are multiplied, so the logarithms are summed.":
                lambda log_normal, weights: (weights.log() + log_normal.mean(1)).softmax(1),
            "you averaged the views' own responsibilities: then views vote, and sure ones count no more than others.":
                lambda log_normal, weights: (weights.log() + log_normal).softmax(2).mean(1),
            "the weights are missing.": lambda log_normal, weights: log_normal.sum(1).softmax(1),
            "each column sums to one, but each row must: normalize over the components.":
                lambda log_normal, weights: (weights.log() + log_normal.sum(1)).softmax(0),
        },
        hint="Your densities may have underflowed: stay in logarithms up to a softmax."),
    "9.3": Exercise(
        cases=_kl_cases,
        solution=_rate,
        mistakes={
            "this is the mean of the views' own rates, Eq. (8.16): each view may then choose another component.":
                lambda kl, weights: -(weights.log() - kl).logsumexp(2).mean(1),
            "log pi is counted V times: the component is chosen once for the whole group.":
                lambda kl, weights: -(weights.log() - kl).sum(1).logsumexp(1) / kl.shape[1],
            "this is the rate of the whole group: divide by V.": lambda kl, weights: _rate(kl, weights) * kl.shape[1],
            "you divided by V inside the exponential: that is another function.":
                lambda kl, weights: -(weights.log() - kl.mean(1)).logsumexp(1),
            "the sign: a rate is not negative.": lambda kl, weights: -_rate(kl, weights),
            "the weights are missing.": lambda kl, weights: -(-kl.sum(1)).logsumexp(1) / kl.shape[1],
        },
        hint="Your exponentials may have underflowed: stay in logarithms, with logsumexp."),
    "9.4": Exercise(
        cases=_agreement_cases,
        solution=_agreement,
        mistakes={
            "each of the V responsibilities is divided by pi_k, not all of them together once.":
                lambda resp, weights: resp.log().sum(1).logsumexp(1),
            "the factor pi_k in front of the product is missing.":
                lambda resp, weights: (resp.log() - weights.log()).sum(1).logsumexp(1),
            "nothing is divided by pi_k.": lambda resp, weights: (weights.log() + resp.log().sum(1)).logsumexp(1),
            "you averaged over the views: it is a product, so that logarithms are summed.":
                lambda resp, weights: (weights.log() + (resp.log() - weights.log()).mean(1)).logsumexp(1),
            "the sum over k stands inside the logarithm.":
                lambda resp, weights: (weights.log() + (resp.log() - weights.log()).sum(1)).sum(1),
        },
        hint="Your product over many views may have underflowed: sum logarithms, and end with logsumexp."),
    "9.5": Exercise(
        cases=_chance_cases,
        solution=_chance,
        mistakes={
            "that is the purity of the clusters as they are: shuffle the labels, and leave the clusters.":
                lambda y, c, orders: _purity(y, c),
            "that is accuracy, one to one: purity gives every cluster its commonest class.":
                lambda y, c, orders: torch.stack([_accuracy(y[o], c) for o in orders]).mean(),
            "each class its largest cluster: purity gives each cluster its commonest class.":
                lambda y, c, orders: torch.stack([_greedy(y[o], c) for o in orders]).mean(),
            "the average over the rounds, not their sum.": lambda y, c, orders: _chance(y, c, orders) * len(orders),
        },
        hint="For one round: the table of y[orders[m]] against c, the largest entry of each cluster, summed, over N."),
}

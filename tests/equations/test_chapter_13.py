"""Chapter 13's equations."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Independent

WEIGHTS = np.array([0.3, 0.7])
MEANS = np.array([[-1.0, 0.5], [2.0, -1.0]])
COVARIANCES = np.array([[[1.0, 0.4], [0.4, 0.5]], [[0.3, 0.0], [0.0, 1.2]]])


@pytest.mark.parametrize(("low", "high"), [((-1, 0), (1, 2)), ((1, -3), (3, 0)), ((-9, -9), (9, 9))])
def test_eq_13_1_a_samplers_share_of_a_region_is_the_density_integrated_over_it(low, high):
    rng = np.random.default_rng(0)
    components = [stats.multivariate_normal(m, s) for m, s in zip(MEANS, COVARIANCES)]
    n = 200_000
    c = rng.choice(2, n, p=WEIGHTS)
    z = MEANS[c] + (np.linalg.cholesky(COVARIANCES)[c] @ rng.standard_normal((n, 2, 1)))[:, :, 0]
    share = ((z > low) & (z < high)).all(1).mean()
    axes = [np.linspace(a, b, 801) for a, b in zip(low, high)]
    centers = np.stack(np.meshgrid(*((axis[1:] + axis[:-1]) / 2 for axis in axes)), -1)
    area = math.prod(axis[1] - axis[0] for axis in axes)
    density = sum(w * p.pdf(centers) for w, p in zip(WEIGHTS, components))
    exact = sum(w * p.cdf(np.array(high, float), lower_limit=np.array(low, float))
                for w, p in zip(WEIGHTS, components))
    assert density.sum() * area == pytest.approx(exact, abs=1e-4)
    assert share == pytest.approx(exact, abs=4 * math.sqrt(0.25 / n))


def test_eq_13_2_independent_parts_cost_what_each_of_them_costs():
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, dtype=torch.float64)
    pixels = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)), dtype=torch.float64)
    joint = -Independent(Bernoulli(logits=torch.cat([first, second])), 1).log_prob(pixels)
    parts = [-(x * a - torch.log1p(a.exp())).sum(1) for x, a in ((pixels[:, :3], first), (pixels[:, 3:], second))]
    assert torch.allclose(joint, parts[0] + parts[1])
    assert float((-joint).exp().sum()) == pytest.approx(1)  # all 64 pairs of images: a distribution


def test_eq_13_3_a_central_difference_is_the_slope_up_to_a_square():
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def f(t):
        return torch.sin(3 * t) * t.exp()

    slope, = torch.autograd.grad(f(t), t)
    errors = [abs(((f(t + h) - f(t - h)) / (2 * h) - slope).item()) for h in (1e-2, 5e-3, 2.5e-3)]
    assert errors[0] < 1e-2
    assert [a / b for a, b in zip(errors, errors[1:])] == pytest.approx([4, 4], rel=0.01)

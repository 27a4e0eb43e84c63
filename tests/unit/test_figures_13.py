"""Chapter 13's first picture shows what its programs compute, and only one of them is right."""

import numpy as np
import pytest
import torch
from scipy import stats

from gmvae_lib import figures
from gmvae_lib.mixture import GaussianMixture


@pytest.fixture(scope="module")
def axes():
    picture = figures.six_programs()
    assert picture.alt.startswith("Six panels.")
    return picture.figure.axes


def test_the_panels_are_lettered(axes):
    assert [axis.get_title().split()[0] for axis in axes] == list("ABCDEF")


def test_the_density_has_twice_as_many_bumps_as_centers(axes):
    values = axes[0].collections[0].get_array().reshape(121, 121)
    inner = values[1:-1, 1:-1]
    tops = np.logical_and.reduce([inner > values[1 + i:120 + i, 1 + j:120 + j] for i in (-1, 0, 1) for j in (-1, 0, 1)
                                  if i or j])
    assert tops.sum() == 4 and len(axes[0].lines[0].get_xdata()) == 2


def test_right_em_has_come_to_rest_where_the_wrong_one_starts(axes):
    x, weights, means, sds = figures.unequal_pair()
    fit = GaussianMixture(2, weights_init=weights, means_init=means[:, None], tol=0, max_iter=1, reg_covar=0,
                          precisions_init=1 / sds[:, None, None]**2).fit(x[:, None])
    assert torch.allclose(torch.as_tensor(fit.weights_), weights, atol=1e-6)
    shown = axes[1].lines[0].get_ydata()
    mixture = sum(w * stats.norm.pdf(x, m, s) for w, m, s in zip(weights.numpy(), means.numpy(), sds.numpy()))
    assert shown[0] == pytest.approx(np.log(mixture).sum())
    assert shown[1] < shown[0] - 10 and shown[-1] < shown[0]


def test_too_many_draws_lie_outside_two_standard_deviations(axes):
    dots, outline = (np.array(line.get_xydata()) for line in axes[2].lines)
    outside = ((dots / outline.max(0))**2).sum(1) > 1
    assert outside.mean() > 2 * np.exp(-2)  # of right draws, exp(-2) would be


def test_one_share_ends_undecided_and_the_right_one_does_not(axes):
    x, wrong = axes[3].lines[0].get_data()
    assert wrong[0] == pytest.approx(0.5) and wrong[-1] == pytest.approx(0.5) and wrong[abs(x + 4).argmin()] > 0.99
    x, right = axes[4].lines[0].get_data()
    narrow, wide = stats.norm.pdf(x), stats.norm.pdf(x, 0, 3)
    assert np.allclose(right, narrow / (narrow + wide), atol=1e-12)


def test_the_rate_sinks_below_zero(axes):
    rates = axes[5].lines[0].get_ydata()
    assert rates[0] > 2 and rates[-1] < -1 and (np.diff(rates) < 0).all()

"""Chapter 02's figures show what they say."""

import numpy as np
import pytest
import torch

from gmvae_lib import em, figures
from gmvae_lib.data import load
from gmvae_lib.mixture import GaussianMixture

X = load("cigars", n_samples=120).x.double()
MEANS = torch.tensor([[-3, 3], [0, -2], [3, 3]]).double()


@pytest.fixture(scope="module")
def fitted():
    return GaussianMixture(3, seed=0).fit(X)


def test_shares_are_the_responsibilities(fitted):
    shares = figures.shares(X, fitted.weights_, fitted.means_, fitted.covariances_)
    assert torch.allclose(shares, fitted.predict_proba(X))


def test_a_sure_point_has_its_components_colour_and_a_torn_one_the_mixture():
    sure, torn = figures.blend(torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    first, second = figures.blend(torch.eye(2))
    assert np.allclose(sure, second)
    assert np.allclose(torn, (first + second) / 2)


def test_panels_show_every_point_once_with_its_likeliest_components_marker(fitted):
    resp = fitted.predict_proba(X)
    mixture = (fitted.weights_, fitted.means_, fitted.covariances_)
    picture = figures.mixture_panels(X, {"bare": (None, None), "soft": (resp, mixture)}, "Two panels.")
    bare, soft = picture.figure.axes
    assert np.allclose(np.stack(bare.lines[0].get_data(), 1), X)
    clouds = [np.asarray(cloud.get_offsets()) for cloud in soft.collections]
    assert [len(cloud) for cloud in clouds] == torch.bincount(resp.argmax(1)).tolist()
    assert np.allclose([text.get_position() for text in soft.texts], fitted.means_)
    assert [axis.get_title() for axis in picture.figure.axes] == ["bare", "soft"]


def test_stages_are_em(fitted):
    picture = figures.em_stages(X, MEANS, {"start": 0, "two": 2}, "Two panels.")
    start, two = ([text.get_position() for text in axis.texts] for axis in picture.figure.axes)
    now = em.Parameters(torch.ones(3).double() / 3, MEANS, torch.eye(2).double().repeat(3, 1, 1))
    assert np.allclose(start, MEANS)
    for _ in range(2):
        now, _ = em.em_step(X, now)
    assert np.allclose(two, now.means)


def test_jensens_marks_stand_at_the_two_averages():
    picture = figures.jensen([0.4, 4.0], [0.6, 0.4], "A curve.")
    marks = [line.get_data() for line in picture.figure.axes[0].lines if len(line.get_xdata()) == 1]
    (x1, above), (x2, below) = ((float(x[0]), float(y[0])) for x, y in marks)
    assert x1 == x2 == pytest.approx(1.84)
    assert above == pytest.approx(np.log(1.84))
    assert below == pytest.approx(0.6 * np.log(0.4) + 0.4 * np.log(4))


def test_strip_shows_every_value_in_its_groups_row():
    groups = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": [5.0]}
    axis = figures.strip(groups, "t", "x", "Two rows of dots.").figure.axes[0]
    for row, (line, values) in enumerate(zip(axis.lines, groups.values())):
        assert sorted(line.get_xdata()) == sorted(map(float, values))
        assert (abs(line.get_ydata() - row) < 0.5).all()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]

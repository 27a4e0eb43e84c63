"""The first page's widget: what its sliders do to the picture and to the words."""

import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.explorers import GMVAEExplorer
from gmvae_lib.pretrained import load_digits_gmvae


@pytest.fixture(scope="module")
def panel():
    return GMVAEExplorer(*load_digits_gmvae(), load("digits"), load("digits", "test"))


@pytest.mark.parametrize(("control", "values"), [("k", (3, 12)), ("beta", (0.1, 10.0))])
def test_each_slider_changes_the_picture_and_the_words(panel, control, values):
    pictures, words = set(), set()
    for value in values:
        getattr(panel, control).value = value
        assert panel.error is None
        pictures.add(panel.image.value)
        words.add(panel.status.value)
    assert len(pictures) == len(words) == 2


def test_every_setting_works(panel):
    for n_components in (1, 2, 20):
        for beta in (0.01, 1.0, 100.0):
            panel.set_quietly(k=n_components, beta=beta)
            assert panel.error is None
            assert f"K = {n_components}, β = {beta:.3g}." in panel.status.value


def test_a_larger_beta_buys_a_shorter_code_and_a_worse_drawing(panel):
    panel.set_quietly(k=10, beta=0.3)
    panel.beta.value = 3.0
    assert "β rose: the code became" in panel.status.value
    assert "nats shorter, and the drawing" in panel.status.value
    assert "nats worse." in panel.status.value


def test_the_prior_beats_the_partition_it_starts_from(panel):
    """Each step of EM lowers the rate on the training images."""
    with torch.no_grad():
        mean, log_var = panel.model.encode(panel.train_x, 0.3)
        prior = panel.prior(10, 0.3)
        rate = prior.rate(mean, log_var).mean()
        prior.update(mean, log_var)
        assert prior.rate(mean, log_var).mean() <= rate + 1e-4

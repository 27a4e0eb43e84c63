"""Chapter 8's widget shows the rates that the library and quadrature give, anywhere its sliders reach."""

import itertools

import pytest
import torch

from gmvae_lib.data import load
from gmvae_lib.explorers import RateExplorer, quick_gmvae
from gmvae_lib.prior import MixturePrior


@pytest.fixture(scope="module")
def panel():
    return RateExplorer()


def test_rates_are_ordered_and_the_exact_one_agrees_with_monte_carlo(panel):
    for place, width, distance in itertools.product((-4.0, 0.0, 1.5), (0.1, 1.0, 2.5), (0.0, 3.0, 6.0)):
        panel.set_quietly()
        panel.place.value, panel.width.value, panel.distance.value = place, width, distance
        (exact, collapsed, joint), gamma, *_ = panel.rates()
        assert exact <= collapsed + 1e-9 and collapsed <= joint + 1e-9
        prior = MixturePrior(2, 1)
        prior.set_parameters(torch.ones(2) / 2, torch.tensor([[-distance / 2], [distance / 2]]), torch.ones(2, 1))
        q = torch.tensor([[place]]), 2 * torch.tensor([[width]]).log()
        many = [value.expand(4000, 1) for value in q]  # in one call, where n_samples would make 4,000 one by one
        drawn = prior.rate(*many, method="exact", generator=torch.Generator().manual_seed(0)).mean()
        assert exact == pytest.approx(drawn.item(), rel=0.05, abs=0.15)
        assert gamma.sum().item() == pytest.approx(1)


def test_caption_and_picture_follow_every_slider(panel):
    for name, value in (("place", 2.0), ("width", 1.5), ("distance", 5.0)):
        before = panel.image.value, panel.status.value
        getattr(panel, name).value = value
        assert panel.error is None
        assert panel.image.value != before[0] and panel.status.value != before[1]


def test_preview_is_a_gmvae_that_separates_the_images():
    torch.manual_seed(0)
    data = load("digits")
    model = quick_gmvae(data)
    assert model.prior.n_components == 10
    assert len(model.predict(data.x).unique()) == 10

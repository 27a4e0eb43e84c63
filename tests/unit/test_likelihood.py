"""Decoders' likelihoods against torch.distributions, enumeration and quadrature."""

import pytest
import torch
from scipy.integrate import quad
from torch.distributions import Bernoulli, Binomial, Normal

from gmvae_lib import likelihood


@pytest.fixture
def params():
    return 2 * torch.randn(7, 5)


def test_bernoulli_equals_torchs(params):
    x = torch.bernoulli(torch.full((7, 5), 0.5))
    expected = Bernoulli(logits=params).log_prob(x).sum(1)
    assert torch.allclose(likelihood.Bernoulli().log_prob(x, params), expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 16, 255])
def test_binomial_equals_torchs(params, count):
    x = torch.randint(0, count + 1, (7, 5)).float()
    expected = Binomial(count, logits=params).log_prob(x).sum(1)
    assert torch.allclose(likelihood.Binomial(count).log_prob(x, params), expected, rtol=1e-4, atol=1e-3)


def test_gaussian_equals_torchs(params):
    x = torch.randn(7, 5)
    expected = Normal(params, 0.3).log_prob(x).sum(1)
    assert torch.allclose(likelihood.Gaussian(0.3).log_prob(x, params), expected, rtol=1e-5)


def test_each_sums_to_one_over_its_support():
    logit = torch.tensor([[0.7]])
    for model, support in ((likelihood.Bernoulli(), 2), (likelihood.Binomial(16), 17)):
        x = torch.arange(support).float()[:, None]
        assert model.log_prob(x, logit).exp().sum() == pytest.approx(1, abs=1e-5)
    gaussian = likelihood.Gaussian(0.5)
    total = quad(lambda t: gaussian.log_prob(torch.tensor([[t]]), logit).exp().item(), -4, 5)[0]
    assert total == pytest.approx(1, abs=1e-5)


def test_the_dynamic_bernoulli_is_the_mean_over_all_draws_of_its_pixels(params):
    """By enumeration of the 2^5 images that can be drawn, each with its probability."""
    model, x = likelihood.DynamicBernoulli(255), torch.randint(0, 256, (7, 5)).float()
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    chance = Bernoulli(probs=(x / 255).unsqueeze(1)).log_prob(bits).sum(-1).exp()
    expected = (chance * Bernoulli(logits=params.unsqueeze(1)).log_prob(bits).sum(-1)).sum(1)
    assert torch.allclose(model.log_prob(x, params), expected, rtol=1e-4)
    drawn = model.draw(x, torch.Generator().manual_seed(0))
    assert drawn.unique().tolist() == [0, 255]
    assert torch.equal(model.log_prob(drawn, params), likelihood.Bernoulli().log_prob(drawn / 255, params))
    many = model.draw(x.expand(20_000, 7, 5), torch.Generator().manual_seed(0))
    assert torch.allclose(many.mean(0), x, atol=5)


def test_extreme_logits_stay_finite():
    x, params = torch.tensor([[0.0, 1.0]]), torch.tensor([[-500.0, 500.0]])
    assert likelihood.Bernoulli().log_prob(x, params).item() == pytest.approx(0)
    assert likelihood.Binomial(16).log_prob(16 * x, params).item() == pytest.approx(0, abs=1e-4)
    assert likelihood.Bernoulli().log_prob(1 - x, params).item() == pytest.approx(-1000)


@pytest.mark.parametrize("model", [likelihood.Bernoulli(), likelihood.Binomial(16), likelihood.Gaussian(0.5)])
def test_samples_lie_in_the_support_and_have_the_mean(model):
    params = torch.tensor([[-1.5, 0.0, 0.8]])
    x = model.sample(params.expand(50_000, 3), torch.Generator().manual_seed(0))
    model.check(x)
    assert torch.allclose(x.mean(0), model.mean(params)[0], atol=0.03 * model.scale)
    assert x[:9].equal(model.sample(params.expand(50_000, 3), torch.Generator().manual_seed(0))[:9])


@pytest.mark.parametrize(("model", "x", "message"), [
    (likelihood.Bernoulli(), [[0.0, 0.5]], r"0 or 1 \(Bernoulli\), but x runs from 0 to 0.5.*binarize, or use Bin"),
    (likelihood.DynamicBernoulli(255), [[0.0, 255.5]], r"in 0..255 \(DynamicBernoulli\), but x runs from 0 to 255.5"),
    (likelihood.DynamicBernoulli(1), [[-0.5]], "rescale, or give the largest"),
    (likelihood.Binomial(16), [[0.0, 17.0]], r"whole numbers in 0..16 \(Binomial\), but x runs from 0 to 17"),
    (likelihood.Binomial(16), [[-1.0, 3.0]], "runs from -1 to 3.*rescale and round, or use Gaussian"),
    (likelihood.Binomial(16), [[0.5, 3.0]], "whole numbers in 0..16"),
    (likelihood.Binomial(255), [[256.0]], "whole numbers in 0..255"),
    (likelihood.Gaussian(), [[float("inf")]], r"finite \(Gaussian\).*drop those images"),
])
def test_pixels_outside_the_support_are_refused_with_what_to_do(model, x, message):
    with pytest.raises(ValueError, match=message):
        model.check(torch.tensor(x))


def test_the_noise_is_learnt_and_its_floor_can_be_left_again():
    """The optimum of sigma is the residuals' standard deviation, wherever one starts, below the floor too."""
    residuals = 0.2 * torch.randn(2000, 3)
    for sigma, floor in ((1.0, 1e-3), (0.01, 0.05)):
        model = likelihood.Gaussian(sigma, min_sigma=floor)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            (-model.log_prob(residuals, torch.zeros(2000, 3)).mean()).backward()
            optimizer.step()
        assert model.sigma.item() == pytest.approx(0.2, rel=0.03)
    assert likelihood.Gaussian(1e-9).sigma.item() == pytest.approx(1e-3)


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"sigma": -1.0}, {"min_sigma": 0.0}])
def test_a_noise_of_zero_is_refused(settings):
    with pytest.raises(ValueError, match="both must be above 0"):
        likelihood.Gaussian(**settings)

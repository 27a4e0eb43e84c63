"""Priors and their rates against torch.distributions, Monte Carlo, enumeration and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from gmvae_lib.gaussian import kl_standard
from gmvae_lib.mixture import GaussianMixture
from gmvae_lib.prior import MixturePrior, StandardNormal

KINDS = ("diag", "full")


def prior(kind, k=4, dim=3, seed=0):
    """A mixture prior with everything uneven, in float64."""
    generator = torch.Generator().manual_seed(seed)
    result = MixturePrior(k, dim, kind).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return result


def distribution(p):
    if p.covariance_type == "diag":
        components = Independent(Normal(p.means, (0.5 * p.log_var).exp()), 1)
    else:
        components = MultivariateNormal(p.means, scale_tril=p.scale_tril)
    return MixtureSameFamily(Categorical(p.weights), components)


def encoded(n=50, dim=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return 1.5 * mean, log_var - 1


@pytest.mark.parametrize("kind", KINDS)
def test_density_and_component_densities_equal_torchs(kind):
    p, (z, _) = prior(kind), encoded()
    expected = distribution(p)
    assert torch.allclose(p.log_prob(z), expected.log_prob(z))
    assert torch.allclose(p.component_log_prob(z), expected.component_distribution.log_prob(z.unsqueeze(1)))


def test_density_is_not_a_product_of_one_dimensional_mixtures():
    """The published mistake: with centers at ±(3, 3), (−3, 3) is far from both."""
    p = MixturePrior(2, 2)
    p.set_parameters([0.5, 0.5], [[3.0, 3.0], [-3.0, -3.0]], np.ones((2, 2)))
    assert p.log_prob(torch.tensor([[-3.0, 3.0]])).item() == pytest.approx(-19.84, abs=0.01)


def test_standard_normal_equals_torchs():
    p, (mean, log_var) = StandardNormal(3), encoded()
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    standard = Independent(Normal(torch.zeros(3).double(), torch.ones(3).double()), 1)
    assert torch.allclose(p.log_prob(mean), standard.log_prob(mean))
    assert torch.allclose(p.rate(mean, log_var), kl_divergence(q, standard))
    assert p.responsibilities(mean, log_var).equal(torch.ones(50, 1).double())
    assert p.sample(5).shape == (5, 3) and p.sample(5, component=0).shape == (5, 3)
    with pytest.raises(ValueError, match="component is 1: a standard normal has only number 0"):
        p.sample(5, component=1)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_agree_with_the_density(kind):
    p = prior(kind)
    with torch.no_grad():
        z = p.sample(200_000, generator=torch.Generator().manual_seed(0))
        truth = distribution(p)
        assert torch.allclose(z.mean(0), truth.mean, atol=0.02)
        assert torch.allclose(z.var(0), truth.variance, rtol=0.03)
        entropy = -truth.log_prob(truth.sample((200_000,))).mean()
        assert -p.log_prob(z).mean().item() == pytest.approx(entropy.item(), abs=0.02)
        for k in range(4):
            z = p.sample(100_000, component=k, generator=torch.Generator().manual_seed(k))
            covariance = p.covariances[k].diag() if kind == "diag" else p.covariances[k]
            assert torch.allclose(z.mean(0), p.means[k], atol=0.05)
            assert torch.allclose(z.T.cov(), covariance, rtol=0.05, atol=0.05)
    for component in (-1, 4):
        with pytest.raises(ValueError, match=f"component is {component}: choose 0 to 3, or None for all"):
            p.sample(2, component=component)


@pytest.mark.parametrize("kind", KINDS)
def test_component_divergences_equal_torchs(kind):
    p, (mean, log_var) = prior(kind), encoded()
    q = MultivariateNormal(mean, covariance_matrix=torch.diag_embed(log_var.exp()))
    covariances = p.covariances if kind == "full" else torch.diag_embed(p.covariances)
    expected = torch.stack([kl_divergence(q, MultivariateNormal(m, covariance_matrix=c))
                            for m, c in zip(p.means, covariances, strict=True)], 1)
    assert torch.allclose(p.component_kl(mean, log_var), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_rate_is_the_divergence_by_quadrature(kind):
    p = prior(kind, dim=1)
    mean, log_var = encoded(3, 1)
    with torch.no_grad():
        found = p.rate(mean, log_var, "exact", n_samples=5000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found, divergence(p, mean, log_var), atol=0.06)


def divergence(p, mean, log_var):
    """KL(q ‖ p) of one-dimensional q, (N, 1) each, by quadrature."""
    grid = torch.linspace(-15, 15, 6001, dtype=torch.float64)[:, None]
    log_q = Normal(mean.T, (0.5 * log_var.T).exp()).log_prob(grid)
    with torch.no_grad():
        return (log_q.exp() * (log_q - p.log_prob(grid)[:, None])).sum(0) * (grid[1] - grid[0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_three_rates_stand_in_their_order(kind, seed, k):
    p, (mean, log_var) = prior(kind, k, 1, seed), encoded(8, 1, seed + 1)
    any_resp = torch.softmax(torch.randn(8, k, generator=torch.Generator().manual_seed(seed)).double(), 1)
    collapsed, best = p.rate(mean, log_var), p.rate(mean, log_var, "joint")
    joint = p.rate(mean, log_var, "joint", resp=any_resp)
    assert (divergence(p, mean, log_var) <= collapsed + 1e-6).all()
    assert torch.allclose(collapsed, best) and (joint >= best - 1e-9).all() and (collapsed >= -1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_joint_rate_is_the_divergence_over_component_and_latent(kind):
    """Enumerated: sum over k of gamma_k (log gamma_k - log pi_k + KL_k)."""
    p, (mean, log_var) = prior(kind), encoded()
    resp = torch.softmax(torch.randn(50, 4).double(), 1)
    kl = p.component_kl(mean, log_var)
    expected = sum(resp[:, k] * (resp[:, k].log() - p.weights[k].log() + kl[:, k]) for k in range(4))
    assert torch.allclose(p.rate(mean, log_var, "joint", resp), expected)
    hard = torch.nn.functional.one_hot(resp.argmax(1), 4).double()  # zeros among the responsibilities do no harm
    assert p.rate(mean, log_var, "joint", hard).isfinite().all()
    assert torch.allclose(p.responsibilities(mean, log_var), (p.weights.log() - kl).softmax(1))


@pytest.mark.parametrize("method", ["collapsed", "exact", "joint"])
def test_one_standard_component_is_the_standard_normal(method):
    p = MixturePrior(1, 3, spread=0.0).double()
    mean, log_var = encoded()
    found = p.rate(mean, log_var, method, n_samples=4000, generator=torch.Generator().manual_seed(0))
    tolerance = 0.2 if method == "exact" else 1e-12
    assert torch.allclose(found, StandardNormal(3).rate(mean, log_var), atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_resp", [True, False])
def test_update_is_the_optimum(kind, given_resp):
    """At the M-step's parameters the joint rate has no gradient, and every step away from them costs."""
    p, (mean, log_var) = prior(kind), encoded()
    p.min_var = 1e-9
    drawn = torch.softmax(2 * torch.randn(50, 4).double(), 1)
    resp = drawn if given_resp else p.responsibilities(mean, log_var).detach()
    before = p.rate(mean, log_var, "joint", resp).mean().item()
    p.update(mean, log_var, resp if given_resp else None)
    loss = p.rate(mean, log_var, "joint", resp).mean()
    loss.backward()
    assert loss.item() < before
    for name, parameter in p.named_parameters():
        gradient = parameter.grad.tril(-1) if name == "lower" else parameter.grad
        assert gradient.abs().max() < 1e-9, name
    with torch.no_grad():
        for _ in range(20):
            shaken = prior(kind)
            shaken.min_var = 1e-9
            for a, b in zip(shaken.parameters(), p.parameters(), strict=True):
                a.copy_(b + 0.02 * torch.randn_like(b))
            assert shaken.rate(mean, log_var, "joint", resp).mean() > loss


@pytest.mark.parametrize("kind", KINDS)
def test_updates_never_raise_the_collapsed_rate(kind):
    p, (mean, log_var) = prior(kind), encoded(200)
    rates = []
    for _ in range(20):
        rates.append(p.rate(mean, log_var).mean().item())
        p.update(mean, log_var)
    assert (np.diff(rates) <= 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_updates_on_points_without_spread_are_em(kind):
    x = torch.cat([torch.randn(100, 2) - 3, 0.5 * torch.randn(100, 2) + 2]).double()
    unit = torch.ones(2, 2) if kind == "diag" else torch.eye(2).repeat(2, 1, 1)
    gmm = GaussianMixture(2, kind, max_iter=1, tol=0, means_init=x[[0, -1]], weights_init=[0.5, 0.5], reg_covar=0.0,
                          precisions_init=unit).fit(x)
    p = MixturePrior(2, 2, kind, min_var=1e-9).double()
    p.set_parameters(torch.tensor([0.5, 0.5]), x[[0, -1]], unit)
    p.update(x, torch.full_like(x, -80.0))
    assert torch.allclose(p.weights, gmm.weights_) and torch.allclose(p.means, gmm.means_)
    assert torch.allclose(p.covariances, gmm.covariances_)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_make_the_round_trip(kind):
    source, target = prior(kind, seed=3), prior(kind, seed=4)
    target.set_parameters(source.weights, source.means, source.covariances)
    for name in ("weights", "means", "covariances"):
        assert torch.allclose(getattr(target, name), getattr(source, name))
    gmm = GaussianMixture(4, kind).fit(torch.randn(300, 3))
    target.set_parameters(gmm.weights_, gmm.means_, gmm.covariances_)
    z = torch.randn(20, 3).double()
    assert torch.allclose(target.log_prob(z), gmm.score_samples(z), atol=1e-8)
    target.set_parameters(*(v.numpy() for v in (gmm.weights_, gmm.means_, gmm.covariances_)))
    assert torch.allclose(target.log_prob(z), gmm.score_samples(z), atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_variances_keep_above_the_floor(kind):
    p = MixturePrior(2, 2, kind, min_var=0.01).double()
    flat = torch.zeros(2, 2) if kind == "diag" else torch.tensor([[1.0, 1.0], [1.0, 1.0]]).repeat(2, 1, 1)
    p.set_parameters(torch.tensor([0.5, 0.5]), torch.zeros(2, 2), flat)
    covariances = torch.diag_embed(p.covariances) if kind == "diag" else p.covariances
    assert torch.linalg.eigvalsh(covariances).min() >= 0.01 * (1 - 1e-5)
    with torch.no_grad():
        p.log_scale.fill_(-50.0)
    assert p.log_var.exp().min().item() == pytest.approx(0.01)


def test_a_variance_below_the_floor_can_rise_again():
    """A clamp has no gradient there: once sunk, a component would stay tight for ever."""
    p = MixturePrior(1, 2, spread=0.0, min_var=1e-2)
    with torch.no_grad():
        p.log_scale.fill_(-2.5)  # variance 0.0067
    z = torch.randn(500, 2)
    optimizer = torch.optim.Adam(p.parameters(), lr=0.05)
    for _ in range(800):
        optimizer.zero_grad()
        (-p.log_prob(z).mean()).backward()
        optimizer.step()
    assert torch.allclose(p.covariances[0], z.var(0), rtol=0.05)


def test_a_component_that_nobody_claims_keeps_its_place():
    p, (mean, log_var) = prior("diag"), encoded()
    resp = torch.zeros(50, 4).double()
    resp[:, 0] = 1
    before = p.means[2].clone()
    with pytest.warns(RuntimeWarning, match=r"Component \[1, 2, 3\] claims no data"):
        p.update(mean, log_var, resp)
    assert p.means[2].equal(before) and p.weights[0].item() == pytest.approx(1) and p.log_prob(mean).isfinite().all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: MixturePrior(3, 2, "tied"), "covariance_type is 'tied': choose 'diag' or 'full'"),
    (lambda: MixturePrior(0, 2), "n_components is 0: it must be at least 1"),
    (lambda: MixturePrior(3, 2).rate(torch.zeros(1, 2), torch.zeros(1, 2), "exakt"), "method is 'exakt': choose"),
    (lambda: MixturePrior(3, 2).set_parameters(torch.ones(2), torch.zeros(2, 2), torch.ones(2, 2)),
     r"have shapes \[\(2,\), \(2, 2\), \(2, 2\)\]: expected \[\(3,\), \(3, 2\), \(3, 2\)\], for 3 components"),
    (lambda: MixturePrior(3, 2, "full").set_parameters(torch.ones(3), torch.zeros(3, 2), torch.ones(3, 2)),
     r"expected \[\(3,\), \(3, 2\), \(3, 2, 2\)\], for 3 components \('full'\) in 2 dimensions"),
    (lambda: MixturePrior(3, 2).set_parameters(torch.ones(3), torch.zeros(3, 2), torch.eye(2).repeat(3, 1, 1)),
     r"expected \[\(3,\), \(3, 2\), \(3, 2\)\]"),
])
def test_unusable_settings_are_refused_with_what_to_do(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", KINDS)
def test_runs_on_every_device(kind, device):
    p = MixturePrior(3, 2, kind).to(device)
    mean, log_var = torch.randn(9, 2, device=device), torch.zeros(9, 2, device=device)
    p.update(mean, log_var)
    assert p.rate(mean, log_var).device.type == p.sample(3).device.type == device


def test_free_bits_floor_each_dimension_s_mean_rate():
    mean, log_var = torch.tensor([[2.0, 0.1], [0.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, -0.1]])
    each = kl_standard(mean.unsqueeze(2), log_var.unsqueeze(2)).mean(0)
    assert each[0] > 0.3 > each[1]
    rate = StandardNormal(2).rate(mean, log_var, free_bits=0.3)
    assert rate.shape == (2,) and torch.isclose(rate.mean(), each[0] + 0.3)
    mixture = MixturePrior(3, 2)
    plain = mixture.rate(mean, log_var)
    assert mixture.rate(mean, log_var, free_bits=0.01).equal(plain)
    assert mixture.rate(mean, log_var, free_bits=1e3).tolist() == [1e3, 1e3]

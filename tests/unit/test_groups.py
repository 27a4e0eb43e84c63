"""Groups (N, V, d) in the priors and in the VAE: V views, each with its own z, that share one component."""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from gmvae_lib.data import load
from gmvae_lib.em import em_step
from gmvae_lib.evaluation import log_likelihood, mean_elbo
from gmvae_lib.families import Parameters
from gmvae_lib.likelihood import Bernoulli, Gaussian
from gmvae_lib.prior import MixturePrior, StandardNormal
from gmvae_lib.vae import VAE

KINDS, METHODS, V = ("diag", "full"), ("collapsed", "joint", "exact"), 3


def prior(kind, k=4, dim=2, seed=0):
    """A mixture prior with everything uneven, in float64."""
    generator = torch.Generator().manual_seed(seed)
    result = MixturePrior(k, dim, kind).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return result


def encoded(n=50, views=V, dim=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mean, log_var = (torch.randn(n, views, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    return 1.5 * mean, log_var - 1


def stacked(p, views=V):
    """The same density of all views together: a mixture in V d dimensions whose covariances are block-diagonal."""
    matrices = p.covariances if p.covariance_type == "full" else torch.diag_embed(p.covariances)
    joint = MixturePrior(p.n_components, views * p.latent_dim, "full", min_var=1e-12).double()
    blocks = torch.stack([torch.block_diag(*[matrix] * views) for matrix in matrices])
    joint.set_parameters(p.weights, p.means.repeat(1, views), blocks)
    return joint


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_s_density_is_a_mixture_over_all_its_views(kind):
    p, (z, _) = prior(kind), encoded()
    assert torch.allclose(p.log_prob(z), stacked(p).log_prob(z.flatten(1)))
    enumerated = sum(weight * p.component_log_prob(z)[:, :, k].sum(1).exp() for k, weight in enumerate(p.weights))
    assert torch.allclose(p.log_prob(z), enumerated.log())
    assert torch.allclose(StandardNormal(2).double().log_prob(z), Normal(0.0, 1.0).log_prob(z).sum((1, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ("collapsed", "joint"))
def test_a_group_s_rate_is_the_stacked_mixture_s_per_view(kind, method):
    p, (mean, log_var) = prior(kind), encoded()
    whole = stacked(p)
    assert torch.allclose(p.rate(mean, log_var, method), whole.rate(mean.flatten(1), log_var.flatten(1), method) / V)
    expected = whole.responsibilities(mean.flatten(1), log_var.flatten(1))
    assert torch.allclose(p.responsibilities(mean, log_var), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_s_exact_rate_is_its_divergence_by_quadrature_and_the_collapsed_one_a_bound(kind):
    """Two views in one dimension each: KL(q(z_1) q(z_2) ‖ p(z_1, z_2)) on a grid in the plane."""
    p, (mean, log_var) = prior(kind, dim=1), encoded(5, 2, 1)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(-1)  # (cells, 2 views, 1)
    log_q = Independent(Normal(mean.unsqueeze(1), (0.5 * log_var).exp().unsqueeze(1)), 2).log_prob(grid)
    with torch.no_grad():
        truth = (log_q.exp() * (log_q - p.log_prob(grid))).sum(1) * (axis[1] - axis[0]) ** 2
        draws = torch.stack([p.rate(mean, log_var, "exact") for _ in range(4000)])
        assert (p.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** 2).item() == pytest.approx(1, abs=1e-4)
    assert ((draws.mean(0) - truth / 2).abs() < 5 * draws.std(0) / math.sqrt(4000)).all()
    assert (p.rate(mean, log_var) >= truth / 2 - 1e-9).all()
    assert (p.rate(mean, log_var) > truth / 2 + 1e-3).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_joint_rate_of_a_group_enumerated(kind):
    """Per view: sum over k of gamma_k (log gamma_k - log pi_k + sum over views of KL_k), smallest at the optimum."""
    p, (mean, log_var) = prior(kind), encoded()
    resp = torch.softmax(torch.randn(50, 4).double(), 1)
    kl = torch.stack([p.component_kl(mean[:, v], log_var[:, v]) for v in range(V)])
    expected = sum(resp[:, k] * (resp[:, k].log() - p.weights[k].log() + kl[:, :, k].sum(0)) for k in range(4)) / V
    assert torch.allclose(p.rate(mean, log_var, "joint", resp), expected)
    assert (p.rate(mean, log_var, "joint", resp) >= p.rate(mean, log_var)).all()


@pytest.mark.parametrize("free_bits", [0.0, 0.5])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [StandardNormal, lambda d: prior("diag", dim=d), lambda d: prior("full", dim=d)])
def test_one_view_is_the_usual_rate(make, method, free_bits):
    p, (mean, log_var) = make(2), encoded(views=1)
    rates = [p.rate(*q, method=method, free_bits=free_bits, generator=torch.Generator().manual_seed(0))
             for q in ((mean, log_var), (mean[:, 0], log_var[:, 0]))]
    assert torch.allclose(rates[0], rates[1], rtol=1e-14)
    assert torch.equal(p.responsibilities(mean, log_var), p.responsibilities(mean[:, 0], log_var[:, 0]))


@pytest.mark.parametrize("free_bits", [0.0, 0.7])
def test_a_standard_normal_s_rate_of_a_group_is_the_mean_over_views(free_bits):
    """With free bits too, as if the views were points of their own."""
    p, (mean, log_var) = StandardNormal(2), encoded()
    rate = p.rate(mean, log_var, free_bits=free_bits)
    apart = p.rate(mean.flatten(0, 1), log_var.flatten(0, 1), free_bits=free_bits)
    assert torch.allclose(rate.mean(), apart.mean())
    assert rate.shape == (50,)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_views_of_one_component_have_the_rate_of_one(kind):
    """With K = 1 the views are independent; with more, V equal views pay for their component once: the rate falls."""
    mean, log_var = (value.expand(-1, V, -1) for value in encoded(views=1))
    single, several = prior(kind, k=1), prior(kind)
    assert torch.allclose(single.rate(mean, log_var), single.rate(mean[:, 0], log_var[:, 0]))
    assert (several.rate(mean, log_var) >= several.component_kl(mean[:, 0], log_var[:, 0]).amin(1) - 1e-9).all()
    bound = several.component_kl(mean[:, 0], log_var[:, 0]) - several.weights.log() / V
    assert (several.rate(mean, log_var) <= bound.amin(1) + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_the_optimum_for_groups(kind):
    """No small change of any parameter lowers the joint rate with the same responsibilities."""
    p, (mean, log_var) = prior(kind), encoded()
    resp = p.responsibilities(mean, log_var).detach()
    p.update(mean, log_var)
    with torch.no_grad():
        best = p.rate(mean, log_var, "joint", resp).mean()
        parameters = [q for q in p.parameters() if q.numel()]
        saved = [q.clone() for q in parameters]
        for seed in range(60):
            generator = torch.Generator().manual_seed(seed)
            for q, value in zip(parameters, saved, strict=True):
                q.copy_(value + 0.03 * torch.randn(q.shape, generator=generator, dtype=torch.float64))
                assert p.rate(mean, log_var, "joint", resp).mean() > best
                q.copy_(value)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_on_groups_without_spread_are_em_on_groups(kind):
    p, (mean, _) = prior(kind), encoded(n=200)
    start = Parameters(*(value.detach().clone() for value in (p.weights, p.means, p.covariances)))
    p.update(mean, torch.full_like(mean, -60.0))
    expected, _ = em_step(mean, start, kind, reg_covar=0.0)
    for found, value in zip((p.weights, p.means, p.covariances), expected, strict=True):
        assert torch.allclose(found, value, atol=1e-9)


def linear(covariance_type, noise=0.5, dim=4, latent=2, k=3):
    """A linear-Gaussian model with a mixture prior, whose log p(x_1, ..., x_V) is a formula."""
    return VAE.build(dim, latent, (), Gaussian(noise), MixturePrior(k, latent, covariance_type))


def log_evidence(model, x):
    """log p(x_1, ..., x_V), component by component."""
    layer, = model.decoder.mlp.layers
    w, noise = layer.weight, model.likelihood.sigma**2 * torch.eye(x.shape[-1])
    spread = model.prior.covariances
    spread = torch.diag_embed(spread) if spread.ndim == 2 else spread
    parts = MultivariateNormal(model.prior.means @ w.T + layer.bias, w @ spread @ w.T + noise)
    return torch.logsumexp(model.prior.weights.log() + parts.log_prob(x.unsqueeze(-2)).sum(1), 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_group_s_elbo_is_a_lower_bound_of_the_views_log_density(kind, method):
    model, x = linear(kind), torch.randn(30, V, 4)
    with torch.no_grad():
        values = V * torch.stack([model.elbo(x, method=method).value for _ in range(400)])
        truth = log_evidence(model, x)
    assert (values.mean(0) <= truth + 4 * values.std(0) / 20).all()


def test_the_group_s_elbo_in_a_world_of_four_images_by_quadrature():
    """Two pixels, one latent dimension, two views, nothing sampled: sum over all pairs of images of p(x_1, x_2) is 1,
    and no pair's bound -(D_1 + D_2) - 2 rate exceeds log p(x_1, x_2)."""
    torch.manual_seed(3)
    model = VAE.build(2, 1, (8,), Bernoulli(), prior("diag", k=2, dim=1, seed=3)).double()
    grid = torch.linspace(-12, 12, 2001, dtype=torch.float64)[:, None]
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2)
    pairs = torch.stack([images[i] for i in torch.cartesian_prod(torch.arange(4), torch.arange(4)).T], 1)
    with torch.no_grad():
        params, step = model.decoder(grid), grid[1] - grid[0]
        log_given_z = torch.stack([model.likelihood.log_prob(x, params) for x in images])  # (4, cells)
        p_given_c = log_given_z.exp() @ model.prior.component_log_prob(grid).exp() * step  # (4 images, 2 components)
        p = torch.einsum("k,ik,jk->ij", model.prior.weights, p_given_c, p_given_c).flatten()
        assert p.sum().item() == pytest.approx(1, abs=1e-6)
        mean, log_var = model.encoder(images)
        q = Normal(mean, (0.5 * log_var).exp()).log_prob(grid.T).exp() * step  # (4, cells)
        distortion = -(q * log_given_z).sum(1)
        both = distortion[:, None] + distortion
        rate = model.prior.rate(*model.encoder(pairs))
        gap = p.log() + both.flatten() + 2 * rate
        assert gap.min() > 0
        torch.set_default_dtype(torch.float64)
        try:
            draws = torch.stack([-2 * model.elbo(pairs).value for _ in range(3000)])
        finally:
            torch.set_default_dtype(torch.float32)
        expected = both.flatten() + 2 * rate
        assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / math.sqrt(3000)).all()


def test_importance_weights_close_a_group_s_gap():
    model, x = linear("diag", noise=1.5), torch.randn(10, 2, 4)
    model.encoder.reset_log_var(1.5)  # wider than the posterior, so that weights stay bounded
    with torch.no_grad():
        truth, few, many = log_evidence(model, x), log_likelihood(model, x, 1), log_likelihood(model, x, 20_000)
    assert (many - truth).abs().max() < 0.3
    assert (many - truth).abs().mean() < (few - truth).abs().mean() / 5


def test_one_view_is_the_usual_elbo():
    data = load("digits").x[:20]
    model = VAE.build(64, 3, (16,), prior=MixturePrior(4, 3, "full"))
    elbos = [model.elbo(x, 2.0, generator=torch.Generator().manual_seed(0)) for x in (data[:, None], data)]
    assert torch.allclose(elbos[0].distortion, elbos[1].distortion)
    assert torch.allclose(elbos[0].rate, elbos[1].rate)
    assert torch.allclose(elbos[0].value, elbos[1].value)


def test_elbo_of_a_group_is_the_mean_over_its_views_but_for_the_shared_component():
    data = load("digits").x[:30].reshape(10, V, 64)
    model = VAE.build(64, 3, (16,))  # a standard normal has nothing to share
    grouped = model.elbo(data, generator=torch.Generator().manual_seed(0))
    apart = model.elbo(data.flatten(0, 1), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grouped.distortion, apart.distortion.reshape(10, V).mean(1), rtol=1e-5)
    assert torch.allclose(grouped.rate, apart.rate.reshape(10, V).mean(1), rtol=1e-5)
    assert mean_elbo(model, data)[0] == pytest.approx(mean_elbo(model, data.flatten(0, 1))[0], rel=0.02)


def test_a_gated_network_takes_one_beta_for_each_group():
    data = load("digits").x[:30].reshape(10, V, 64)
    model = VAE.build(64, 3, (16,), prior=MixturePrior(4, 3), gated=2.0)
    beta = torch.linspace(0.1, 8, 10)[:, None]
    grouped = model.elbo(data, beta, generator=torch.Generator().manual_seed(0))
    apart = model.elbo(data.flatten(0, 1), beta.repeat_interleave(V, 0), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grouped.distortion, apart.distortion.reshape(10, V).mean(1), rtol=1e-5)
    assert torch.equal(grouped.beta, beta[:, 0])
    assert grouped.value.shape == (10,)


@pytest.mark.parametrize("prior", [None, MixturePrior(4, 3), MixturePrior(4, 3, "full")])
def test_questions_about_groups_have_one_answer_each(prior):
    data = load("digits").x[:30].reshape(10, V, 64)
    model = VAE.build(64, 3, (16,), prior=prior)
    resp = model.responsibilities(data)
    assert resp.shape == (10, model.prior.n_components)
    assert torch.allclose(resp.sum(1), torch.ones(10))
    assert torch.equal(model.predict(data), resp.argmax(1))
    assert torch.allclose(model.predict(data[:, [0, 0]]), model.predict(data[:, 0]))
    assert model.reconstruct(data).shape == data.shape
    with pytest.raises(ValueError, match="Pixels must be whole numbers"):
        model.elbo(data + 0.5)

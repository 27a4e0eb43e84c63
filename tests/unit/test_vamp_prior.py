"""The VampPrior: the encoder's own Gaussians at learnt pseudo-inputs, as a mixture."""

import copy

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from gmvae_lib.checkpoint import load_checkpoint, save_checkpoint
from gmvae_lib.data import load
from gmvae_lib.evaluation import log_likelihood
from gmvae_lib.likelihood import Bernoulli
from gmvae_lib.network import Encoder
from gmvae_lib.prior import VampPrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE


@pytest.fixture
def prior(device):
    torch.manual_seed(0)
    encoder = Encoder(5, 2, (16,)).double()
    with torch.no_grad():  # far enough apart to be told apart
        for parameter in encoder.parameters():
            parameter.mul_(3)
    x = torch.rand(20, 5, dtype=torch.float64)
    prior = VampPrior(4, encoder.to(device), x.to(device)).to(device)
    prior.seen_by = encoder  # as the VAE would hold it
    return prior


def distribution(prior):
    mean, log_var = prior.seen_by(prior.pseudo_inputs)
    return MixtureSameFamily(Categorical(logits=torch.zeros_like(mean[:, 0])),
                             Independent(Normal(mean, (0.5 * log_var).exp()), 1))


def encoded(device, n=6):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 2, generator=generator, dtype=torch.float64).to(device) for _ in range(2)]


def model(n_components=8, seed=0):
    data = load("digits")
    torch.manual_seed(seed)
    result = VAE.build(64, 4, (32,))
    result.prior = VampPrior(n_components, result.encoder, data.x / 16)
    return result, data.x[:256]


def test_density_is_an_equal_mixture_of_the_encoders_gaussians(prior, device):
    z = encoded(device)[0]
    assert torch.allclose(prior.log_prob(z), distribution(prior).log_prob(z))
    assert prior.weights.tolist() == [0.25] * 4


def test_samples_agree_with_the_density(prior, device):
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        z, truth = prior.sample(100_000, generator=generator), distribution(prior)
        assert torch.allclose(z.mean(0), truth.mean, atol=0.03)
        assert torch.allclose(z.var(0), truth.variance, rtol=0.03)
        z = prior.sample(50_000, component=2, generator=generator)
        assert torch.allclose(z.mean(0), prior.means[2], atol=0.03)
        assert torch.allclose(z.var(0), prior.covariances[2], rtol=0.03)
    assert z.device.type == device


def test_exact_rate_agrees_with_monte_carlo_and_is_the_lowest(prior, device):
    mean, log_var = encoded(device)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    with torch.no_grad():
        z = q.sample((50_000,))
        expected = (q.log_prob(z) - distribution(prior).log_prob(z)).mean(0)
        many = mean.repeat(50_000, 1), log_var.repeat(50_000, 1)
        exact = prior.rate(*many, method="exact").reshape(50_000, -1).mean(0)
        assert torch.allclose(exact, expected, rtol=0.02, atol=0.1)
        collapsed = prior.rate(mean, log_var)
        assert (exact <= collapsed + 0.1).all()
        assert torch.allclose(collapsed, prior.rate(mean, log_var, "joint"))


def test_one_pseudo_input_is_one_gaussian(prior, device):
    one = VampPrior(1, prior.seen_by, torch.rand(3, 5, dtype=torch.float64, device=device))
    mean, log_var = encoded(device)
    own = one.components()
    assert torch.allclose(one.rate(*own), torch.zeros(1, dtype=torch.float64, device=device), atol=1e-12)
    assert torch.allclose(one.rate(mean, log_var), one.component_kl(mean, log_var)[:, 0])
    assert one.responsibilities(mean, log_var).eq(1).all()


def test_every_point_as_pseudo_input_gives_the_aggregate_posterior(prior, device):
    x = torch.rand(9, 5, dtype=torch.float64, device=device)
    everything, z = VampPrior(9, prior.seen_by, x), encoded(device)[0]
    mean, log_var = prior.seen_by(x)
    each = Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(z.unsqueeze(1))
    assert torch.allclose(everything.log_prob(z), each.exp().mean(1).log())


def test_gradients_reach_encoder_and_pseudo_inputs(prior, device):
    for method in ("exact", "collapsed"):
        prior.zero_grad()
        prior.rate(*encoded(device), method=method).mean().backward()
        assert prior.pseudo_inputs.grad.abs().max() > 0
        assert all(p.grad.abs().max() > 0 for p in prior.seen_by.parameters())


def test_gradient_of_the_rate_is_right(prior, device):
    mean, log_var = encoded(device, 3)
    inputs = prior.pseudo_inputs.detach().clamp(0.05, 0.95)

    def rate(u):
        with torch.no_grad():
            prior.pseudo_inputs.copy_(u)
        return prior.rate(mean, log_var).sum()

    found, = torch.autograd.grad(rate(inputs), prior.pseudo_inputs)
    step = torch.zeros_like(inputs)
    step[1, 2] = 1e-6
    assert found[1, 2].item() == pytest.approx(((rate(inputs + step) - rate(inputs - step)) / 2e-6).item(), rel=1e-4)


def test_pseudo_inputs_stay_within_their_support_and_can_come_back(prior, device):
    with torch.no_grad():
        prior.pseudo_inputs[0] += 5
    at_the_border = VampPrior(4, prior.seen_by, prior.pseudo_inputs.detach().clamp(0, 1))
    with torch.no_grad():
        at_the_border.pseudo_inputs.copy_(prior.pseudo_inputs.clamp(0, 1))
    assert torch.allclose(prior.means, at_the_border.means)
    prior.means.sum().backward()
    assert prior.pseudo_inputs.grad[0].abs().max() > 0
    free = VampPrior(1, prior.seen_by, 7 * torch.ones(1, 5, dtype=torch.float64, device=device), support=None)
    assert torch.allclose(free.means, prior.seen_by(free.pseudo_inputs)[0])


def test_encoder_is_the_vaes_and_stands_in_its_state_once(tmp_path):
    vae, _ = model()
    assert [name for name in vae.state_dict() if name.startswith("prior")] == ["prior.pseudo_inputs"]
    assert [name for name, _ in vae.prior.named_parameters()] == ["pseudo_inputs"]
    twin = copy.deepcopy(vae)
    assert twin.prior._encoder[0] is twin.encoder is not vae.encoder
    with torch.no_grad():
        for parameter in twin.encoder.parameters():
            parameter.zero_()
    assert twin.prior.means.abs().max() == 0 < vae.prior.means.abs().max()
    save_checkpoint(tmp_path / "vamp.safetensors", vae)
    load_checkpoint(tmp_path / "vamp.safetensors", twin)
    assert twin.prior.means.equal(vae.prior.means)


@pytest.mark.parametrize("method", ["exact", "collapsed"])
def test_training_lowers_the_loss_and_moves_the_pseudo_inputs(method, device):
    vae, x = model()
    before = vae.prior.pseudo_inputs.detach().clone()
    history = fit(vae, x, epochs=20, lr=5e-3, method=method, device=device, progress=False)
    loss = [d + r for d, r in zip(history.distortion, history.rate, strict=True)]
    assert loss[-1] < 0.8 * loss[0]
    assert not torch.equal(vae.prior.pseudo_inputs.detach().cpu(), before)
    assert vae.sample(3, component=1).shape == (3, 64) and vae.responsibilities(x).shape == (256, 8)
    bound = -loss[-1]
    assert log_likelihood(vae, x, 50).mean().item() > bound - 3


def test_a_fixed_prior_keeps_its_pseudo_inputs_but_follows_the_encoder():
    vae, x = model()
    before, means = vae.prior.pseudo_inputs.detach().clone(), vae.prior.means.detach()
    fit(vae, x, epochs=1, prior_update="fixed", device="cpu", progress=False)
    assert torch.equal(vae.prior.pseudo_inputs, before) and not torch.equal(vae.prior.means, means)


def test_groups_of_views_share_a_pseudo_input(prior, device):
    mean, log_var = (value.reshape(3, 2, 2) for value in encoded(device))
    kl = prior.component_kl(mean, log_var)
    assert kl.shape == (3, 2, 4)
    assert torch.allclose(prior.rate(mean, log_var), -torch.logsumexp(-kl.sum(1), 1).sub(torch.tensor(4.0).log()) / 2)


def test_binary_images_need_no_scaling():
    torch.manual_seed(0)
    x = torch.bernoulli(torch.full((30, 6), 0.4))
    vae = VAE.build(6, 2, (8,), Bernoulli())
    vae.prior = VampPrior(5, vae.encoder, x)
    assert vae.elbo(x, method="exact").value.shape == (30,)


def test_bad_input_is_named(prior, device):
    x = torch.rand(3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="n_components is 4: .* at most the 3 points"):
        VampPrior(4, prior.seen_by, x)
    with pytest.raises(ValueError, match="n_components is 0"):
        VampPrior(0, prior.seen_by, x)
    with pytest.raises(ValueError, match=r"outside the support .*x / likelihood.scale"):
        VampPrior(2, prior.seen_by, 16 * x)
    with pytest.raises(ValueError, match=r"x has 4 columns: the encoder, .* takes 5"):
        VampPrior(2, prior.seen_by, x[:, :4])
    with pytest.raises(ValueError, match="has no M-step"):
        fit(model()[0], load("digits").x[:64], epochs=1, prior_update="em", device="cpu")

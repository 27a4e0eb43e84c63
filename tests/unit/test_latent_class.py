"""M2 and Shu's model against enumeration of the classes, linear models whose evidence has a formula, and chapter 5."""

import copy
import math

import pytest
import torch
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from gmvae_lib.checkpoint import load_checkpoint, save_checkpoint
from gmvae_lib.data import load
from gmvae_lib.evaluation import active_units
from gmvae_lib.latent_class import CHOICES, Classifier, LatentClassVAE
from gmvae_lib.likelihood import Bernoulli, Gaussian
from gmvae_lib.network import Decoder, Encoder
from gmvae_lib.prior import MixturePrior, StandardNormal
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

K = 3


def dice(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def linear(told, covariance_type="diag", seed=0):
    """Linear networks and Gaussian noise, in 5 dimensions with codes of 2: log p(x) has a formula."""
    torch.manual_seed(seed)
    prior = MixturePrior(K, 2, covariance_type, spread=2.0)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.5, -0.5, 0.0]))
    model = LatentClassVAE(Classifier(5, K, ()), Encoder(5 + K, 2, ()), Decoder(2 + K * told, 5, ()), Gaussian(0.7),
                           prior)
    with torch.no_grad():
        for network in (model.classifier, model.encoder, model.decoder):
            network.mlp.layers[0].weight.mul_(2)
    return model


def one_hot(c, n):
    return torch.eye(K)[c].expand(n, K)


def enumerated(model, x, generator):
    """Distortion, rate and q(c | x), each (N, K), one class at a time, by torch.distributions."""
    eps = torch.randn(len(x), K, 2, generator=generator)
    parts = []
    for c in range(K):
        mean, log_var = model.encoder(torch.cat([x, one_hot(c, len(x))], 1))
        q = Normal(mean, (0.5 * log_var).exp())
        z = mean + q.stddev * eps[:, c]
        out = model.decoder(torch.cat([z, one_hot(c, len(x))], 1) if model.told else z)
        p = Normal(model.prior.means[c], model.prior.log_scale[c].exp())
        parts.append((-Normal(out, model.likelihood.sigma).log_prob(x).sum(1), kl_divergence(q, p).sum(1)))
    distortion, rate = (torch.stack(part, 1) for part in zip(*parts, strict=True))
    return distortion, rate, model.classifier.mlp(x).softmax(1)


def enumerated_value(model, x, generator, beta=1.0):
    distortion, rate, q = enumerated(model, x, generator)
    price = kl_divergence(Categorical(q), Categorical(model.prior.weights))
    return -((q * (distortion + beta * rate)).sum(1) + beta * price)


def log_evidence(model, x):
    """log sum_c pi_c p(x | c), each a Gaussian."""
    weight, bias = model.decoder.mlp.layers[0].weight, model.decoder.mlp.layers[0].bias
    covariances = model.prior.covariances
    covariances = torch.diag_embed(covariances) if covariances.ndim == 2 else covariances
    means = model.prior.means @ weight[:, :2].T + bias + (weight[:, 2:].T if model.told else 0)
    spread = weight[:, :2] @ covariances @ weight[:, :2].T + model.likelihood.sigma**2 * torch.eye(5)
    return torch.logsumexp(model.prior.weights.log() + MultivariateNormal(means, spread).log_prob(x.unsqueeze(1)), 1)


@pytest.mark.parametrize("told", [False, True], ids=["Shu", "M2"])
class TestAgainstEnumeration:
    def test_exact_bound_and_its_parts(self, told):
        model, x = linear(told), torch.randn(20, 5)
        elbo = model.elbo(x, 2.5, generator=dice())
        assert torch.allclose(elbo.value, enumerated_value(model, x, dice(), 2.5), rtol=1e-4)
        distortion, rate, q = enumerated(model, x, dice())
        each = model.class_elbos(x, generator=dice())
        assert torch.allclose(each.distortion, distortion, rtol=1e-4) and torch.allclose(each.rate, rate, rtol=1e-4)
        assert torch.allclose(elbo.distortion, (q * distortion).sum(1), rtol=1e-4)

    def test_exact_gradient(self, told):
        model, x = linear(told), torch.randn(20, 5)
        parameters = list(model.parameters())
        ours = torch.autograd.grad(model.elbo(x, generator=dice()).value.mean(), parameters)
        theirs = torch.autograd.grad(enumerated_value(model, x, dice()).mean(), parameters)
        assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-3) for a, b in zip(ours, theirs, strict=True))
        assert all(g.abs().max() > 0 for g in ours)

    def test_is_a_lower_bound_of_the_log_evidence(self, told):
        for kind in ("diag", "full"):
            model, x = linear(told, kind), torch.randn(30, 5)
            with torch.no_grad():
                values = torch.stack([model.elbo(x).value for _ in range(400)])
                assert (values.mean(0) <= log_evidence(model, x) + 4 * values.std(0) / 20).all()

    def test_the_best_class_is_a_softmax_and_the_classifier_pays_its_distance(self, told):
        model, x = linear(told), torch.randn(20, 5)
        with torch.no_grad():
            scores = model.class_elbos(x, generator=dice()).value + model.prior.weights.log()  # A_c + log pi_c
            q, log_best = model.responsibilities(x), scores.log_softmax(1)
            gap = (q * (q.log() - log_best)).sum(1)
            expected = torch.logsumexp(scores, 1) - gap
            assert torch.allclose(model.elbo(x, generator=dice()).value, expected, rtol=1e-4)

    def test_with_a_label_each_class_elbo_bounds_the_joint(self, told):
        """log p(x, c) >= A_c + log pi_c, of which the evidence is the sum."""
        model, x = linear(told), torch.randn(20, 5)
        with torch.no_grad():
            draws = torch.stack([model.class_elbos(x).value for _ in range(400)])
            bounds = (draws.mean(0) - 4 * draws.std(0) / 20 + model.prior.weights.log()).logsumexp(1)
            assert (bounds <= log_evidence(model, x)).all()

    def test_samples_have_the_models_moments(self, told):
        model = linear(told)
        weight, bias = model.decoder.mlp.layers[0].weight.detach(), model.decoder.mlp.layers[0].bias.detach()
        means = (model.prior.means @ weight[:, :2].T + bias + (weight[:, 2:].T if told else 0)).detach()
        x = model.sample(40_000, generator=dice())
        assert torch.allclose(x.mean(0), model.prior.weights @ means, atol=0.06)
        for c in range(K):
            assert torch.allclose(model.sample(20_000, c, generator=dice()).mean(0), means[c], atol=0.06)
        assert torch.allclose(model.sample(20_000, 0, noise=True, generator=dice()).mean(0), means[0], atol=0.08)


def test_classes_and_codes_of_a_sample_belong_together():
    """Codes so narrow that they tell their class, and decoders that say which class they were told."""
    model = linear(told=True)
    with torch.no_grad():
        model.prior.log_scale.fill_(-4)
        model.decoder.mlp.layers[0].bias.zero_()
        model.decoder.mlp.layers[0].weight.zero_()
        model.decoder.mlp.layers[0].weight[:2, :2] = torch.eye(2)  # the code, and the class beside it
        model.decoder.mlp.layers[0].weight[2:, 2:] = torch.eye(3)
    x = model.sample(500, generator=dice())
    told = x[:, 2:].argmax(1)
    assert torch.allclose(x[:, :2], model.prior.means[told], atol=0.1)
    shares = told.bincount(minlength=K) / 500
    assert torch.allclose(shares, model.prior.weights, atol=0.08)
    assert (told.diff() != 0).sum() > 200  # in random order, not class by class


def test_one_class_is_the_plain_vae():
    """A single class is a constant input: its weights are a bias."""
    torch.manual_seed(0)
    x = load("digits").x[:50]
    for told in (False, True):
        model = LatentClassVAE.build(64, 3, 1, (16,), told=told)
        with torch.no_grad():
            model.prior.means.zero_()
            plain = VAE.build(64, 3, (16,), prior=StandardNormal(3))
            for network, ours, inputs in ((plain.encoder, model.encoder, 64), (plain.decoder, model.decoder, 3)):
                first, other = network.mlp.layers[0], ours.mlp.layers[0]
                first.weight.copy_(other.weight[:, :inputs])
                first.bias.copy_(other.bias + other.weight[:, inputs:].sum(1))
                network.mlp.layers[1].load_state_dict(ours.mlp.layers[1].state_dict())
        for method in CHOICES:
            model.n_draws = 1
            a, b = model.elbo(x, 1.5, method, generator=dice(7)), plain.elbo(x, 1.5, generator=dice(7))
            if method == "exact":  # the others use up random numbers for the choice
                assert torch.allclose(a.distortion, b.distortion, rtol=1e-5)
            assert torch.allclose(a.rate, b.rate, rtol=1e-4)
        assert torch.allclose(model.reconstruct(x), plain.reconstruct(x), atol=1e-4)
        assert model.responsibilities(x).eq(1).all()


def test_shus_bound_with_a_code_that_ignores_the_class_is_vades():
    model, x = linear(told=False), torch.randn(20, 5)
    with torch.no_grad():
        model.encoder.mlp.layers[0].weight[:, 5:] = 0
        mean, log_var = model.encoder(torch.cat([x, one_hot(0, 20)], 1))
        vade = model.prior.rate(mean, log_var, "joint", resp=model.classifier(x).exp())  # a q(c | x) network in a VAE
        assert torch.allclose(model.elbo(x).rate, vade, rtol=1e-4)


def gradients(model, x, method, times, seed=0):
    """Gradients (times, K) of the loss by the classifier's bias, for `times` independent batches."""
    bias, generator = model.classifier.mlp.layers[0].bias, dice(seed)
    found = [torch.autograd.grad(-model.elbo(x, 1.5, method, generator, validate=False).value.mean(), bias)[0]
             for _ in range(times)]
    return torch.stack(found)


def choice(n=400):
    """A model and one point n times, for which each class has another cost and none is out of the question."""
    model = linear(told=True, seed=2)
    return model, torch.randn(1, 5, generator=dice(1)).expand(n, 5)


@pytest.mark.parametrize("n_draws", [1, 2, 3])
def test_score_function_is_unbiased(n_draws):
    """Within 4.5 standard errors in each entry, where half the gradient would be over 10 off."""
    model, x = choice()
    model.n_draws = n_draws
    exact, score = gradients(model, x, "exact", 100, seed=1), gradients(model, x, "score", 200)
    error = (exact.var(0) / 100 + score.var(0) / 200).sqrt()
    assert ((score.mean(0) - exact.mean(0)).abs() < 4.5 * error).all()
    if n_draws > 1:
        assert (0.5 * exact.mean(0)).norm() > 10 * error.norm()


def test_score_functions_value_is_that_of_the_draws_and_unbiased():
    model, x = choice(20_000)
    with torch.no_grad():
        values = {method: model.elbo(x, method=method, generator=dice(), validate=False) for method in CHOICES}
    for exact, score in zip(values["exact"][:2], values["score"][:2], strict=True):
        assert score.mean().item() == pytest.approx(exact.mean().item(), abs=4.5 * score.std().item() / 141)


def test_a_baseline_takes_noise_away():
    model, x = choice(64)
    noise = []
    for n_draws in (1, 2):
        model.n_draws = n_draws
        noise.append(gradients(model, x, "score", 200).var(0).sum() * n_draws)  # per draw
    assert noise[1] < 0.5 * noise[0]


def test_bias_of_the_relaxed_classes_falls_with_the_temperature():
    """At temperatures 2, 0.5 and 0.05; what is left at the last is within 4.5 standard errors of nothing, or small."""
    model, x = choice()
    exact = gradients(model, x, "exact", 100, seed=1).mean(0)
    biases, errors = [], []
    for temperature in (2.0, 0.5, 0.05):
        model.temperature = temperature
        found = gradients(model, x, "gumbel", 200)
        biases.append((found.mean(0) - exact).norm().item())
        errors.append((found.var(0).sum() / 200).sqrt().item())
    assert biases[0] - biases[1] > 4.5 * (errors[0] + errors[1])
    assert biases[1] - biases[2] > 4.5 * errors[1]
    assert biases[2] < 0.2 * biases[0] + 4.5 * errors[2]


def test_cold_relaxed_classes_are_draws_from_the_classifier():
    model, x = choice(20_000)
    model.temperature, model.n_draws = 0.01, 1
    log_q = model.classifier(x[:1])
    c = model._choose(log_q.expand(20_000, K), "gumbel", dice())
    assert (c.amax(2) > 0.99).float().mean() > 0.95
    assert torch.allclose(c.mean((0, 1)), log_q.exp()[0], atol=0.02)
    assert torch.allclose(c.sum(2), torch.ones(20_000, 1))


@pytest.mark.parametrize("method", CHOICES)
@pytest.mark.parametrize("told", [False, True], ids=["Shu", "M2"])
def test_fit_trains_it(method, told, device, tmp_path):
    x, runs = load("digits").x[:256], []
    for _ in range(2):
        torch.manual_seed(0)
        model = LatentClassVAE.build(64, 4, 5, (32,), told=told)
        before = copy.deepcopy(model.state_dict())
        history = fit(model, x, epochs=15, lr=5e-3, method=method, device=device, progress=False)
        runs.append(model)
    loss = [d + r for d, r in zip(history.distortion, history.rate, strict=True)]
    assert loss[-1] < 0.8 * loss[0]
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value.cpu(), before[name])]
    assert ("prior.means" in moved) is not told and any(name.startswith("classifier") for name in moved)
    a, b = (run.elbo(x, generator=dice(0, device)).value for run in runs)
    assert torch.allclose(a, b, rtol=1e-4)
    save_checkpoint(tmp_path / "model.safetensors", model)
    other = LatentClassVAE.build(64, 4, 5, (32,), told=told).to(device)
    load_checkpoint(tmp_path / "model.safetensors", other)
    assert other.responsibilities(x).equal(model.responsibilities(x))


def test_its_parts_have_the_shapes_of_a_vaes():
    x = load("digits").x[:20]
    for told in (False, True):
        model = LatentClassVAE.build(64, 4, 5, (32,), told=told)
        resp = model.responsibilities(x)
        assert resp.shape == (20, 5) and torch.allclose(resp.sum(1), torch.ones(20)) and not resp.requires_grad
        assert model.predict(x).equal(resp.argmax(1))
        assert model.reconstruct(x).shape == (20, 64) and not model.gated
        model.likelihood.check(model.sample(6, component=3, noise=True))
    black = LatentClassVAE.build(64, 4, 5, (32,), Bernoulli())
    assert black.elbo((x > 8).float()).value.shape == (20,)


def test_reconstruction_is_that_of_the_likeliest_class():
    model, x = linear(told=True), torch.randn(30, 5)
    c = model.predict(x)
    assert len(c.unique()) > 1
    for n in range(30):
        hot = one_hot(c[n], 1)
        code = model.encoder(torch.cat([x[n:n + 1], hot], 1))[0]
        assert torch.allclose(model.reconstruct(x)[n], model.decoder(torch.cat([code, hot], 1))[0], atol=1e-5)


def test_gates_reach_all_three_networks():
    x = load("digits").x[:10]
    model = LatentClassVAE.build(64, 3, 4, (16,), told=True, gated=2.0)
    assert model.gated and not torch.allclose(model.reconstruct(x, 0.1), model.reconstruct(x, 10.0))
    assert not torch.allclose(model.responsibilities(x, 0.1), model.responsibilities(x, 10.0))
    assert model.sample(5, beta=1.0).shape == (5, 64)
    for method in CHOICES:
        beta = torch.linspace(0.1, 5, 10).unsqueeze(1)
        elbo = model.elbo(x, beta, method, dice())
        assert torch.allclose(elbo.value, -(elbo.distortion + beta[:, 0] * elbo.rate))
    same = model.elbo(x, torch.full((10, 1), 2.0), generator=dice()), model.elbo(x, 2.0, generator=dice())
    assert torch.allclose(same[0].value, same[1].value, rtol=1e-5)
    assert model.class_elbos(x, beta).value.shape == (10, 4)
    fit(model, x, epochs=1, beta=(0.1, 10.0), method="exact", device="cpu", progress=False)


def test_free_bits_are_a_floor_under_the_mean_rate():
    model, x = linear(told=True), torch.randn(20, 5)
    rate = model.elbo(x, generator=dice()).rate
    assert model.elbo(x, generator=dice(), free_bits=1e4).rate.eq(1e4).all()
    assert torch.allclose(model.elbo(x, generator=dice(), free_bits=1e-3).rate, rate)


def test_half_precision_reaches_the_networks_but_not_the_sums():
    x = load("digits").x[:64]
    model = LatentClassVAE.build(64, 4, 5, (32,))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        elbo = model.elbo(x, generator=dice())
    assert elbo.rate.dtype == elbo.distortion.dtype == torch.float32
    assert torch.allclose(elbo.distortion, model.elbo(x, generator=dice()).distortion, rtol=0.02)


def test_runs_on_every_device(device):
    x = load("digits").x[:20]
    here = LatentClassVAE.build(64, 3, 4, (16,), told=True)
    there = copy.deepcopy(here).to(device)
    assert torch.allclose(there.reconstruct(x).cpu(), here.reconstruct(x), atol=1e-3)
    for method in CHOICES:
        assert there.elbo(x, method=method, generator=dice(0, device)).value.device.type == device
    assert there.sample(3).device.type == there.sample(3, component=1).device.type == device


@pytest.mark.parametrize("method", ["elbo", "class_elbos", "responsibilities", "predict", "reconstruct", "check"])
def test_input_is_checked(method):
    call, x = getattr(LatentClassVAE.build(64, 3, 4, (16,)), method), load("digits").x[:6].clone()
    with pytest.raises(ValueError, match="x has 63 features: expected 64"):
        call(x[:, :63])
    with pytest.raises(ValueError, match=r"shape \(3, 2, 64\): expected \(N, D\)"):
        call(x.reshape(3, 2, 64))
    with pytest.raises(ValueError, match="whole numbers in 0..16"):
        call(x / 2)
    x[3, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        call(x)


def test_parts_that_do_not_fit_are_named():
    classifier, encoder, decoder = Classifier(64, 4, ()), Encoder(68, 3, ()), Decoder(3, 64, ())
    with pytest.raises(ValueError, match=r"encoder has 64 inputs: expected 64 \+ 4"):
        LatentClassVAE(classifier, Encoder(64, 3, ()), decoder)
    with pytest.raises(ValueError, match=r"decoder has 5 inputs: expected 3.* or 3 \+ 4"):
        LatentClassVAE(classifier, encoder, Decoder(5, 64, ()))
    with pytest.raises(ValueError, match=r"prior has 1 components: expected 4 .*spread=0.0, frozen"):
        LatentClassVAE(classifier, encoder, decoder, prior=StandardNormal(3))
    with pytest.raises(ValueError, match="expected 4 in 3 dimensions"):
        LatentClassVAE(classifier, encoder, decoder, prior=MixturePrior(4, 2))
    for more in ({"temperature": 0.0}, {"n_draws": 0}):
        with pytest.raises(ValueError, match="temperature is .* n_draws"):
            LatentClassVAE(classifier, encoder, decoder, **more)


def test_what_it_cannot_do_is_named():
    model, x = LatentClassVAE.build(64, 3, 4, (16,)), load("digits").x[:64]
    with pytest.raises(ValueError, match=r"method is 'collapsed': choose one of \('exact', 'gumbel', 'score'\)"):
        fit(model, x, epochs=1, device="cpu", progress=False)
    with pytest.raises(ValueError, match="another prior_update than 'em'"):
        fit(model, x, epochs=1, method="exact", prior_update="em", device="cpu", progress=False)
    with pytest.raises(ValueError, match=r"one Gaussian q\(z \| x, c\) for each class"):
        active_units(model, x)
    for component in (-1, 4):
        with pytest.raises(ValueError, match=f"component is {component}: choose 0 to 3"):
            model.sample(2, component)

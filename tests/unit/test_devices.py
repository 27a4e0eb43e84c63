"""Whatever the library computes, each device gives what the CPU gives; and Apple's, which has no float64, is spared it.

Training on each device is tested in `test_training`. The last test runs these on a device without float64, and all
others that take a device on one that has it.
"""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gmvae_lib import evaluation
from gmvae_lib.clustering import Recipe, cluster, encode_views
from gmvae_lib.data import WITHOUT_FLOAT64, Dataset, load, random_affine, views
from gmvae_lib.em import em_step
from gmvae_lib.likelihood import Bernoulli, Binomial, Gaussian
from gmvae_lib.mixture import COVARIANCE_TYPES, GaussianMixture
from gmvae_lib.prior import MixturePrior, StandardNormal, VampPrior
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

ROOT = Path(__file__).parents[2]
X = load("digits").x[:60]
PRIORS = {"standard": lambda encoder: StandardNormal(3), "diagonal": lambda encoder: MixturePrior(4, 3),
          "full": lambda encoder: MixturePrior(4, 3, "full"), "vamp": lambda encoder: VampPrior(4, encoder, X / 16)}
LIKELIHOODS = {"Bernoulli": (Bernoulli, (X > 8).float()), "Binomial": (Binomial, X), "Gaussian": (Gaussian, X / 16)}
MIXTURES = [(kind, init, shape) for kind in COVARIANCE_TYPES for init in ("k-means++", "k-means", "random")
            for shape in ((400, 3), (200, 2, 3))]


def twins(prior="full", likelihood=None, **settings):
    """A VAE, and its like for another device."""
    torch.manual_seed(0)
    vae = VAE.build(64, 3, (16,), likelihood, **settings)
    vae.prior = PRIORS[prior](vae.encoder)
    with torch.no_grad():
        for parameter in vae.prior.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return vae, copy.deepcopy(vae)


def agree(here, there, device, **tolerance):
    assert there.device.type == device
    assert torch.allclose(here, there.cpu(), **{"rtol": 1e-4, "atol": 1e-4} | tolerance)


@pytest.fixture
def fixed_noise(monkeypatch):
    """The same draws of z on every device."""
    def draw(mean, log_var, generator=None):
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        return mean + (0.5 * log_var).exp() * noise.to(mean)

    for module in ("vae", "prior", "evaluation"):
        monkeypatch.setattr(f"gmvae_lib.{module}.sample_diag", draw)


@pytest.mark.parametrize("x", [X, X.reshape(30, 2, 64)], ids=["points", "groups"])
@pytest.mark.parametrize("method", ["collapsed", "exact", "joint"])
@pytest.mark.parametrize("prior", PRIORS)
def test_bounds_gradients_and_responsibilities(prior, method, x, device, fixed_noise):
    here, there = twins(prior)
    there.to(device)
    ends = []
    for vae in (here, there):
        elbo = vae.elbo(x, 0.7, method)
        (-elbo.value.mean()).backward()
        ends.append((elbo, [p.grad for p in vae.parameters()], vae.responsibilities(x)))
    for part in (0, 1):
        agree(ends[0][0][part].detach(), ends[1][0][part].detach(), device, atol=1e-3)
    for a, b in zip(ends[0][1], ends[1][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            agree(a, b, device, atol=1e-3)
    agree(ends[0][2], ends[1][2], device)


@pytest.mark.parametrize("prior", PRIORS)
def test_densities_and_answers(prior, device):
    here, there = twins(prior)
    there.to(device)
    z = torch.randn(20, 3)
    with torch.no_grad():
        agree(here.prior.log_prob(z), there.prior.log_prob(z.to(device)), device)
    agree(here.reconstruct(X), there.reconstruct(X), device)
    assert torch.equal(here.predict(X), there.predict(X.to(device)).cpu())
    for component in (None, 0):
        generator = torch.Generator(device).manual_seed(1)
        first, second = (there.sample(5, component, generator=g) for g in (generator, None))
        assert first.shape == (5, 64) and first.device.type == second.device.type == device


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihoods(name, device):
    build, x = LIKELIHOODS[name]
    here, there = twins("diagonal", build())
    there.to(device)
    params = torch.randn(len(x), 64)
    with torch.no_grad():
        agree(here.likelihood.log_prob(x, params), there.likelihood.log_prob(x.to(device), params.to(device)), device)
    drawn = there.sample(4, noise=True, generator=torch.Generator(device).manual_seed(0))
    assert drawn.device.type == device
    there.check(drawn)
    for bad in (x.to(device) + 0.5, x.to(device) * float("nan")):
        with pytest.raises(ValueError, match=r"Pixels must be|NaN or infinite"):
            there.check(bad if name != "Gaussian" else x.to(device) * float("nan"))


def test_whole_numbers_are_as_good_as_any(device):
    here, there = twins()
    agree(here.check(X), there.to(device).check(X.long().to(device)), device)


@pytest.mark.parametrize("prior", PRIORS)
def test_evaluation(prior, device, fixed_noise):
    here, there = twins(prior)
    there.to(device)
    agree(evaluation.log_likelihood(here, X, 6), evaluation.log_likelihood(there, X, 6), device, rtol=1e-4)
    assert evaluation.mean_elbo(here, X, 2) == pytest.approx(evaluation.mean_elbo(there, X.to(device), 2), rel=1e-4)
    a, b = (evaluation.elbo_surgery(vae, X, 2) for vae in (here, there))
    assert a == pytest.approx(b, abs=1e-3)
    assert torch.equal(evaluation.active_units(here, X), evaluation.active_units(there, X).cpu())


def test_a_gated_network(device, fixed_noise):
    here, there = twins("standard", gated=True)
    there.to(device)
    curves = [evaluation.rate_distortion(vae, X, [0.1, 1.0, 10.0], 1) for vae in (here, there)]
    agree(curves[0].distortion, curves[1].distortion, "cpu")
    agree(curves[0].rate, curves[1].rate, "cpu")
    beta = torch.logspace(-1, 1, len(X)).unsqueeze(1)
    with torch.no_grad():
        agree(here.elbo(X, beta).value, there.elbo(X, beta.to(device)).value, device, atol=1e-3)


@pytest.mark.parametrize("views_each", [1, 3])
@pytest.mark.parametrize("prior", ["diagonal", "full"])
def test_the_prior_s_m_step(prior, views_each, device):
    here, there = (vae.prior for vae in twins(prior))
    there.to(device)
    mean, log_var = 2 * torch.randn(90, 3), torch.randn(90, 3) - 2
    if views_each > 1:
        mean, log_var = (value.reshape(30, 3, 3) for value in (mean, log_var))
    here.update(mean, log_var)
    there.update(mean.to(device), log_var.to(device))
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        agree(a.detach(), b.detach(), device)
    there.set_parameters(there.weights.detach(), there.means.detach() + 1, there.covariances.detach())
    agree(here.means.detach() + 1, there.means.detach(), device)


@pytest.mark.parametrize(("kind", "init", "shape"), MIXTURES)
def test_gaussian_mixtures(kind, init, shape, device):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    x[:80] += 4
    settings = {"n_components": 3, "covariance_type": kind, "init": init, "n_init": 2, "max_iter": 5, "tol": 0}
    weights = torch.rand(len(x), generator=torch.Generator().manual_seed(1)) + 0.5
    here = GaussianMixture(**settings, device="cpu").fit(x, sample_weight=weights)
    # device=device is where it computes, and x.to(device) whence the points come: each by itself, and together
    for where, source, weight in ((device, "cpu", "cpu"), ("cpu", device, "cpu"), (device, device, device)):
        there = GaussianMixture(**settings, device=where).fit(x.to(source), sample_weight=weights.to(weight))
        assert there.lower_bound_ == pytest.approx(here.lower_bound_, abs=1e-4)
        given = x.to(source)
        for answer in (there.score_samples(given), there.predict_proba(given)):
            assert answer.device.type == ("cpu" if source in WITHOUT_FLOAT64 else source)
        assert torch.equal(there.predict(given).cpu(), here.predict(x))
    there = GaussianMixture(**settings, device=device).fit_batches([x[:150].to(device), x[150:].to(device)])
    assert there.lower_bound_ == pytest.approx(GaussianMixture(**settings, device="cpu").fit(x).lower_bound_, abs=1e-4)
    there.partial_fit(x[:100].to(device), sample_weight=weights[:100].to(device))


def test_a_start_given_by_hand(device):
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    start = {"weights_init": torch.full((2,), 0.5), "means_init": x[:2], "precisions_init": torch.ones(2, 2)}
    here = GaussianMixture(2, "diag", device="cpu", **start).fit(x)
    there = GaussianMixture(2, "diag", device=device, **{name: v.to(device) for name, v in start.items()}).fit(x)
    assert there.lower_bound_ == pytest.approx(here.lower_bound_, abs=1e-4)
    fixed = GaussianMixture(2, "diag", device=device).set_parameters(here.weights_, here.means_, here.covariances_)
    assert fixed.score(x.to(device)) == pytest.approx(here.lower_bound_, abs=1e-4)


def test_a_single_step_of_em(device):
    x = torch.randn(100, 2)
    start = torch.full((2,), 0.5).double(), x[:2].double(), torch.eye(2).double().repeat(2, 1, 1)
    assert em_step(x.to(device), start)[1] == pytest.approx(em_step(x, start)[1], abs=1e-4)


@pytest.mark.parametrize("settings", [
    {"prior_update": "em", "transform": views(random_affine((8, 8)), 2)},
    {"prior_update": "em", "precision": "bfloat16", "validation": X[:20], "patience": 2}, {"precision": "auto"}],
    ids=["groups", "half precision, validated", "auto"])
def test_training_and_resuming(settings, device, tmp_path):
    vae, again = twins()
    settings = settings | {"batch_size": 20, "device": device, "progress": False, "checkpoint": tmp_path / "c"}
    fit(vae, X, 2, **settings)
    history = fit(again, X, 3, resume=True, **settings)
    assert len(history) == 3 and again.device.type == device
    elsewhere = twins()[1]
    assert len(fit(elsewhere, X, 4, resume=True, **settings | {"device": "cpu"})) == 4  # a checkpoint is of no device


def test_the_clustering_recipe(device):
    recipe = Recipe(latent_dim=4, hidden=(16,), autoencoder_epochs=1, starts=2, mixture_views=2, epochs=2, n_views=2,
                    warm_up_epochs=1)
    clusters = cluster(Dataset(X, torch.zeros(len(X)), (8, 8), "digits"), 3, recipe, device=device, progress=False)
    assert clusters.model.predict(X).device.type == device
    latents = encode_views(clusters.model, X, views(random_affine((8, 8)), 2))
    assert latents.dtype == torch.float64 and latents.device.type == ("cpu" if device in WITHOUT_FLOAT64 else device)


APART = {
    "without float64": ({}, ["tests/unit/test_devices.py"], "test_devices.py::test_the_clustering_recipe"),
    "with float64": ({"GMVAE_FAKE_FLOAT64": "1"}, ["tests/unit", "--ignore=tests/unit/test_devices.py"],
                     "test_vamp_prior.py::test_one_pseudo_input_is_one_gaussian")}


@pytest.mark.skipif("GMVAE_TEST_DEVICES" in os.environ, reason="this is the process that it starts")
@pytest.mark.skipif(torch.__version__ < "2.13", reason="devices in Python, which make the fake one, need PyTorch 2.13")
@pytest.mark.parametrize("kind", APART)
def test_whatever_takes_a_device_on_one_that_mixes_with_no_other(kind):
    environment, where, among = APART[kind]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.unit.fake_device", "-p", "no:cacheprovider",
               "-p", "no:xdist", "-p", "no:nbval", "-o", "addopts=--import-mode=importlib",  # no notebooks: 2 s less
               "--tb=short", "-rp", "-k", "fake", *where]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600,
                         env={**os.environ, "GMVAE_TEST_DEVICES": "fake", "OMP_NUM_THREADS": "1"} | environment)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-3000:]
    assert f"PASSED tests/unit/{among}[fake]" in run.stdout

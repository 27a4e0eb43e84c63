"""The training loop: equal to a plain one, reproducible, and the same after a break as without."""

import copy
import math
import os
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch.distributions import MultivariateNormal
from torch.utils.data import DataLoader, TensorDataset

from gmvae_lib import training
from gmvae_lib.data import Dataset, load, pick_device, random_affine
from gmvae_lib.likelihood import Gaussian
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import (
    History,
    cyclic,
    decay,
    fit,
    load_checkpoint,
    log_uniform,
    save_checkpoint,
    warm_up,
)
from gmvae_lib.vae import VAE

X = load("digits").x[:300]


@pytest.fixture(autouse=True)
def on_each_device(device, monkeypatch):
    """Where a test names none, `fit` trains on each device in turn."""
    monkeypatch.setattr(training, "pick_device", lambda asked=None: pick_device(device if asked is None else asked))


def small(prior=None, seed=0, **settings):
    torch.manual_seed(seed)
    return VAE.build(64, 3, (16,), prior=prior, **settings)


def same(a, b):
    """Whether two models are equal to the last bit, wherever they are."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(a[name].cpu().equal(b[name].cpu()) for name in a)


# The loop itself


@pytest.mark.parametrize("method", ["collapsed", "joint", "exact"])
def test_equals_a_plain_loop(method):
    """The same batches and noise, with torch's default Adam: same losses, same gradients, same model."""
    ours = small(MixturePrior(3, 3))
    plain = copy.deepcopy(ours)
    history = fit(ours, X, epochs=3, beta=0.7, batch_size=64, lr=2e-3, method=method, seed=5, device="cpu")
    optimizer = torch.optim.Adam(plain.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(5)
    losses = []
    for _ in range(3):
        total = 0.0
        for index in torch.randperm(len(X), generator=generator).split(64):
            optimizer.zero_grad()
            x = X[index]
            mean, log_var = plain.encoder(x / 16)
            z = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=generator)
            distortion = -plain.likelihood.log_prob(x, plain.decoder(z))
            rate = plain.prior.rate(mean, log_var, method=method, generator=generator)
            (distortion + 0.7 * rate).mean().backward()
            optimizer.step()
            total += (distortion + 0.7 * rate).sum().item()
        losses.append(total / len(X))
    found = [d + 0.7 * r for d, r in zip(history.distortion, history.rate, strict=True)]
    assert found == pytest.approx(losses, rel=1e-5)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_reaches_what_a_data_loader_reaches():
    """Other batches, same objective: the two ends agree as well as two seeds do."""
    ours, plain = small(), small()
    fit(ours, X, epochs=40, lr=3e-3)
    optimizer = torch.optim.Adam(plain.parameters(), lr=3e-3)
    for _ in range(40):
        for batch, in DataLoader(TensorDataset(X), 128, shuffle=True):
            optimizer.zero_grad()
            (-plain.elbo(batch).value.mean()).backward()
            optimizer.step()
    with torch.no_grad():
        ends = [sum(-m.elbo(X).value.mean().item() for _ in range(4)) / 4 for m in (ours, plain)]
    assert ends[0] == pytest.approx(ends[1], rel=0.03)


def test_a_linear_model_learns_probabilistic_pca():
    """The optimum has a formula (Tipping & Bishop, 1999), and the ELBO comes close to it from below."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 2, generator=generator) @ torch.randn(2, 5, generator=generator) * 1.5
    x = x + 0.3 * torch.randn(1000, 5, generator=generator)
    torch.manual_seed(0)
    model = VAE.build(5, 2, (), Gaussian(1.0))
    fit(model, x, epochs=150, lr=0.02)
    values, vectors = torch.linalg.eigh(x.T.cov(correction=0))
    noise = values[:3].mean()
    covariance = noise * torch.eye(5) + vectors[:, 3:] @ ((values[3:] - noise).diag()) @ vectors[:, 3:].T
    best = MultivariateNormal(x.mean(0), covariance).log_prob(x).mean().item()
    with torch.no_grad():
        reached = torch.stack([model.elbo(x).value.mean() for _ in range(20)]).mean().item()
    assert best - 0.15 < reached < best + 0.02
    assert model.likelihood.sigma.item() == pytest.approx(noise.sqrt().item(), rel=0.1)


def test_the_history_is_in_nats_per_point_whatever_the_batch():
    """Means over points, not over batches: the last batch is smaller."""
    model = small()
    history = fit(model, X, epochs=1, batch_size=128, lr=1e-12, seed=1)
    with torch.no_grad():
        draws = [model.elbo(X) for _ in range(30)]
    assert history.rate[0] == pytest.approx(draws[0].rate.mean().item(), rel=1e-4)
    assert history.distortion[0] == pytest.approx(sum(d.distortion.mean().item() for d in draws) / 30, rel=0.02)
    assert len(history) == len(history.seconds) == len(history.beta) == 1 and history.validation == []


def test_the_same_seed_gives_the_same_model_and_another_does_not():
    models = [small(MixturePrior(3, 3)) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        fit(model, X, epochs=2, seed=seed)
    assert same(models[0], models[1]) and not same(models[0], models[2])


def test_global_random_numbers_are_neither_used_nor_disturbed():
    torch.manual_seed(9)
    first = small()
    state = torch.get_rng_state()
    fit(first, X, epochs=1)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("convert", [lambda x: Dataset(x, torch.zeros(len(x)), (8, 8), "digits"),
                                     lambda x: x.numpy(), lambda x: x.long(), lambda x: x.tolist()])
def test_every_kind_of_data_trains_the_same(convert):
    models = small(), small()
    fit(models[0], X[:100], epochs=1)
    fit(models[1], convert(X[:100]), epochs=1)
    assert same(*models)


def test_schedules():
    assert [warm_up(2.0, 0.5)(p) for p in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1.0, 2.0, 2.0]
    draw = log_uniform(0.01, 100.0, seed=1)
    values = [draw(i / 2000) for i in range(2000)]
    assert min(values) >= 0.01 and max(values) <= 100 and draw(0.5) == draw(0.5) != log_uniform(seed=2)(0.5)
    logs = torch.tensor(values).log10()
    assert logs.mean().item() == pytest.approx(0, abs=0.1) and logs.std().item() == pytest.approx(4 / 12**0.5, rel=0.05)
    seen = []
    fit(small(), X, epochs=3, batch_size=100, beta=lambda progress: seen.append(progress) or 1.0)
    assert seen == pytest.approx([i / 9 for i in range(9)])


def test_beta_zero_leaves_the_rate_alone_and_a_large_one_presses_it_down():
    rates = []
    for beta in (0.0, 1.0, 50.0):
        rates.append(fit(small(), X, epochs=40, beta=beta, lr=3e-3).rate[-1])
    assert rates[0] > rates[1] > rates[2]


def test_a_gated_network_trains_through_warm_up_and_every_beta():
    model = small(gated=True)
    history = fit(model, X, epochs=2, beta=warm_up())
    assert all(p.isfinite().all() for p in model.parameters()) and history.beta[-1] <= 1
    assert fit(model, X, epochs=2, beta=log_uniform(), validation=X[:50]).validation[-1] > 0


def test_transform_sees_each_batch_and_the_generator():
    sizes = []

    def move(x, generator):
        sizes.append(len(x))
        return random_affine((8, 8))(x, generator)

    models = small(), small()
    for model in models:
        fit(model, X, epochs=1, transform=move)
    assert sizes == [128, 128, 44] * 2 and same(*models)


# The prior


@pytest.mark.parametrize(("update", "moves"), [("gradient", True), ("em", True), ("fixed", False)])
def test_the_prior_is_updated_as_asked(update, moves):
    model = small(MixturePrior(3, 3))
    before = copy.deepcopy(model.prior)
    fit(model, X, epochs=2, prior_update=update)
    assert same(before, model.prior) != moves
    assert all(p.requires_grad for p in model.parameters())


def test_the_em_update_is_the_priors_m_step_on_the_encoded_data():
    model = small(MixturePrior(3, 3))
    fit(model, X, epochs=1, prior_update="em", lr=1e-12)
    expected = small(MixturePrior(3, 3))
    with torch.no_grad():
        expected.prior.update(*expected.encode(X))
    assert torch.allclose(model.prior.means.cpu(), expected.prior.means, atol=1e-4)


def test_a_parameter_frozen_by_hand_stays_frozen():
    model = small(MixturePrior(3, 3))
    model.prior.means.requires_grad_(False)
    before = model.prior.means.clone()
    for update in ("gradient", "fixed"):
        fit(model, X, epochs=1, prior_update=update)
        assert model.prior.means.cpu().equal(before) and not model.prior.means.requires_grad
        assert model.prior.logits.requires_grad


# Stopping


def test_early_stopping_keeps_the_best_model():
    model, states = small(), []

    def spoil(epoch, history):
        """The model gets better for three epochs, then is pushed off."""
        states.append(copy.deepcopy(model.state_dict()))
        if epoch >= 2:
            with torch.no_grad():
                model.decoder.mlp.layers[-1].bias.add_(3.0)

    history = fit(model, X, epochs=50, validation=load("digits", "test").x, patience=2, on_epoch=spoil)
    best = min(range(len(history)), key=history.validation.__getitem__)
    assert history.stopped_early and len(history) == best + 3 < 50
    assert all(value.equal(states[best][name]) for name, value in model.state_dict().items())


def test_validation_alone_stops_nothing_and_is_measured_at_the_final_beta():
    model = small()
    history = fit(model, X, epochs=4, beta=warm_up(2.0, 0.9), validation=X[:100])
    assert len(history.validation) == 4 and not history.stopped_early
    with torch.no_grad():
        values = [-model.elbo(X[:100], 2.0).value.mean().item() for _ in range(50)]
    assert history.validation[-1] == pytest.approx(sum(values) / 50, rel=0.02)


def test_on_epoch_sees_each_epoch_and_can_stop():
    seen = []

    def stop(epoch, history):
        seen.append((epoch, len(history)))
        return epoch == 2

    assert len(fit(small(), X, epochs=9, on_epoch=stop)) == 3
    assert seen == [(0, 1), (1, 2), (2, 3)]


# Precision, progress, devices


@pytest.mark.parametrize(("prior", "update"), [(None, "gradient"), ("diag", "gradient"), ("diag", "em"),
                                              ("full", "gradient"), ("full", "em")])
def test_bfloat16_trains_about_as_well(prior, update):
    ends = {}
    for precision in ("float32", "bfloat16"):
        model = small(MixturePrior(3, 3, prior) if prior else None)
        history = fit(model, X, epochs=25, lr=3e-3, precision=precision, prior_update=update)
        ends[precision] = history.distortion[-1] + history.rate[-1]
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert ends["bfloat16"] == pytest.approx(ends["float32"], rel=0.05)


def test_the_progress_bar_can_be_had_and_is_off_where_the_environment_says_so(monkeypatch, capsys):
    monkeypatch.setenv("GMVAE_PROGRESS", "0")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(small(), X, epochs=1)
    assert capsys.readouterr() == ("", "")
    fit(small(), X, epochs=1, progress=True)
    assert "1/1" in capsys.readouterr().err
    monkeypatch.delenv("GMVAE_PROGRESS")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert training._watched(None) and not training._watched(False)


def test_trains_where_it_is_asked_to(device):
    model = small(MixturePrior(3, 3, "full"))
    for place in ("cpu", device):
        history = fit(model, X, epochs=2, prior_update="em", device=place, precision="bfloat16")
        assert model.device.type == place and math.isfinite(history.distortion[-1])


def test_the_model_is_left_ready_for_use():
    model = small()
    fit(model, X, epochs=1)
    assert not model.training


# Checkpoints


def settings_that_remember():
    """Every piece of state that a break could lose: schedule, noise of augmentation, validation, M-step."""
    return {"plain": {}, "warm-up": {"beta": warm_up(2.0, 0.8)}, "augmented": {"transform": random_affine((8, 8))},
            "em": {"prior_update": "em"}, "fixed": {"prior_update": "fixed"},
            "validated": {"validation": X[:50]}, "patient": {"validation": X[:50], "patience": 5},
            "bfloat16": {"precision": "bfloat16"}, "random beta": {"beta": log_uniform(seed=3)}}


@pytest.mark.parametrize("kind", settings_that_remember())
def test_a_resumed_training_gives_the_same_model_to_the_last_bit(kind, tmp_path):
    settings = settings_that_remember()[kind] | {"epochs": 6, "lr": 3e-3, "batch_size": 64}
    model = {"gated": kind == "random beta"}
    whole, broken, resumed = (small(MixturePrior(3, 3), **model) for _ in range(3))
    history = fit(whole, X, **settings)
    path = tmp_path / "broken.safetensors"
    fit(broken, X, checkpoint=path, on_epoch=lambda epoch, h: epoch == 2, **settings)
    torch.manual_seed(123)  # a new process has other global random numbers
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1.0)  # and another start
    again = fit(resumed, X, checkpoint=path, resume=True, **settings)
    assert same(whole, resumed)
    for name in ("distortion", "rate", "beta", "validation"):
        assert getattr(again, name) == getattr(history, name)


def test_resuming_a_finished_training_trains_no_more(tmp_path):
    path = tmp_path / "done.safetensors"
    first, second = small(), small(seed=1)
    fit(first, X, epochs=3, checkpoint=path)
    history = fit(second, X, epochs=3, checkpoint=path, resume=True)
    assert same(first, second) and len(history) == 3
    assert len(fit(second, X, epochs=5, checkpoint=path, resume=True)) == 5


def test_the_best_model_survives_a_break(tmp_path):
    """The best epoch lies before the break; what follows is worse, and must not win for want of memory."""
    path = tmp_path / "best.safetensors"
    settings = {"epochs": 30, "validation": X[:100], "patience": 3, "checkpoint": path}
    model, states = small(), []

    def spoil(epoch, history):
        states.append(copy.deepcopy(model.state_dict()))
        with torch.no_grad():
            model.decoder.mlp.layers[-1].bias.add_(5.0 * (epoch >= 1))
        return epoch == 2

    history = fit(model, X, on_epoch=spoil, **settings)
    best = history.validation.index(min(history.validation))
    assert best == 1 and len(history) == 3
    loaded = small(seed=4)
    load_checkpoint(path, loaded)
    assert same(loaded, model)  # whoever only loads gets the best
    resumed = small(seed=5)

    def worse(epoch, history):
        with torch.no_grad():
            resumed.decoder.mlp.layers[-1].bias.add_(5.0)

    history = fit(resumed, X, resume=True, on_epoch=worse, **settings)
    assert history.stopped_early and len(history) == 5
    assert all(value.equal(states[best][name]) for name, value in resumed.state_dict().items())
    assert len(fit(small(), X, resume=True, **settings)) == 5  # stopped is stopped


def test_a_checkpoint_is_written_on_the_way(tmp_path, monkeypatch):
    path, seen = tmp_path / "on_the_way.safetensors", []
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    fit(small(), X, epochs=3, checkpoint=path, on_epoch=lambda e, h: seen.append(len(load_checkpoint(path, small()))))
    assert seen == [1, 2, 3]


def test_history_and_model_make_the_round_trip(tmp_path):
    path, model = tmp_path / "deep" / "er" / "model.safetensors", small(MixturePrior(3, 3, "full"))
    history = History([1.5], [0.1], [1.0], [], [0.2], interrupted=True)
    save_checkpoint(path, model, history=history)
    loaded = small(MixturePrior(3, 3, "full"), seed=8)
    assert load_checkpoint(path, loaded) == history and same(loaded, model)
    assert load_checkpoint(path, loaded, torch.optim.Adam(loaded.parameters()), torch.Generator()) == history


def test_a_checkpoint_can_be_read_by_whoever_may_read_the_folder(tmp_path):
    path, mask = tmp_path / "m.safetensors", os.umask(0o022)
    try:
        save_checkpoint(path, small())
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_a_loaded_checkpoint_is_let_go_of(tmp_path):
    """Where the file stayed mapped, Windows could not replace it."""
    path, model = tmp_path / "mapped.safetensors", small()
    optimizer = torch.optim.Adam(model.parameters())
    fit(model, X, epochs=1, checkpoint=path)
    load_checkpoint(path, model, optimizer, torch.Generator())
    assert path.name not in open("/proc/self/maps").read()


def test_a_random_state_of_another_device_is_left_out(tmp_path):
    path, model = tmp_path / "cuda.safetensors", small()
    save_checkpoint(path, model)
    other = torch.Generator().manual_seed(3)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_file(tensors | {"generator": torch.zeros(16, dtype=torch.uint8)}, path)
    before = other.get_state()
    load_checkpoint(path, model, generator=other)
    assert other.get_state().equal(before)


# Bad settings


@pytest.mark.parametrize(("settings", "message"), [
    ({"prior_update": "magic"}, "prior_update is 'magic': choose 'gradient', 'em' or 'fixed'"),
    ({"prior_update": "em"}, "prior_update='em' needs a MixturePrior: StandardNormal has no M-step"),
    ({"precision": "float16"}, "precision is 'float16': choose 'float32', 'bfloat16' or 'auto'"),
    ({"patience": 3}, "patience needs validation data"),
    ({"epochs": 0}, "epochs is 0 and batch_size 128: both must be at least 1"),
    ({"batch_size": 0}, "batch_size 0: both must be at least 1"),
    ({"device": "abacus"}, "device is 'abacus': choose"),
    ({"data": X[:, :60]}, "x has 60 features: expected 64"),
    ({"data": X / 16}, r"whole numbers in 0..16 \(Binomial\)"),
    ({"validation": X[:, :60], "patience": 1}, "x has 60 features"),
    ({"data": torch.full((3, 64), math.nan)}, "NaN or infinite values in 3 row"),
])
def test_unusable_settings_are_refused_before_anything_happens(settings, message):
    model = small()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        fit(model, settings.pop("data", X), **settings)
    assert same(model, before) and all(p.requires_grad for p in model.parameters())


# Schedules, a beta for each point, free bits


def test_cyclic_warms_up_again_and_again():
    schedule = cyclic(2.0, cycles=4, share=0.5)
    assert [schedule(p) for p in (0.0, 0.0625, 0.125, 0.2, 0.25, 0.3125, 1.0)] == pytest.approx([0, 1, 2, 2, 0, 1, 2])


def test_decay_holds_then_falls_to_nothing():
    schedule = decay(4e-3, share=0.5)
    assert [schedule(p) for p in (0.0, 0.5, 0.75, 1.0)] == pytest.approx([4e-3, 4e-3, 2e-3, 0])


def test_the_step_follows_its_schedule():
    """A step of zero moves nothing; a constant schedule is the constant."""
    models = [small() for _ in range(3)]
    for model, lr in zip(models, (lambda progress: 0.0, lambda progress: 2e-3, 2e-3), strict=True):
        fit(model, X, epochs=2, lr=lr, device="cpu")
    assert same(models[0], small()) and same(models[1], models[2]) and not same(models[0], models[1])


def test_each_point_has_a_beta_of_its_own(monkeypatch):
    seen, model = [], small(gated=True)
    elbo = model.elbo
    monkeypatch.setattr(model, "elbo", lambda x, beta, **rest: seen.append(beta) or elbo(x, beta, **rest))
    history = fit(model, X, epochs=2, beta=(0.01, 100.0), device="cpu")
    assert [tuple(beta.shape) for beta in seen] == [(128, 1), (128, 1), (44, 1)] * 2
    share = (seen[0].log10().ravel().sort().values + 2) / 4  # one in each of 128 equal parts of the range
    assert (share * 128).floor().tolist() == list(range(128))
    assert history.beta == pytest.approx([1.0, 1.0])


def test_the_loss_of_points_with_their_own_betas_is_the_plain_mean():
    ours, plain = small(gated=True), small(gated=True)
    fit(ours, X, epochs=1, beta=(0.1, 10.0), batch_size=300, seed=3, device="cpu")
    generator = torch.Generator().manual_seed(3)
    x = X[torch.randperm(300, generator=generator)]
    share = (torch.randperm(300, generator=generator) + torch.rand(300, generator=generator)) / 300
    beta = (0.1 * 100**share).unsqueeze(1)
    elbo = plain.elbo(x, beta, generator=generator)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    (elbo.distortion + beta.squeeze(1) * elbo.rate).mean().backward()
    optimizer.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_tilt_puts_more_betas_high():
    beta = training._spread(1000, torch.Generator().manual_seed(0), 0.1, 10.0, 0.5).squeeze(1)
    assert beta.min() >= 0.1 and beta.max() <= 10
    assert (beta < 1).float().mean().item() == pytest.approx(0.25, abs=0.01)  # where u ** 0.5 < 1 / 2


@pytest.mark.parametrize(("beta", "gated"), [((0.1, 10.0), False), ((10.0, 0.1), True), ((0.0, 1.0), True)])
def test_a_pair_that_cannot_be_is_refused(beta, gated):
    with pytest.raises(ValueError, match="a pair must be 0 < low < high"):
        fit(small(gated=gated), X, epochs=1, beta=beta)


def test_training_on_a_pair_resumes_to_the_same_model(tmp_path):
    whole, broken = small(gated=True), small(gated=True)
    settings = {"epochs": 4, "beta": (0.1, 10.0), "lr": decay(), "device": "cpu"}
    fit(whole, X, **settings)
    path = tmp_path / "checkpoint.safetensors"
    fit(broken, X, on_epoch=lambda epoch, history: epoch == 1, checkpoint=path, **settings)
    fit(broken, X, checkpoint=path, resume=True, **settings)
    assert same(whole, broken)


def test_free_bits_leave_what_is_below_alone():
    """With a floor above everything the rate has no gradient: the same as beta 0."""
    floored, free = small(), small()
    fit(floored, X, epochs=2, free_bits=1e3, device="cpu")
    fit(free, X, epochs=2, beta=0.0, device="cpu")
    assert same(floored, free)

"""Training by two processes, each with its share of the data: the result of one process on the same batches.

The processes are started once; each scenario's results are compared here.
"""

import math
import os
import signal
from random import Random

import pytest
import torch
import torch.distributed as dist

from gmvae_lib import training
from gmvae_lib.data import load, random_affine, views
from gmvae_lib.prior import MixturePrior, VampPrior
from gmvae_lib.training import fit, warm_up
from gmvae_lib.vae import VAE
from tests.unit import two_processes

CUT, BATCH, EPOCHS = 173, 64, 3  # the first process has 173 points of 300, the second 127
GROUPS = views(random_affine((8, 8)), 2)
SCENARIOS = {"gradient": {}, "em": {"prior_update": "em"}, "fixed": {"prior_update": "fixed"},
             "groups, em": {"prior_update": "em", "transform": GROUPS}, "exact": {"method": "exact"},
             "vamp": {"method": "exact"}, "a beta for each point": {"beta": (0.1, 10.0)}}


def points():
    return load("digits").x[:300].double()


def build(seed=0, scenario="gradient"):
    torch.manual_seed(seed)
    model = VAE.build(64, 3, (16,), prior=MixturePrior(3, 3, "full", seed=seed), gated="each" in scenario)
    if scenario == "vamp":
        model.prior = VampPrior(4, model.encoder, points() / 16, seed=seed)
    return model


def settings(scenario, **more):
    return {"epochs": EPOCHS, "beta": warm_up(2.0, 0.8), "batch_size": BATCH, "lr": 3e-3, "seed": 4, "device": "cpu",
            "distributed": True} | SCENARIOS.get(scenario, {}) | more


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def failure(**given):
    try:
        fit(build(), **given)
    except ValueError as error:
        return str(error)


def worker(folder):
    """What each of the two processes does; rank 1 begins with another model, which must make no difference."""
    torch.set_default_dtype(torch.float64)  # so that only rounding is left to differ
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    share, held_out = (x[:CUT] if rank == 0 else x[CUT:] for x in (points(), load("digits", "test").x[:300].double()))
    for scenario in SCENARIOS:
        model = build(rank, scenario)
        history = fit(model, share, **settings(scenario))
        found[scenario] = [state(model), history.distortion, history.rate]

    model = build(rank)  # early stopping; on_epoch spoils the model alike in all, as bad data would
    def spoil(epoch, history):
        with torch.no_grad():
            model.decoder.mlp.layers[-1].bias.add_(3.0 * (epoch > 0))
    history = fit(model, share, validation=held_out, patience=2, on_epoch=spoil, **settings("", epochs=30))
    found["patient"] = [state(model), history.validation, history.stopped_early]

    model, path = build(rank), folder / "model.safetensors"  # broken off by one, then resumed, to the same model
    fit(model, share, checkpoint=path, on_epoch=lambda epoch, _: rank == 1 and epoch == 1, **settings("groups, em"))
    dist.barrier()  # the first process writes its last checkpoint when the others have gone on
    found["broken"] = [state(model), os.listdir(folder)]
    model = build(2 + rank)
    history = fit(model, share, checkpoint=path, resume=True, **settings("groups, em"))
    found["resumed"] = [state(model), history.distortion, history.rate]

    model = build(rank)  # interrupted in one
    stop = lambda epoch, _: os.kill(os.getpid(), signal.SIGINT) if rank == 1 and epoch == 1 else None  # noqa: E731
    history = fit(model, share, on_epoch=stop, **settings("gradient"))
    found["interrupted"] = [state(model), len(history), history.interrupted]
    found["handler"] = signal.getsignal(signal.SIGINT) is signal.default_int_handler

    training.faster_precision = lambda run, device: "bfloat16" if rank == 0 else "float32"
    found["precision"] = fit(build(), share, **settings("", epochs=1, precision="auto")).precision

    bad = share.clone()
    bad[5, 5] = math.nan if rank == 1 else bad[5, 5]
    found["nan"] = failure(data=bad, **settings(""))
    found["epochs"] = failure(data=share, **settings("", epochs=1 + rank))
    found["validation"] = failure(data=share, validation=held_out if rank == 0 else None, **settings(""))
    found["few"] = failure(data=share[:3] if rank == 1 else share, **settings("", batch_size=8))
    if rank == 0:
        path.write_text("no checkpoint")
    dist.barrier()
    found["damaged"] = failure(data=share, checkpoint=path, resume=True, **settings(""))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The two processes' results."""
    folder = tmp_path_factory.mktemp("distributed")
    said = two_processes.run(worker, folder)
    assert said.count("Interrupted after 2 of 3 epochs: the model is kept.") == 1
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def reference(scenario, transform=None, method="collapsed", prior_update="gradient", beta=None):
    """A plain loop in one process: each batch is what the two processes take, with the same random numbers."""
    model, shares = build(0, scenario), (points()[:CUT], points()[CUT:])
    trained = list(model.parameters()) if prior_update == "gradient" else [*model.encoder.parameters(),
                                                                         *model.decoder.parameters()]
    optimizer, losses = torch.optim.Adam(trained, lr=3e-3), []
    generators = torch.Generator().manual_seed(4), torch.Generator()
    n_steps = math.ceil(300 / BATCH)
    for epoch in range(EPOCHS):
        generators[1].manual_seed(Random(f"4 1 {epoch}").getrandbits(32))
        orders = [torch.randperm(len(x), generator=g).tensor_split(n_steps)
                  for x, g in zip(shares, generators, strict=True)]
        parts = []
        for step in range(n_steps):
            values = []
            for x, order, generator in zip(shares, orders, generators, strict=True):
                index, b = order[step], warm_up(2.0, 0.8)((epoch + step / n_steps) / EPOCHS)
                b = training._spread(len(index), generator, *beta) if beta else b
                batch = x[index] if transform is None else transform(x[index], generator)
                values.append(model.elbo(batch, b, method, generator))
            optimizer.zero_grad()
            (-torch.cat([elbo.value for elbo in values]).mean()).backward()
            optimizer.step()
            parts += [(elbo.distortion.detach(), elbo.rate.detach()) for elbo in values]
        losses.append([torch.cat(part).mean().item() for part in zip(*parts, strict=True)])
        if prior_update == "em":
            with torch.no_grad():
                latents = [model.encode(x if transform is None else transform(x, g))
                           for x, g in zip(shares, generators, strict=True)]
                model.prior.update(*(torch.cat(values) for values in zip(*latents, strict=True)))
    return model, losses


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_equals_one_process_on_the_same_batches(scenario, found, float64):
    model, losses = reference(scenario, **SCENARIOS[scenario])
    for parameters, distortion, rate in (process[scenario] for process in found):
        assert torch.allclose(torch.tensor([distortion, rate]).T, torch.tensor(losses), rtol=1e-9)
        for name, value in model.state_dict().items():
            assert torch.allclose(parameters[name], value, rtol=1e-7, atol=1e-9), name
    assert all(value.equal(found[1][scenario][0][name]) for name, value in found[0][scenario][0].items())


def test_all_stop_early_together_and_keep_the_best(found):
    (parameters, validation, stopped), other = (process["patient"] for process in found)
    best = validation.index(min(validation))
    assert stopped and len(validation) == best + 3 < 30
    assert other[1] == validation and all(value.equal(other[0][name]) for name, value in parameters.items())


def test_validation_is_the_mean_over_all_held_out_points(found, float64):
    """The untouched first epoch's, from the model that a run of one epoch ends with."""
    def first_epoch():
        model = build()
        generators = torch.Generator().manual_seed(4), torch.Generator().manual_seed(Random("4 1 0").getrandbits(32))
        shares = points()[:CUT], points()[CUT:]
        held_out = load("digits", "test").x[:300].double()
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        orders = [torch.randperm(len(x), generator=g).tensor_split(5) for x, g in zip(shares, generators, strict=True)]
        for step in range(5):
            optimizer.zero_grad()
            values = [model.elbo(x[order[step]], warm_up(2.0, 0.8)(step / 150), generator=g).value
                      for x, order, g in zip(shares, orders, generators, strict=True)]
            (-torch.cat(values).mean()).backward()
            optimizer.step()
        with torch.no_grad():
            values = [model.elbo(x, 2.0, generator=g).value
                      for x, g in zip((held_out[:CUT], held_out[CUT:]), generators, strict=True)]
        return -torch.cat(values).mean().item()

    assert found[0]["patient"][1][0] == pytest.approx(first_epoch(), rel=1e-9)


def test_one_can_stop_all_and_a_resumed_training_gives_the_same_model(found):
    for process in found:
        broken, files = process["broken"]
        assert files == ["model.safetensors"]  # the first process alone writes it
        assert not all(value.equal(process["groups, em"][0][name]) for name, value in broken.items())
        parameters, distortion, rate = process["resumed"]
        whole = process["groups, em"]
        assert (distortion, rate) == (whole[1], whole[2]) and len(rate) == EPOCHS
        assert all(value.equal(whole[0][name]) for name, value in parameters.items())


def test_an_interrupt_of_one_ends_all_after_the_same_epoch(found):
    (parameters, n_epochs, interrupted), other = (process["interrupted"] for process in found)
    assert (n_epochs, interrupted) == tuple(other[1:]) == (2, True)
    assert all(value.equal(other[0][name]) for name, value in parameters.items())
    assert found[0]["handler"] and found[1]["handler"]


def test_the_first_process_chooses_the_precision_for_all(found):
    assert [process["precision"] for process in found] == ["bfloat16", "bfloat16"]


@pytest.mark.parametrize(("kind", "message"), [
    ("nan", "In process 1: x has NaN or infinite values in 1 row"),
    ("epochs", "epochs differs among the processes ([1, 2])"),
    ("validation", "validation differs among the processes ([True, False])"),
    ("few", "The processes hold [173, 3] points, and an epoch has 22 steps"),
    ("damaged", "In process 0: {path} is not a readable checkpoint")])
def test_what_is_wrong_in_one_is_an_error_in_all(kind, message, found):
    for process in found:
        start, _, end = message.partition("{path}")
        assert process[kind].startswith(start) and end in process[kind]


def test_without_a_process_group_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"init_process_group\(\) first; start the script with torchrun"):
        fit(VAE.build(64, 3, (16,)), load("digits").x[:100], epochs=1, distributed=True)

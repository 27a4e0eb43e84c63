"""Threads by the amount of work, and precision by measurement: chosen, used, and left as they were."""

import time

import pytest
import torch

from gmvae_lib import training
from gmvae_lib.data import load
from gmvae_lib.speed import at_most_threads, faster_precision
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE

CPU = torch.device("cpu")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("limit", "expected"), [(0.2, 1), (1.9, 1), (2, 2), (64, 2)])
def test_threads_inside_and_after(two_threads, limit, expected):
    with at_most_threads(limit):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_threads_are_given_back_after_an_error(two_threads):
    with pytest.raises(RuntimeError, match="inside"), at_most_threads(1):
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("hidden", "expected"), [((16,), 1), ((1500, 1500), 2)])
def test_training_takes_as_many_threads_as_its_size_is_worth(two_threads, hidden, expected):
    model, seen = VAE.build(64, 3, hidden), []
    fit(model, load("digits").x[:128], epochs=1, device="cpu", batch_size=128,
        transform=lambda x, generator: seen.append(torch.get_num_threads()) or x)
    assert seen == [expected]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("float32", "bfloat16", "expected"), [
    (8, 1, "bfloat16"), (1, 8, "float32"), (4, 4, "float32")])
def test_the_faster_precision_is_found(float32, bfloat16, expected):
    """Run by run, with sleeps in place of work; equal times are no reason to give up digits."""
    naps = {"float32": float32, "bfloat16": bfloat16}
    assert faster_precision(lambda precision: time.sleep(naps[precision] / 1000), CPU) == expected


@pytest.mark.parametrize("found", ["float32", "bfloat16"])
def test_auto_trains_as_the_precision_that_it_found(monkeypatch, found):
    """To the last bit, so that the measurement itself leaves no trace; the history says which it was."""
    monkeypatch.setattr(training, "faster_precision", lambda run, device: [run("float32"), run("bfloat16")] and found)
    models = []
    for precision in (found, "auto"):
        torch.manual_seed(0)
        models.append(VAE.build(64, 3, (16,)))
        history = fit(models[-1], load("digits").x[:200], epochs=2, precision=precision, device="cpu")
        assert history.precision == found
    assert all(a.equal(b) for a, b in zip(*(model.parameters() for model in models), strict=True))


def test_a_resumed_training_keeps_the_precision_it_began_with(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "faster_precision", lambda run, device: "bfloat16")
    model, path = VAE.build(64, 3, (16,)), tmp_path / "model.safetensors"
    x = load("digits").x[:200]
    fit(model, x, epochs=1, precision="auto", device="cpu", checkpoint=path)
    monkeypatch.setattr(training, "faster_precision", lambda run, device: pytest.fail("measured again"))
    assert fit(model, x, epochs=2, precision="auto", device="cpu", checkpoint=path, resume=True).precision == "bfloat16"

"""The command `python -m gmvae_lib.train`, in one process; tests/faults runs it under torchrun."""

import pytest
import torch

from gmvae_lib import train as command
from gmvae_lib.data import Dataset, load
from gmvae_lib.prior import MixturePrior, StandardNormal
from gmvae_lib.train import images, main, parse, train

SMALL = ["--hidden", "16", "--latent-dim", "3", "--device", "cpu"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_processes_shares_are_a_partition(size):
    shares = [images("digits", "train", rank, size)[0] for rank in range(size)]
    assert sum(map(len, shares)) == 1437 and max(map(len, shares)) - min(map(len, shares)) <= 1
    assert torch.equal(torch.cat(shares).unique(dim=0), load("digits").x.unique(dim=0))


def test_grey_pixels_become_bits_with_their_chance_the_same_in_every_process(monkeypatch):
    grey = Dataset(torch.randint(256, (50, 784)).float().repeat(40, 1), torch.zeros(2000), (28, 28), "mnist")
    monkeypatch.setattr(command, "load", lambda name, split: grey)
    whole, (even, odd) = images("mnist", "train")[0], [images("mnist", "train", rank, 2)[0] for rank in range(2)]
    assert torch.equal(whole[::2], even) and torch.equal(whole[1::2], odd)
    assert set(whole.unique().tolist()) == {0.0, 1.0}
    shares = whole.reshape(40, 50, 784).mean(0)
    assert ((shares - grey.x[:50] / 255) / (0.25 / 40) ** 0.5).square().mean() < 1  # at most its variance, p (1 - p)


def test_training_prints_a_line_an_epoch_and_learns(capsys):
    bounds = []
    for epochs in ("1", "15"):
        model, history = train(parse([*SMALL, "--epochs", epochs, "--lr", "3e-3"]))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].endswith("parameters, 1 process(es), cpu")
        assert [line[:11] for line in lines[1:-1]] == [f"epoch {i + 1:4d}:" for i in range(int(epochs))]
        assert isinstance(model.prior, StandardNormal) and len(history) == int(epochs)
        bounds.append(float(lines[-1].partition("bound ")[2].split()[0]))
    assert bounds[1] > bounds[0] + 50


def test_a_mixture_on_groups_with_warm_up_is_resumed(tmp_path, capsys):
    arguments = [*SMALL, "--prior", "mixture", "-K", "4", "--views", "2", "--beta", "2", "--warm-up", "0.5",
                 "--batch-size", "256", "--checkpoint", str(tmp_path / "model"), "--resume", "--epochs"]
    train(parse([*arguments, "2"]))
    model, history = train(parse([*arguments, "4"]))
    assert isinstance(model.prior, MixturePrior) and model.prior.n_components == 4
    assert len(history) == 4 and history.beta[0] < history.beta[-1] == 2
    assert "epoch    2:" in capsys.readouterr().out


def test_an_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", *SMALL, "--checkpoint", str(tmp_path)])
    with pytest.raises(SystemExit, match="^ValueError: checkpoint=.* cannot be written"):
        main()

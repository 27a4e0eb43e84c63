"""The table of MNIST likelihoods: what the benchmark writes is what the chapter reads."""

import json
import math

import pytest
import torch

from gmvae_lib.pretrained.likelihoods import PRIORS, load_likelihoods, write_likelihoods
from tests.benchmarks import nll


def found(seed):
    """As `compare` returns it: (−ELBO, −log p(x)) of 50 images for each prior."""
    generator = torch.Generator().manual_seed(seed)
    hard = 90 + 20 * torch.randn(50, generator=generator)
    return {prior: (hard + 5, hard - i + torch.randn(50, generator=generator)) for i, prior in enumerate(PRIORS)}


def test_a_row_holds_means_over_images_and_paired_gains():
    one = found(0)
    standard, mixture, _ = nll.rows(one, 7)
    assert (standard["gain"], standard["gain_error"], standard["seed"]) == (0.0, 0.0, 7)
    gain = one["standard"][1] - one["mixture"][1]
    assert mixture["gain"] == pytest.approx(float(gain.mean())) and mixture["bound"] < standard["bound"]
    assert mixture["gain_error"] == pytest.approx(float(gain.std()) / math.sqrt(50))
    assert mixture["gain_error"] < 0.2 * mixture["bound_error"]


def test_what_was_written_is_read(tmp_path):
    rows = [row for seed in (0, 1) for row in nll.rows(found(seed), seed)]
    write_likelihoods({"images": 50, "rows": rows}, tmp_path / "table.json")
    back = load_likelihoods(tmp_path / "table.json")
    assert back["images"] == 50 and [row["prior"] for row in back["rows"]] == [*PRIORS, *PRIORS]
    assert back["rows"][4]["bound"] == pytest.approx(rows[4]["bound"], abs=1e-4)


@pytest.mark.parametrize("rows", [[], [{"prior": "standard", "seed": 0}],
                                  2 * [{"prior": prior, "seed": 0} for prior in PRIORS]])
def test_a_table_with_gaps_is_refused(tmp_path, rows):
    (tmp_path / "table.json").write_text(json.dumps({"rows": rows}))
    with pytest.raises(ValueError, match="one row for each seed"):
        load_likelihoods(tmp_path / "table.json")


def test_the_command_measures_every_seed_and_writes(monkeypatch, capsys):
    written = []
    monkeypatch.setattr(nll, "binarized", lambda split: torch.zeros(3, 784))
    monkeypatch.setattr(nll, "compare", lambda *args, seed, **_: found(seed))
    monkeypatch.setattr(nll, "write_likelihoods", written.append)
    monkeypatch.setattr("sys.argv", ["nll", "--seeds", "0", "4", "--write"])
    nll.main()
    assert [row["seed"] for row in written[0]["rows"]] == [0, 0, 0, 4, 4, 4] and written[0]["samples"] == 5000


def test_the_shipped_table_is_complete_and_consistent():
    table = load_likelihoods()
    standard = {row["seed"]: row["bound"] for row in table["rows"] if row["prior"] == "standard"}
    for row in table["rows"]:
        assert row["bound"] < row["elbo"]
        assert row["gain"] == pytest.approx(standard[row["seed"]] - row["bound"], abs=0.01)

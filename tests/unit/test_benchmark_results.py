"""The page of results: each row says whether its bar was reached, from numbers that come in from elsewhere."""

import json

import pytest

from tests.benchmarks import results

EM = {"steps": [{"size": (100_000, 16, 16), "kind": "full", "ours": 10.0, "peer": 39.0, "difference": 2e-16},
                {"size": (50_000, 64, 10), "kind": "full", "ours": 10.0, "peer": 21.0, "difference": 3e-9},
                {"size": (50_000, 64, 10), "kind": "diag", "ours": 10.0, "peer": 11.0, "difference": 0.0}],
      "memory": [{"size": (50_000, 64, 10), "ours": 8.0, "peer": 90.0, "bar": 76.2}]}
TRAINING = [{"network": "64-128-128-10, 128, 1", "ours": 1.0, "plain": 1.39, "pythae": None, "peak": 0.2},
            {"network": "784-500-500-10, 256, 2", "ours": 10.0, "plain": 12.0, "pythae": 13.0, "peak": 0.71}]


def reached(rows):
    return [cells[-1] for cells in rows]


def test_each_bar_is_held_against_its_own_number():
    assert reached(results.em_rows(EM)) == ["**no**", "yes", "**no**", "yes"]
    assert reached(results.training_rows(TRAINING)) == ["**no**", "yes", "yes", "**no**"]


def test_the_shipped_files_give_a_row_for_each_promise():
    gated, clusters = list(results.gated_rows()), list(results.cluster_rows())
    assert len(gated) == 6 and [cells[1] for cells in clusters[:2]] == ["0.90", "0.94"]
    assert [cells[1] for cells in clusters[2:]] == 2 * ["0.965", "0.95", "0.975", "0.975"]


def test_shipped_numbers_move_the_verdict(monkeypatch, tmp_path):
    rows = [{"seed": seed, "scores": {"GMVAE, by agreement": [accuracy], "k-means on pixels": [0.5]}, "loss": seed}
            for seed, accuracy in enumerate((0.93, 0.99))]
    (tmp_path / "clustering.json").write_text(json.dumps(rows))
    (tmp_path / "mnist.json").write_text("{}")
    speed = [{"machine": "one NVIDIA GPU", "loop": loop, "seconds": seconds}
             for loop, seconds in (("DataLoader, Adam, loss.item()", 1.3), ("fit", 0.3))]
    (tmp_path / "speed.json").write_text(json.dumps(speed))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert reached(results.cluster_rows()) == ["yes", "**no**"]
    assert reached(results.gpu_rows()) == ["**no**"]  # fast enough, but not five times


def test_the_bound_and_the_agreement_may_choose_different_seeds(monkeypatch, tmp_path):
    (tmp_path / "clustering.json").write_text((results.FOLDER / "clustering.json").read_text())
    rows = [{"bound": bound, "agreement": nats, "scores": {"GMVAE": [accuracy], "k-means on pixels": [0.5]}}
            for bound, nats, accuracy in ((-108.4, 15.1, 0.96), (-107.9, 15.0, 0.97), (-108.0, 15.2, 0.98))]
    (tmp_path / "mnist.json").write_text(json.dumps({"long": rows}))
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    *_, bound, agreement = results.cluster_rows()
    assert (bound[2], bound[-1]) == ("0.970", "**no**") and (agreement[2], agreement[-1]) == ("0.980", "yes")


def test_a_report_of_the_tests_gives_their_duration_and_the_widgets_latencies(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="3" time="660"><testcase><properties>'
                      '<property name="05_x.ipynb: key press to picture, median" value="82 ms"/>'
                      '<property name="05_x.ipynb: run all in the browser" value="40 s"/>'
                      '<property name="09_y.ipynb: key press to picture, median" value="143 ms"/>'
                      '</properties></testcase></testsuite></testsuites>')
    rows = list(results.report_rows(report))
    assert [cells[2] for cells in rows] == ["11.0 minutes", "82 ms", "143 ms"]
    assert reached(rows) == ["**no**", "yes", "**no**"]


def test_the_page_is_one_table_of_equal_rows_and_the_whole_output(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "PAGE", tmp_path / "RESULTS.md")
    results.write({"em": EM, "training": TRAINING}, "printed\n")
    text = results.PAGE.read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) > 12 and {line.count(" | ") for line in table} == {len(results.HEAD) - 1}
    assert "```text\nprinted\n```" in text and "torch 2" in text


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_versions_are_the_installed_ones(name):
    assert f"{name} {results.version(name)}" in results.versions()

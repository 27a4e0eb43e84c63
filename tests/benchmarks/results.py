"""RESULTS.md: every number that the course sets itself, beside what was measured, where, and when.

Speed and memory come from the run of `make bench` that writes the page; qualities of clusters and of the beta-gated
network from the files that their commands shipped; times on a GPU from speed.json, since the machine at hand may have
none; the widgets' latencies and the tests' duration from a report that `make test ARGS=--junitxml=FILE` wrote.
"""

import datetime
import json
import os
import platform
import statistics
import xml.etree.ElementTree as xml
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gmvae_lib.pretrained import FOLDER
from gmvae_lib.pretrained.mnist import chosen

PAGE = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("torch", "numpy", "scikit-learn", "jupyterlab", "ipywidgets", "pomegranate", "pythae")
HEAD = ("what", "to reach", "ours", "peer", "ratio", "reached")


def machine():
    """The processor's name, the number of cores, and the system, in words."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores, " \
           f"{platform.system()}"


def versions():
    """The packages that were compared, with their versions."""
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} (not installed)")
    return ", ".join(found)


def row(what, bar, ours, peer="", ratio="", reached=None):
    """One line of the table; `reached` is a bool, or None where nothing was asked for."""
    return (what, bar, ours, peer, ratio, {True: "yes", False: "**no**", None: ""}[reached])


def em_rows(found):
    """EM's speed and memory, from what `em.main` returns."""
    bars = {(100_000, 16, 16): 4, (200_000, 32, 32): 4, (50_000, 64, 10): 2}
    for each in found["steps"]:
        bar = bars.get(each["size"]) if each["kind"] == "full" else None
        if bar:
            ratio = each["peer"] / each["ours"]
            yield row(f"EM step, float64, full, (N, D, K) = {each['size']}; peer: scikit-learn", f"{bar}x",
                      f"{each['ours']:.1f} ms", f"{each['peer']:.1f} ms", f"{ratio:.2f}x", ratio >= bar)
    worst = max(each["difference"] for each in found["steps"])
    yield row("EM, mean log-likelihood against scikit-learn's, all sizes and families, relative", "1e-9",
              f"{worst:.0e}", reached=worst <= 1e-9)
    for each in found["memory"]:
        yield row(f"EM memory beyond the data, {each['size']}, full", f"{each['bar']:.0f} MiB",
                  f"{each['ours']:.0f} MiB", f"{each['peer']:.0f} MiB", reached=each["ours"] <= each["bar"])


def training_rows(found):
    """The training loop's speed, from what `training.main` returns."""
    for each in found:
        bar, (network, batch, threads) = 1.15 if each["network"].startswith("784") else 1.4, each["network"].split(", ")
        ratio = each["plain"] / each["ours"]
        where = f"VAE {network}, batch {batch}, {threads} thread{'s' * (threads != '1')}"
        yield row(f"{where}, a step; peer: DataLoader + Adam", f"{bar}x", f"{each['ours']:.2f} ms",
                  f"{each['plain']:.2f} ms", f"{ratio:.2f}x", ratio >= bar)
        if bar == 1.15:
            yield row(f"{where}, share of the machine's matrix products", "70 %", f"{100 * each['peak']:.0f} %",
                      reached=each["peak"] >= 0.7)
        if each["pythae"]:
            ratio = each["pythae"] / each["ours"]
            yield row(f"{where}, a step; peer: pythae's trainer", "1.6x", f"{each['ours']:.2f} ms",
                      f"{each['pythae']:.2f} ms", f"{ratio:.2f}x", ratio >= 1.6)


def gated_rows():
    """The beta-gated network beside networks for one beta, on held-out digits: means over seeds."""
    objectives = defaultdict(list)
    for kind, _, beta, _, _, distortion, rate, _ in json.loads((FOLDER / "rate_distortion.json").read_text()):
        objectives[kind, beta].append(distortion + beta * rate)
    for beta in sorted({beta for _, beta in objectives}):
        ours, peer = (statistics.mean(objectives[kind, beta]) for kind in ("gated", "single"))
        excess = ours / peer - 1
        yield row(f"one network for every β: D + βR at β = {beta:g}; peer: a network for this β", "+3 %",
                  f"{ours:.1f} nats", f"{peer:.1f} nats", f"{100 * excess:+.1f} %", excess <= 0.03)


def cluster_rows():
    """Held-out accuracies of the digits and of MNIST, over seeds."""
    digits = json.loads((FOLDER / "clustering.json").read_text())
    name = "GMVAE, by agreement"
    found = [each["scores"][name][0] for each in digits]
    best = min(digits, key=lambda each: each["loss"])["scores"][name][0]
    peer = statistics.mean(each["scores"]["k-means on pixels"][0] for each in digits)
    mean = statistics.mean(found)
    yield row(f"digits, K = 10, accuracy, mean of {len(found)} seeds; peer: k-means", "0.90",
              f"{mean:.3f} ± {statistics.stdev(found):.3f}", f"{peer:.3f}", reached=mean >= 0.9)
    yield row("digits, the seed that its loss chooses", "0.94", f"{best:.3f}", reached=best >= 0.94)
    for recipe, rows in json.loads((FOLDER / "mnist.json").read_text()).items():
        found = [each["scores"]["GMVAE"][0] for each in rows]
        peer = statistics.median(each["scores"]["k-means on pixels"][0] for each in rows)
        median, worst = statistics.median(found), min(found)
        yield row(f"MNIST, K = 10, {recipe} recipe, accuracy, median of {len(found)} seeds; peer: k-means", "0.965",
                  f"{median:.3f}", f"{peer:.3f}", reached=median >= 0.965)
        yield row(f"MNIST, {recipe} recipe, the worst seed", "0.95", f"{worst:.3f}", reached=worst >= 0.95)
        for by in ("bound", "agreement"):
            best = chosen(rows, by)["scores"]["GMVAE"][0]
            yield row(f"MNIST, {recipe} recipe, the seed that the {by} chooses", "0.975", f"{best:.3f}",
                      reached=best >= 0.975)


def gpu_rows():
    """An epoch of MNIST's size on a GPU, from speed.json: rows of machine, loop and seconds."""
    found = defaultdict(dict)
    for each in json.loads((FOLDER / "speed.json").read_text()):
        if "seconds" in each:
            found[each["machine"]][each["loop"]] = each["seconds"]
    for name, seconds in found.items():
        if "GPU" in name or "NVIDIA" in name:
            plain, ours = seconds["DataLoader, Adam, loss.item()"], seconds["fit"]
            yield row(f"{name}: an MNIST epoch, VAE 784-500-500-10; peer: DataLoader + Adam", "5x and 0.5 s",
                      f"{ours:.3f} s", f"{plain:.2f} s", f"{plain / ours:.1f}x", plain / ours >= 5 and ours < 0.5)


def report_rows(path):
    """The tests' duration and the widgets' latencies, from a report of `make test`."""
    suites = xml.parse(path).getroot().findall("testsuite")
    minutes = sum(float(suite.get("time")) for suite in suites) / 60
    tests = sum(int(suite.get("tests")) for suite in suites)
    yield row(f"make test, installed: {tests} tests", "10 minutes", f"{minutes:.1f} minutes", reached=minutes < 10)
    latencies = {each.get("name").split(":")[0]: float(each.get("value").split()[0])
                 for suite in suites for each in suite.iter("property")
                 if each.get("name").endswith("key press to picture, median")}
    for chapter, value in sorted(latencies.items()):
        yield row(f"{chapter.removesuffix('.ipynb')}, key press to new picture in Chromium, median, during make test",
                  "100 ms", f"{value:.0f} ms", reached=value <= 100)


def write(found, printed, report=None):
    """Writes the page: from `found`, what the modules' `main` returned by their names, and the text that they
    printed."""
    rows = [*em_rows(found["em"]), *training_rows(found["training"]), *gated_rows(), *cluster_rows(), *gpu_rows(),
            *(report_rows(report) if report else ())]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [HEAD, ["---"] * len(HEAD), *rows])
    PAGE.write_text(f"""# Results

Measured on {datetime.date.today():%d %B %Y} by `make bench`: {machine()}; {versions()}. Seconds differ from machine to
machine and from hour to hour; ratios, taken in turn within one run, less so.

## What the course set out to reach

{table}

Rows of trained models (one network for every β, digits, MNIST) are those of the files in `gmvae_lib/pretrained`, by the
commands that stand there. Accuracies are of held-out images; no label plays a part in training or in choosing.

## All of the run

```text
{printed.strip()}
```
""", encoding="utf-8")

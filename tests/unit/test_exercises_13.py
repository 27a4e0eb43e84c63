"""The checks of chapter 13's exercises accept other right answers, and know the bugs as the chapter shows them."""

import ast
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from gmvae_lib.exercises import diagnose, find
from gmvae_lib.gaussian import log_prob_diag
from gmvae_lib.mixture import GaussianMixture

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "src" / "13_find_the_bug.py"


def mixture(z, weights, means, std):
    gmm = GaussianMixture(len(weights), covariance_type="diag").set_parameters(weights, means, std**2)
    return torch.as_tensor(gmm.score_samples(z))


def on_a_line(x, weights, means, sds):
    mix = np.array([w * stats.norm.pdf(x.numpy(), m, s)
                    for w, m, s in zip(weights.tolist(), means.tolist(), sds.tolist())]).T
    return torch.from_numpy(mix / mix.sum(1, keepdims=True))


def new_means(x, weights, means, sds):
    resp = on_a_line(x, weights, means, sds)
    return torch.stack([torch.dot(resp[:, k], x) / resp[:, k].sum() for k in range(len(means))])


def variances(x, resp):
    return torch.from_numpy(np.array([[np.average((x[:, i] - np.average(x[:, i], weights=r))**2, weights=r)
                                       for i in range(x.shape[1])] for r in resp.T.numpy()]))


def elbo(x, mean, log_var, eps):
    q = Normal(mean, (0.5 * log_var).exp())
    z = q.loc + q.scale * eps
    return Normal(z, 0.5).log_prob(x) + Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)


def grey(x, logits):
    every = torch.arange(17, dtype=torch.float64) / 16
    table = Categorical(logits=logits[:, :, None] * every)
    return table.log_prob((16 * x).round()).sum(1)


def accuracy(y, clusters):
    names, classes = clusters.unique().tolist(), y.unique().tolist()
    width = max(len(names), len(classes))
    classes = classes + [-1] * (width - len(classes))
    return max(sum(int(((clusters == c) & (y == k)).sum()) for c, k in zip(names, chosen))
               for chosen in itertools.permutations(classes, len(names))) / len(y)


def together(sample, log_prob):
    """Averages of waves in many directions, in place of boxes."""
    z, rng = sample(50_000, torch.Generator().manual_seed(3)), np.random.default_rng(0)
    line = torch.arange(-12, 12, 0.1, dtype=z.dtype) + 0.05
    grid = torch.cartesian_prod(line, line)
    mass = log_prob(grid).exp() * 0.1**2
    waves = torch.from_numpy(rng.normal(0, 1, (2, 40)))
    off = [abs(wave(z @ waves).mean(0) - mass @ wave(grid @ waves)).max() for wave in (torch.cos, torch.sin)]
    return bool(abs(mass.sum() - 1) < 0.02 and max(off) < 0.03)


def sampled_rate(mean, log_var, eps, log_prior):
    q = Independent(Normal(mean, log_var.exp().sqrt()), 1)
    z = torch.addcmul(mean, log_var.exp().sqrt(), eps)
    return q.log_prob(z) - log_prior(z)


def price(q):
    uniform = Categorical(probs=torch.ones_like(q))
    return kl_divergence(Categorical(probs=q), uniform)


INDEPENDENT = {
    "13.1": lambda z, m, v: MultivariateNormal(m, v.exp().diag()).log_prob(z),
    "13.2": lambda m, v, e: m + v.exp().sqrt() * e,
    "13.3": lambda z, w, m, v: mixture(z, w, m, v.exp().sqrt()),
    "13.4": mixture,
    "13.5": lambda a: (a - a.max(1, keepdim=True).values).exp() / (a - a.max(1, keepdim=True).values).exp().sum(
        1, keepdim=True),
    "13.6": new_means,
    "13.7": on_a_line,
    "13.8": lambda r: torch.einsum("nk->k", r) / r.sum(),
    "13.9": variances,
    "13.10": elbo,
    "13.11": lambda x, a: -torch.distributions.Bernoulli(logits=a).log_prob(x).sum(-1),
    "13.12": grey,
    "13.13": lambda h, *p: tuple(torch.nn.functional.linear(h, w.T, b) for w, b in (p[:2], p[2:])),
    "13.14": price,
    "13.15": lambda raw: raw - raw.max() - (raw - raw.max()).exp().sum().log(),
    "13.16": sampled_rate,
    "13.17": lambda m, b: (b.mean() - m.mean(), float(stats.sem((b - m).numpy()))),
    "13.18": accuracy,
    "13.19": lambda a, b, c, d: -a.mean() - b.mean() + c.mean() + d.mean(),
    "13.20": lambda b, a: max(zip(b.tolist(), a.tolist()))[1],
    "13.21": together,
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_solution_is_right(name):
    assert diagnose(name, INDEPENDENT[name]) == ("right", "correct.")


def test_every_exercise_of_the_chapter_is_here():
    assert list(INDEPENDENT) == re.findall(r'check\("(13\.\d+)"', SOURCE.read_text(encoding="utf-8"))


def test_the_ten_tests_find_every_case():
    table = SOURCE.read_text(encoding="utf-8").split("### Ten tests")[1].split("# %%")[0]
    rows = re.findall(r"^# \| (\d+) \|.*\| ([\d, ]+) \|$", table, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 11))
    assert {int(case) for _, cases in rows for case in cases.split(",")} == set(range(1, 22)) - {16}  # the innocent


# The snippet that each exercise repairs, by its name in the chapter: the check must know it as it stands there.
SNIPPETS = {
    "13.1": "log_normal", "13.2": "draw", "13.3": "log_mixture", "13.4": "log_prior", "13.5": "responsibilities",
    "13.7": "e_step", "13.8": "new_weights", "13.9": "variances", "13.10": "elbo", "13.11": "distortion",
    "13.12": "log_prob", "13.13": "heads", "13.14": "first", "13.18": "accuracy", "13.20": "report",
}


@pytest.fixture(scope="module")
def snippets():
    """The functions that the chapter's source defines."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    names = set(SNIPPETS.values()) | {"log_normal_line", "published_means", "normal", "second", "sampled_rate"}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    scope = {"torch": torch, "math": math, "LOG_2PI": math.log(2 * math.pi), "F": torch.nn.functional,
             "log_prob_diag": log_prob_diag, "Categorical": Categorical, "MixtureSameFamily": MixtureSameFamily,
             "Normal": Normal}
    exec(compile(ast.Module(functions, []), str(SOURCE), "exec"), scope)
    return scope


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_chapters_snippet_gets_the_diagnosis_of_its_bug(name, snippets):
    verdict, sentence = diagnose(name, snippets[SNIPPETS[name]])
    assert verdict == "wrong" and re.match(r"not yet: this is the (snippet|first program)", sentence), sentence


def test_the_other_program_and_the_published_step_are_known_too(snippets):
    published = diagnose("13.6", lambda x, weights, means, sds: snippets["published_means"](x, means, sds))
    assert published[1].startswith("not yet: this is the published step")
    assert diagnose("13.14", snippets["second"])[1].startswith("not yet: this is the second program")


def test_the_innocent_snippet_is_right_as_it_stands_and_its_average_is_the_rate(snippets):
    rate = snippets["sampled_rate"]
    assert diagnose("13.16", rate) == ("right", "correct.")
    _, _, _, log_prior = find("13.16").cases()[0]
    mean, log_var = torch.tensor([[0.4, -0.3]], dtype=torch.float64), torch.tensor([[0.3, -0.5]], dtype=torch.float64)
    line = torch.arange(-9, 9, 0.05, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1).log_prob(grid)
    exact = float((q.exp() * (q - log_prior(grid))).sum()) * 0.05**2
    eps = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    terms = rate(mean.expand(200_000, 2), log_var.expand(200_000, 2), eps, log_prior)
    assert terms.min() < 0 and float(terms.mean()) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("sentence", find("13.16").mistakes)
def test_who_repairs_the_innocent_is_told_so(sentence):
    said = diagnose("13.16", find("13.16").mistakes[sentence])[1]
    assert "right" in said or "innocent" in said or "comes later" in said


def test_the_right_form_of_the_toolbox_is_accepted_and_its_wrong_form_is_not():
    def right(z, weights, means, std):
        return MixtureSameFamily(Categorical(weights), Independent(Normal(means, std), 1)).log_prob(z)

    assert diagnose("13.4", right)[0] == "right"


def test_the_pairs_of_the_last_exercise_are_told_apart_with_room_to_spare():
    """The right pairs' largest difference over boxes is far below the threshold, the wrong ones' far above."""
    from gmvae_lib.exercises.chapter_13 import _box, _grid

    grid = _grid()
    for sample, log_prob in find("13.21").cases():
        z, mass = sample(20_000, torch.Generator().manual_seed(0)), log_prob(grid).exp() * 0.01
        shares = [torch.bincount(_box(points), weights, minlength=784) for points, weights in
                  ((z, torch.full((len(z),), 1 / len(z), dtype=z.dtype)), (grid, mass))]
        off = float((shares[0] - shares[1]).abs().max())
        right = find("13.21").solution(sample, log_prob)
        assert off < 0.008 if right else off > 0.03

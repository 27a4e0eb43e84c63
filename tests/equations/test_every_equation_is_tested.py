"""Every numbered equation is defined once, and tested; every citation leads somewhere."""

import warnings
from pathlib import Path

import pytest

from tests.equations.numbering import cites, problems, read, tested

ROOT = Path(__file__).resolve().parents[2]
GOOD = "def test_eq_2_1_holds():\n    assert compute() == 1\n"


def test_every_equation_is_defined_once_cited_rightly_and_tested():
    wrong, awaited = problems(*read(ROOT))
    if awaited:
        warnings.warn("cited before their chapters are written:\n" + "\n".join(awaited), stacklevel=1)
    assert not wrong, "\n".join(wrong)


def test_a_tested_equation_passes():
    assert problems({2: r"\tag{2.1}"}, {"a.py": "# Eq. (2.1)"}, {2: GOOD}) == ([], [])


@pytest.mark.parametrize(
    ("chapters", "citing", "tests", "message"),
    [
        ({2: r"\tag{2.1} \tag{2.1}"}, {}, {2: GOOD}, "defined 2 times"),
        ({2: r"\tag{2.1}"}, {}, {}, "has no test"),
        ({2: r"\tag{2.1}"}, {}, {2: "def test_eq_2_1_holds():\n    compute()\n"}, "has no test"),
        ({2: ""}, {}, {2: GOOD}, "which is not defined"),
        ({2: ""}, {"a.py": "# Eq. (2.9)"}, {}, "a.py cites Eq. (2.9)"),
        ({2: r"\tag{2.1}"}, {"a.py": "see equation (2.1)"}, {2: GOOD}, "write Eq. (c.n)"),
        ({5: r"\tag{2.1}"}, {}, {5: GOOD}, "is defined in chapter 5"),
    ],
)
def test_a_mistake_is_found(chapters, citing, tests, message):
    wrong, awaited = problems(chapters, citing, tests)
    assert any(message in line for line in wrong)
    assert awaited == []


def test_a_citation_of_a_chapter_to_come_is_listed_apart():
    assert problems({2: ""}, {"a.py": "Eq. (4.1)"}, {}) == ([], ["a.py cites Eq. (4.1), which is not defined"])


def test_all_forms_of_citation_are_read():
    text = "Eq. (2.1), then Eqs. (2.2) and (2.3), Eqs. (2.4)–(2.5), Eqs. (2.6, 2.7); Eqs.\n# (2.8),\n# (2.9)"
    assert cites(text) == [f"2.{n}" for n in range(1, 10)]
    assert cites("the version 2.1 (2.2)") == []


def test_tests_in_classes_and_raises_count():
    text = "class A:\n    def test_eq_1_2_x(self):\n        with pytest.raises(ValueError):\n            f()\n"
    assert tested(text) == ["1.2"]

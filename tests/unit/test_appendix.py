"""The appendix's tables are true: symbols, names, acronyms and words are where it says that they are."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from tests.equations.numbering import cites, tags

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "notebooks" / "src"
CHAPTERS = {int(path.name[:2]): path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("[0-9][0-9]_*.py"))}
APPENDIX = (SOURCES / "appendix_notation_and_glossary.py").read_text(encoding="utf-8")


def plain(text):
    """Mathematics without what only sets it: spaces, sizes, and one bar for | and \\mid. A command ends in a dot."""
    text = re.sub(r"\\(?:[!,;:]|(?:quad|qquad|left|right|(?:big|Big|bigg)[lr]?)(?![A-Za-z]))", " ", text)
    text = text.replace("\\mid", "|").replace("\\vert", "|").replace("\\lVert", "\\Vert")
    return re.sub(r"\s+", "", re.sub(r"\\([A-Za-z]+)", r"\\\1·", text))


def prose(chapter):
    """A chapter's words on one line, in lower case, without comment marks."""
    return re.sub(r"\s*\n#?\s*", " ", CHAPTERS[chapter]).lower()


def equations():
    """Each numbered equation's formula, in the order of the chapters (not chapter 0, which shows things in advance)."""
    found = {}
    for chapter, text in CHAPTERS.items():
        for block in re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL):
            for tag in tags(block) if chapter else []:
                found[tag] = plain(re.sub(r"\n#", " ", block))
    return found


def holds(formula, symbol):
    """Whether a formula holds a symbol, not as a part of a longer one. Neighbouring letters are factors."""
    symbol = plain(symbol)
    if not re.search(r"\\(?:mathcal|mathrm|text)·", symbol):
        formula = re.sub(r"\\mathcal·[A-Z]|\\(?:text|mathrm|operatorname)·\{[^}]*\}", "!", formula)
    if len(symbol) > 1:
        before = r"(?:(?<![A-Za-z])|(?<=_[A-Za-z]))" if symbol[0].isalpha() else ""
        return re.search(before + re.escape(symbol), formula) is not None
    if symbol == "D":
        formula = re.sub(r"D[(_]", "!", formula)  # a distortion
    if symbol == "d":
        formula = re.sub(r"d(?=[A-Za-z(\\_])|\(d\)|bar·d", "!", formula)  # a differential, or a difference
    return symbol in re.sub(r"\\[A-Za-z]+·", "", formula)


def table(heading):
    """The rows of the tables under a heading, as lists of cells."""
    section = re.split(r"\n# #+ ", APPENDIX.split(f" {heading}\n", 1)[1], maxsplit=1)[0]
    rows = re.findall(r"^# \|(.+)\|$", section, re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [row for row in cells if not set(row[0]) <= set("-: ")]


SYMBOLS = [row for heading in ("Points, Gaussians, mixtures", "Expectation–maximization, and choosing K",
                               "The bound, the VAE, its price", "The prior, and the mixture")
           for row in table(heading)[1:]]
NAMES, WORDS = table("Names in the library")[1:], table("Words and acronyms")
ACRONYMS = [row for row in WORDS if row[0].isalpha() and (row[0].isupper() or row[0] == "pPCA")]
TERMS = [row for row in WORDS if row not in ACRONYMS and row[0] not in ("acronym", "word")]


def test_the_tables_are_read_whole():
    assert len(SYMBOLS) > 45 and len(NAMES) > 20 and len(ACRONYMS) > 10 and len(TERMS) > 15
    assert all(len(row) == 4 for row in SYMBOLS + NAMES) and all(len(row) == 3 for row in WORDS)


@pytest.mark.parametrize("row", SYMBOLS, ids=lambda row: row[0])
def test_a_symbol_stands_in_its_equation_and_in_none_before(row):
    symbol, number = row[0].strip("$"), cites(row[3])[0]
    found = equations()
    order = sorted(found, key=lambda tag: tuple(map(int, tag.split("."))))
    holding = [tag for tag in order if holds(found[tag], symbol)]
    assert holding[:1] == [number]


@pytest.mark.parametrize("row", SYMBOLS, ids=lambda row: row[0])
def test_a_symbols_code_name_is_the_librarys(row):
    library = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "gmvae_lib").glob("*.py"))
    for name in re.findall(r"`([^`]+)`", row[2]):
        if not name.startswith("("):
            assert re.search(rf"(?<!\w){re.escape(name.split('=')[-1])}(?!\w)", library), f"{name} is nowhere"


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row[0])
def test_a_name_exists_and_its_docstring_cites_the_equation(row):
    module, *path = row[0].strip("`").split(".")
    thing = importlib.import_module(f"gmvae_lib.{module}")
    for part in path:
        thing = getattr(thing, part)
    assert thing.__doc__
    for number in cites(row[2]):
        assert number in cites_with_ranges(inspect.getsource(thing))


def cites_with_ranges(text):
    """The numbers cited, those inside a range such as Eqs. (8.22)–(8.25) included."""
    found = cites(text)
    for first, last in re.findall(r"\((\d+\.\d+)\)–\((\d+\.\d+)\)", text):
        chapter, low = first.split(".")
        found += [f"{chapter}.{n}" for n in range(int(low), int(last.split(".")[1]) + 1)]
    return found


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row[0])
def test_a_name_is_used_in_its_chapter_or_in_a_later_one(row):
    name = row[0].strip("`").split(".")[-1]
    assert any(re.search(rf"\b{name}\b", text) for chapter, text in CHAPTERS.items() if chapter >= int(row[3]))


@pytest.mark.parametrize("row", ACRONYMS, ids=lambda row: row[0])
def test_an_acronym_is_used_and_spelled_out_in_its_chapter(row):
    assert re.search(rf"\b{row[0]}s?\b", CHAPTERS[int(row[2])])
    full = re.escape(row[1].lower()).replace(r"\-", "[ -]").replace(r"\ ", "(?:'s)? ")
    assert re.search(full, prose(int(row[2])))


@pytest.mark.parametrize("row", TERMS, ids=lambda row: row[0])
def test_a_word_is_used_in_its_chapter(row):
    assert re.search(re.escape(row[0].lower()).replace(r"\-", "[ -]").replace(r"\ ", "[ -]"), prose(int(row[2])))


def test_every_citation_leads_to_an_equation():
    defined = {tag for text in CHAPTERS.values() for tag in tags(text)}
    assert set(cites(APPENDIX)) <= defined


def test_words_can_be_found_by_the_alphabet():
    for rows in (ACRONYMS, TERMS):
        assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=str.lower)


def test_tables_do_not_repeat_themselves():
    for rows in (SYMBOLS, NAMES, WORDS):
        first = [row[0] for row in rows]
        assert len(first) == len(set(first))


def test_a_false_entry_is_found():
    assert holds(plain(r"p(x)=\sum_k\pi_k\,\mathcal N(x|\mu_k,\Sigma_k)"), r"\mathcal N(x\mid\mu_k,\Sigma_k)")
    assert holds(plain(r"\Sigma=LL^\top"), "L") and holds(plain(r"p\,\Vert\,q(z)\,dz"), "q(z)")
    assert not holds(plain(r"\mathcal N(x)+\mathrm{KL}"), "N") and not holds(plain(r"\mathrm{KL}"), "K")
    assert not holds(plain(r"\int f\,dz"), "d") and not holds(plain(r"r_{nkj}"), "r_{nk}")
    assert not holds(plain(r"\log L_{ii}"), "o") and not holds(plain(r"\beta_c"), r"\eta")

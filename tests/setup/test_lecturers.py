"""The lecturers' page says of the chapters what the chapters say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "notebooks/for_lecturers.md").read_text(encoding="utf-8")
SOURCES = {path.stem[:2]: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks/src").glob("[0-9]*.py")}


def rows(heading):
    """The rows of the first table below a second-level heading, as lists of cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def headings(chapter):
    return set(re.findall(r"^# ##+ (.+)$", SOURCES[chapter], re.MULTILINE))


def named(text):
    """The section headings, in italics, that a cell names."""
    return re.findall(r"(?<![*\w])\*([^*]+)\*(?![*\w])", text)


def test_every_relative_link_resolves():
    targets = re.findall(r"\]\(([^)#]+)", PAGE)
    assert len(targets) > 15
    missing = [target for target in targets if not target.startswith("https://")
               and not (ROOT / "notebooks" / target).exists()]
    assert missing == []


@pytest.mark.parametrize("row", rows("Minutes"), ids=lambda row: row[0][1:3])
def test_minutes_and_sections_are_the_chapters_own(row):
    chapter, read, exercises, sections = row
    source = SOURCES[chapter[1:3]]
    if found := re.search(r"(?:about|takes\*\*) (\d+) minutes", source):  # chapter 00 does not say
        assert read == found[1]
    rated = re.findall(r"^# ###+ Exercise [\d.]+ \(★+, (\d+) minutes\)", source, re.MULTILINE)
    assert int(exercises) == sum(map(int, rated))
    assert set(named(sections)) <= headings(chapter[1:3])


@pytest.mark.parametrize(("heading", "total"), [("Thirteen weeks of ninety minutes", 90), ("Two days", 360)])
def test_a_plan_fills_its_time_and_names_sections_that_exist(heading, total):
    minutes, unknown, current = {}, [], None
    for when, what, length in rows(heading):
        current = when or current
        minutes[current] = minutes.get(current, 0) + int(length)
        chapter = what[:2]
        unknown += [name for name in named(what) if chapter not in SOURCES or name not in headings(chapter)]
    assert unknown == []
    assert set(minutes.values()) == {total} and list(minutes) == [str(n + 1) for n in range(len(minutes))]
    assert len(minutes) == {90: 13, 360: 2}[total]


def test_misconceptions_name_sections_that_exist():
    current = None
    for chapter, believed, where in rows("What students will get wrong"):
        current = chapter or current
        assert believed.endswith((".", "?"))
        assert set(named(where)) <= headings(current), where


def test_figures_for_a_hub_add_up():
    """A student's memory times their number is what all take together, to the roundings."""
    table = {row[0]: row[1:] for row in rows("A server for the class") if len(row) == 4}
    number = [int(n) for n in re.findall(r"\d+", PAGE.split("| students at once |")[1].splitlines()[0])]
    for n, each, together in zip(number, table["memory of one student: server + kernel (PSS)"],
                                 table["all students together"], strict=True):
        server, kernel = map(int, re.findall(r"\d+", each))
        assert n * (server + kernel) / 1000 == pytest.approx(float(together.removesuffix(" GB")), abs=0.1)


def test_the_map_of_chapter_00_gives_the_chapters_own_minutes():
    listed = dict(re.findall(r"^# \| \[(\d\d) .*\| (\d+) \|$", SOURCES["00"], re.MULTILINE))
    own = {chapter: re.search(r"(?:about|takes\*\*) (\d+) minutes", source)[1] for chapter, source in SOURCES.items()
           if chapter != "00"}
    assert {chapter: listed[chapter] for chapter in own} == own

"""What the README points to exists, and what exists among the chapters is in it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_relative_link_and_picture_resolves():
    targets = re.findall(r"\]\(([^)]+)\)", README)
    assert [target for target in targets if not target.startswith("https://") and not (ROOT / target).exists()] == []


def test_every_chapter_is_linked():
    chapters = {path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert chapters == set(re.findall(r"\(notebooks/(\d\d_\w+\.ipynb)\)", README))


def test_it_fits_on_a_screen_and_names_the_commands():
    assert len(README.splitlines()) < 80
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the Makefile has no target {target}"


def test_its_numbers_are_those_of_the_page_of_results():
    paragraph = re.search(r"^\[Results\].*?\n\n", README, re.MULTILINE | re.DOTALL)[0]
    numbers = re.findall(r"\d+\.\d+", paragraph)
    page = (ROOT / "tests/benchmarks/RESULTS.md").read_text(encoding="utf-8")
    assert len(numbers) > 4
    assert [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", page)] == []

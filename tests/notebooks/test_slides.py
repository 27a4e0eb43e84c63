"""What a deck is made of; that it can be read is tested in the browser."""

import re
import subprocess
import sys

import pytest
import slides
from build import ROOT


@pytest.fixture(scope="module")
def deck():
    return slides.deck(ROOT / "notebooks" / "04_when_the_e_step_is_impossible.ipynb")


def test_a_deck_names_no_file_and_no_address_to_load(deck):
    page = re.sub(r"(<script>).*?</script>", r"\1", deck, flags=re.DOTALL)
    assert page.count("<script>") == 4
    assert re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["'](?!data:)[^"']*""", page) == []
    assert "@import" not in page and "url(" not in page.replace("url(data:", "")


def test_it_says_its_language_and_title(deck):
    assert '<html lang="en">' in deck
    assert "<title>04 When the E-step is impossible</title>" in deck


def test_links_lead_to_decks_and_never_to_files_that_are_not_beside_them(deck):
    targets = set(re.findall(r'<a href="([^"]+)"', deck))
    assert "05_variational_autoencoder.html" in {target.partition("#")[0] for target in targets}
    assert not [target for target in targets if ".ipynb" in target or target.startswith("..")]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('<a href="02_em.ipynb#The-bound">it</a>', '<a href="02_em.html#The-bound">it</a>'),
        ('<a href="solutions/02_em.ipynb">the solutions</a>', "the solutions"),
        ('<a href="#here">above</a>', '<a href="#here">above</a>'),
        ('<a href="https://example.org/a.ipynb">far</a>', '<a href="https://example.org/a.ipynb">far</a>'),
    ],
)
def test_relink(link, expected):
    assert slides.relink(f"<p>{link}</p>", {"02_em"}) == f"<p>{expected}</p>"


def test_files_that_are_not_the_tested_ones_are_refused():
    package, path, _ = slides.REVEAL_JS
    with pytest.raises(ValueError, match=r"reveal\.js of the package pyreveal is not the tested one"):
        slides.asset(package, path, "0" * 64)


def test_the_command_writes_the_decks_it_is_asked_for(tmp_path):
    command = [sys.executable, ROOT / "notebooks" / "slides.py", "--to", tmp_path / "out"]
    subprocess.run([*command, "00"], check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00_start_here.html"]
    said = subprocess.run([*command, "99"], capture_output=True, text=True)
    assert said.returncode == 2 and "no chapter begins with 99" in said.stderr

"""Make a deck of slides from each chapter: `make slides`, or

    python notebooks/slides.py [--to FOLDER] [NAME …]      NAME: 02, 02_expectation, …

A deck is one HTML file that needs no network and no other file: reveal.js, MathJax, pictures and styles stand in it.
The cells' `slideshow` metadata say where slides begin; `deck/deck.js` breaks what is longer than a slide.
"""

import argparse
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import nbformat
from build import ROOT, pairs
from nbconvert import SlidesExporter
from pygments.formatters import HtmlFormatter

DECK = Path(__file__).parent / "deck"
CODE_STYLE = "xcode"  # every colour of it has a contrast above 4.5 on the grey behind code
# Two packages are wanted only for the files of reveal.js and MathJax in them, so these files are held to their digests.
REVEAL_JS = (
    "pyreveal",
    "revealjs/dist/reveal.js",
    "3fb84c30d2e610dd598843d75a123ef2c4dbc588847cda86cd8c7a61e18ddb6b",
)
REVEAL_CSS = (
    "pyreveal",
    "revealjs/dist/reveal.css",
    "64e6203ee2048665c9f49c368f345fb3d7f936c404934162c70369a7682f388f",
)
MATHJAX = (  # with all of TeX's extensions and the glyphs as outlines: nothing is loaded later
    "mathjax",
    "static/mathjax/es5/tex-svg-full.js",
    "214c3da890b16db3d1319684cc04f3fd4e72ea59d5eb3863f256146015fb1783",
)
SETTINGS = """MathJax = {
    tex: {inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]], processEscapes: true},
    svg: {fontCache: "local"},
    options: {enableMenu: false},
};"""


def asset(package, path, digest):
    """The text of a file in an installed package, if it is the very file that the decks were tested with."""
    data = files(package).joinpath(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{path} of the package {package} is not the tested one: pip install -c constraints.txt")
    return data.decode()


def chapters(root=ROOT):
    """The notebooks that lectures are held from: all but the solutions."""
    return [notebook for _, notebook in pairs(root) if notebook.parent.name != "solutions"]


def title(notebook):
    """A notebook's first heading, without mark-up."""
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"[*$`]", "", first.splitlines()[0].lstrip("# "))


def relink(html, decks):
    """Links to other chapters lead to their decks; those to other files of the course are left as words."""

    def replace(link):
        target, words = link[1], link[2]
        name, _, anchor = target.partition("#")
        if not name or re.match(r"[a-z]+:", target):
            return link[0]
        if name.removesuffix(".ipynb") in decks:
            return f'<a href="{name.removesuffix(".ipynb")}.html{"#" * bool(anchor)}{anchor}">{words}</a>'
        return words

    return re.sub(r'<a href="([^"]*)">(.*?)</a>', replace, html, flags=re.DOTALL)


def deck(path):
    """The deck of one notebook, as HTML."""
    code = HtmlFormatter(style=CODE_STYLE).get_style_defs(".highlight")
    scripts = [SETTINGS, asset(*MATHJAX), asset(*REVEAL_JS), (DECK / "deck.js").read_text(encoding="utf-8")]
    resources = {
        "metadata": {"path": str(path.parent)},
        "deck": {
            "title": title(nbformat.read(path, as_version=4)),
            "styles": "\n".join([asset(*REVEAL_CSS), code, (DECK / "deck.css").read_text(encoding="utf-8")]),
            "scripts": [script.replace("</script", r"<\/script") for script in scripts],
        },
    }
    exporter = SlidesExporter(
        raw_template=(DECK / "template.html.j2").read_text(encoding="utf-8"),
        exclude_anchor_links=True,
        embed_images=True,
    )
    html, _ = exporter.from_filename(str(path), resources=resources)
    return relink(html, {chapter.stem for chapter in chapters()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="only chapters whose name begins so: 02, appendix, …")
    parser.add_argument("--to", type=Path, default=ROOT / "slides", help="folder of the decks (default: slides)")
    args = parser.parse_args()
    found = chapters()
    if unknown := [name for name in args.names if not any(path.stem.startswith(name) for path in found)]:
        parser.error(f"no chapter begins with {', '.join(unknown)}; there are {', '.join(path.stem for path in found)}")
    args.to.mkdir(parents=True, exist_ok=True)
    for path in found:
        if args.names and not any(path.stem.startswith(name) for name in args.names):
            continue
        target = args.to / f"{path.stem}.html"
        target.write_text(deck(path), encoding="utf-8")
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

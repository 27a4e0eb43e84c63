"""Look at the course as a reader sees it: pictures of notebooks in JupyterLab.

    python tests/browser/screenshot.py --readme                     the README's picture: chapter 00 and its widget
    python tests/browser/screenshot.py --to FOLDER NAME.ipynb …     notebooks page by page (solutions/NAME.ipynb too)
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser import lab  # noqa: E402

README = ROOT / "notebooks" / "images" / "start_here.png"
NOTEBOOK = ".jp-WindowedPanel-outer"
SCROLLER = f"document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) {NOTEBOOK}')"


def settle(page):
    """Wait until pictures are loaded and drawn."""
    page.wait_for_function("() => [...document.images].every(image => image.complete)")
    page.wait_for_timeout(500)


def readme(chrome, address):
    notebook = lab.OpenNotebook(lab.Lab(chrome, address, width=1200, height=980), "00_start_here.ipynb")
    notebook.run_all()
    notebook.lab.command("application:toggle-left-area")
    panel = notebook.panel()
    panel.press(times=1)
    panel.element.evaluate("element => element.scrollIntoView({block: 'center'})")
    settle(notebook.page)
    README.parent.mkdir(exist_ok=True)
    notebook.page.screenshot(path=README)
    notebook.close()
    print(README)


def pages(chrome, address, name, folder, run):
    notebook = lab.OpenNotebook(lab.Lab(chrome, address, width=1280, height=1400), name)
    if run:
        notebook.run_all()
    top, number, end = 0, 1, False
    while not end:  # cells get their height only when they are scrolled to, so the end is known only there
        notebook.page.evaluate(f"top => {{ {SCROLLER}.scrollTop = top; }}", top)
        settle(notebook.page)
        path = folder / f"{name.replace('/', '_').removesuffix('.ipynb')}-{number:02d}.png"
        notebook.page.screenshot(path=path)
        print(path)
        step, height = notebook.page.evaluate(f"() => [{SCROLLER}.clientHeight, {SCROLLER}.scrollHeight]")
        end = top + step >= height
        top, number = top + 0.92 * step, number + 1
    notebook.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="notebooks, relative to notebooks/")
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--to", type=Path, default=Path("screenshots"))
    parser.add_argument("--run", action="store_true", help="run the notebooks first")
    parser.add_argument("--dark", action="store_true", help="in JupyterLab's dark theme")
    args = parser.parse_args()
    theme = "JupyterLab Dark" if args.dark else "JupyterLab Light"
    with tempfile.TemporaryDirectory() as work, lab.serve(Path(work), theme) as address, lab.browser() as chrome:
        if args.readme:
            readme(chrome, address)
        args.to.mkdir(parents=True, exist_ok=True)
        for name in args.names:
            pages(chrome, address, name, args.to, args.run)


if __name__ == "__main__":
    main()

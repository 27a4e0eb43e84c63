"""Drive a real JupyterLab in a real, headless Chromium."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
START = 60  # seconds that the server may take

# Runs in the page: keeps the milliseconds from each key press to the frame in which the picture's new bytes are drawn.
STOPWATCH = """picture => {
    if (picture.times) { return; }
    picture.times = [];
    let pressed = 0;
    document.addEventListener("keydown", () => { pressed = performance.now(); }, true);
    picture.addEventListener("load", () => requestAnimationFrame(
        () => picture.times.push(performance.now() - pressed)));
}"""

# Runs in the page: what is left of TeX in the rendered prose outside formulas and code.
UNSET = r"""() => [...document.querySelectorAll(".jp-MarkdownOutput")].flatMap(prose => {
    const copy = prose.cloneNode(true);
    copy.querySelectorAll("mjx-container, code, pre").forEach(node => node.remove());
    return copy.textContent.match(/.{0,30}(?:\$|\\[a-zA-Z]+).{0,30}/g) || [];
})"""


AXE = Path(find_spec("axe_playwright_python").origin).with_name("axe.min.js")
# JupyterLab's own, which the course cannot change: an output's picture gets no alt from the notebook, where it stands
# (tests/notebooks asks for it, nbconvert and the decks show it); nor does an ipywidgets Image, whose caption is a
# status. A slider's handle is not bound to its label, so a labelled number box stands beside it. MathJax's formulas.
NOT_OURS = [".jp-RenderedImage img", "img.gmvae-picture", ".noUi-handle", "mjx-container"]
INSPECT = """async only => {
    const context = {include: [[".jp-MarkdownOutput"], [".jp-OutputArea-output"]], exclude: NOT_OURS};
    const all = {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]};
    const runOnly = only.length ? {type: "rule", values: only} : all;
    // Where a formula is wider than the window JupyterLab scrolls the cell, which browsers let the keyboard do by now.
    const rules = {"scrollable-region-focusable": {enabled: false}};
    const {violations} = await axe.run(context, {runOnly, rules, resultTypes: ["violations"], preload: false});
    return violations.filter(found => ["serious", "critical"].includes(found.impact)).flatMap(found =>
        found.nodes.map(node => `${found.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`));
}""".replace("NOT_OURS", json.dumps([[selector] for selector in NOT_OURS]))


def chromium():
    """The path of an installed Chromium or Chrome (Playwright's own included), or None."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextlib.contextmanager
def browser():
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield chrome
        chrome.close()


@contextlib.contextmanager
def serve(folder, theme="JupyterLab Light"):
    """JupyterLab over a copy of the notebooks in `folder`, without any of this user's settings; yields its address."""
    work = folder / "course"
    shutil.copytree(ROOT / "notebooks", work / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(ROOT / "jupytext.toml", work)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "themes.jupyterlab-settings").write_text(json.dumps({"theme": theme}))
    (settings / "notification.jupyterlab-settings").write_text(json.dumps({"fetchNews": "false"}))
    private = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {**os.environ, **{name: str(folder / place) for name, place in private.items()}}
    environment.pop("GMVAE_PROGRESS", None)  # a reader sees progress bars
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={work}"),
        *("--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"),
        "--ServerApp.jpserver_extensions=jupyterlab_jupytext=False",  # as `make lab` does
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        *(["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []),
    ]
    log = folder / "server.log"
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=work)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address, server, log):
    deadline = time.monotonic() + START
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}") from None
            time.sleep(0.2)


class Lab:
    """A window with JupyterLab in it, in which notebooks are opened one after the other: loading it takes seconds.

    `problems` collects what goes wrong on the page and in its console, `outside` what is asked from other servers.
    """

    def __init__(self, browser, address, width=1280, height=900):
        self.address, self.problems, self.outside = address, [], []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(60_000)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("console", self._on_console)
        self.page.on("request", self._on_request)
        self.page.goto(f"{address}/lab/workspaces/tests?reset")
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.evaluate("() => window.jupyterapp.restored")

    def _on_console(self, message):
        if message.type == "error":
            self.problems.append(f"console: {message.text} {message.location.get('url', '')}")

    def _on_request(self, request):
        if not request.url.startswith((self.address, self.address.replace("http", "ws"), "data:", "blob:")):
            self.outside.append(request.url)

    def command(self, name, **arguments):
        self.page.evaluate("([name, args]) => void window.jupyterapp.commands.execute(name, args)", [name, arguments])

    def theme(self, name):
        """Change the colour theme: "JupyterLab Light" or "JupyterLab Dark"."""
        self.page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)


class OpenNotebook:
    """A notebook, open in JupyterLab. Its `problems` and what it asked from `outside` are those since it was opened."""

    def __init__(self, window, name):
        self.name, self.lab, self.page = name, window, window.page
        assert self.page.locator(".jp-Notebook").count() == 0, "another notebook is open"
        window.problems.clear()
        window.outside.clear()
        window.command("docmanager:open", path=f"notebooks/{name}")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell")
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.context.ready;
                await panel.sessionContext.ready;
            }"""
        )

    @property
    def problems(self):
        return self.lab.problems

    @property
    def outside(self):
        return self.lab.outside

    def run_all(self, timeout=240):
        """Run all cells and wait for the last; returns the seconds it took."""
        start = time.monotonic()
        self.page.set_default_timeout(1000 * timeout)
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        self.page.wait_for_function(
            """() => {
                const panel = window.jupyterapp.shell.currentWidget;
                const cells = panel.content.widgets.filter(cell => cell.model.type === "code");
                return panel.sessionContext.session.kernel.status === "idle"
                    && cells.every(cell => cell.model.executionState === "idle");
            }"""
        )
        self.page.set_default_timeout(60_000)
        return time.monotonic() - start

    def errors(self):
        """The texts of outputs that are errors or warnings."""
        output = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{}']"
        return self.page.locator(f"{output.format('error')}, {output.format('stderr')}").all_inner_texts()

    def unset_formulas(self):
        """Formulas that MathJax marks as wrong or with an unknown macro, and TeX that it did not take for a formula."""
        marked = self.page.locator("mjx-merror, mjx-mtext[style*='color: red']").evaluate_all(
            "nodes => nodes.map(node => node.closest('mjx-container').textContent)"
        )
        return marked + self.page.evaluate(UNSET)

    def formulas(self):
        return self.page.locator("mjx-container").count()

    def pictures(self, at_least=0):
        """How many pictures the outputs show, once there are so many: JupyterLab draws what is out of sight later."""
        images = ".jp-OutputArea-output img"
        self.page.wait_for_function(f"n => document.querySelectorAll('{images}').length >= n", arg=at_least)
        return self.page.locator(images).count()

    def wait_for_formulas(self):
        """Waits until MathJax has set some formulas, and for a second no more."""
        self.page.wait_for_function(
            """() => {
                const n = document.querySelectorAll("mjx-container").length;
                if (n !== window.formulasSeen) [window.formulasSeen, window.seenAt] = [n, performance.now()];
                return n > 0 && performance.now() - window.seenAt > 1000;
            }"""
        )

    def violations(self, *only):
        """What axe-core finds serious or critical in prose and outputs (only by these rules, where some are named)."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        return self.page.evaluate(INSPECT, list(only))

    def panel(self, n=0):
        return Panel(self.page, self.page.locator(".gmvae-panel").nth(n))

    def panels(self):
        return self.page.locator(".gmvae-panel").count()

    @contextlib.contextmanager
    def deck(self):
        """The notebook as slides, with jupyterlab-slideshow, at the one that shows the first widget."""
        self.page.evaluate(
            """() => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                const cells = notebook.widgets;
                notebook.activeCellIndex = cells.findIndex(cell => cell.node.querySelector(".gmvae-panel"));
            }"""
        )
        self.lab.command("deck:start")
        self.page.wait_for_selector("body[data-jp-deck-mode='presenting']", state="attached")
        try:
            yield
        finally:
            self.lab.command("deck:stop")
            self.page.wait_for_selector("body:not([data-jp-deck-mode='presenting'])", state="attached")

    def next_slide(self, steps=12):
        """Go on by keyboard, past what else belongs to this slide; returns once the widget is out of sight."""
        for _ in range(steps):
            self.page.locator(".jp-deck-mod-direction-forward").focus()
            self.page.keyboard.press("Enter")
            try:
                self.page.locator(".gmvae-panel").first.wait_for(state="hidden", timeout=2000)
                return
            except Error:
                continue  # a fragment of the same slide
        raise AssertionError(f"{steps} steps on, the widget is still in sight")

    def close(self):
        """Shut the kernel down and close the notebook without saving it."""
        self.page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.sessionContext.shutdown();
                panel.dispose();
            }"""
        )
        self.page.wait_for_selector(".jp-Notebook", state="detached")


class Panel:
    """One of the course's widgets: sliders, a picture, and a caption that says what the slider changed."""

    def __init__(self, page, element):
        self.page, self.element = page, element
        self.picture = element.locator("img.gmvae-picture").first
        self.element.scroll_into_view_if_needed()
        self.picture.wait_for()

    def caption(self):
        return self.element.locator(".gmvae-status").first.inner_text()

    def magnification(self):
        """How much larger the picture is shown than it was drawn."""
        return self.picture.evaluate("picture => picture.getBoundingClientRect().width / picture.naturalWidth")

    def sliders(self):
        """The numbers of the sliders that can be moved."""
        handles = self.element.locator(".noUi-handle")
        stuck = handles.evaluate_all("nodes => nodes.map(node => node.closest('[disabled]') !== null)")
        return [n for n, disabled in enumerate(stuck) if not disabled]

    def alerts(self):
        return self.element.locator("[role=alert]").all_inner_texts()

    def press(self, times=20, slider=0):
        """Move a slider there and back with the arrow keys; returns the milliseconds from each key to its picture."""
        handle = self.element.locator(".noUi-handle").nth(slider)
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        keys = ["ArrowLeft", "ArrowRight"] if at_end else ["ArrowRight", "ArrowLeft"]
        self.picture.evaluate(STOPWATCH)
        picture, before = self.picture.element_handle(), self.picture.evaluate("picture => picture.times.length")
        handle.focus()
        for n in range(times):
            self.page.keyboard.press(keys[n % 2])
            try:
                more = "([picture, n]) => picture.times.length > n"
                self.page.wait_for_function(more, arg=[picture, before + n], timeout=10_000)
            except Error:
                raise AssertionError(f"key press {n + 1} ({keys[n % 2]}) brought no new picture in 10 s") from None
        return self.picture.evaluate("picture => picture.times")[before:]

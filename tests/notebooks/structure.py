"""What a notebook must look like. Each check takes a `Page` and returns what is wrong, in words; nothing means fine."""

import ast
import re
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat

SLIDE_TYPES = {"slide", "subslide", "fragment", "skip", "notes", None}  # None: on the slide of the cell before
EXERCISE = re.compile(r"Exercise (\d+)\.(\d+) \((★{1,3}), (\d+) minutes?\)")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+(?:\([^()]*\))?)\)")
VAGUE = {"here", "link", "this", "this link", "click here", "this page"}


@dataclass
class Page:
    """A notebook and where it lies."""

    notebook: nbformat.NotebookNode
    path: Path

    @classmethod
    def read(cls, path):
        return cls(nbformat.read(path, as_version=4), path)

    @property
    def is_solution(self):
        return self.path.parent.name == "solutions"

    @property
    def chapter(self):
        """Its number. The appendix counts as 0: it has neither equations nor exercises of its own."""
        return int(self.path.name[:2]) if self.path.name[:2].isdigit() else 0

    @cached_property
    def code(self):
        return [cell for cell in self.notebook.cells if cell.cell_type == "code"]

    @cached_property
    def prose(self):
        """The markdown cells' texts, without fenced code."""
        texts = [cell.source for cell in self.notebook.cells if cell.cell_type == "markdown"]
        return [re.sub(r"```.*?```", "", text, flags=re.DOTALL) for text in texts]

    @cached_property
    def headings(self):
        return [
            (len(marks), text.strip())
            for source in self.prose
            for marks, text in re.findall(r"^(#{1,6}) +(.+)$", source, re.MULTILINE)
        ]

    @cached_property
    def anchors(self):
        """Where a link may point to: JupyterLab's and GitHub's heading anchors, and explicit ids."""
        explicit = re.findall(r"""\bid=["']([^"']+)["']""", "\n".join(self.prose))
        return {text.replace(" ", "-") for _, text in self.headings} | set(explicit)

    @cached_property
    def inline_math(self):
        return [math for source in self.prose for math in inline_math(source)]

    def outputs(self):
        for number, cell in enumerate(self.code, 1):
            for output in cell.outputs:
                yield number, output


def without_display_math(text):
    return re.sub(r"\$\$.*?\$\$", " ", re.sub(r"`[^`\n]+`", "", text), flags=re.DOTALL)


def inline_math(text):
    return re.findall(r"(?<!\\)\$(.+?)(?<!\\)\$", without_display_math(text), re.DOTALL)


def check_headings(page):
    levels = [level for level, _ in page.headings]
    if levels.count(1) != 1:
        yield f"{levels.count(1)} H1 headings, where there must be one"
    if levels[:1] != [1]:
        yield "the first heading is not the H1"
    for (before, _), (level, text) in zip(page.headings, page.headings[1:]):
        if level > before + 1:
            yield f"'{text}' is an H{level} under an H{before}"
    texts = [text for _, text in page.headings]
    for text in sorted({text for text in texts if texts.count(text) > 1}):
        yield f"two headings read '{text}', so a link reaches only the first"


def check_code_cells(page):
    lengths = [len(cell.source.strip().splitlines()) for cell in page.code]
    if lengths and statistics.median(lengths) > 6:
        yield f"the median code cell has {statistics.median(lengths):g} lines, more than 6"
    for number, length in enumerate(lengths, 1):
        if length > 25:
            yield f"code cell {number} has {length} lines, more than 25"
        if length == 0:
            yield f"code cell {number} is empty"
    for number, cell in enumerate(page.code, 1):
        widest = max(map(len, cell.source.splitlines()), default=0)
        if widest > 100:  # about as many columns as JupyterLab shows
            yield f"code cell {number} has a line of {widest} characters, more than 100"
    kinds = ["code", *(cell.cell_type for cell in page.notebook.cells)]
    number = 0
    for before, kind in zip(kinds, kinds[1:]):
        number += kind == "code"
        if before == kind == "code":
            yield f"no prose before code cell {number}"


def check_devices(page):
    """Where there is a GPU, fit() takes the model there by itself, and the plain code around it would fail."""
    for number, cell in enumerate(page.code, 1):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fit":
                if not any(keyword.arg in ("device", None) for keyword in node.keywords):
                    yield f"code cell {number} calls fit without saying on which device"


def check_execution(page):
    counts = [cell.execution_count for cell in page.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}, not 1, 2, …"
    if "widgets" in page.notebook.metadata:
        yield "widget state is saved"
    for number, output in page.outputs():
        if output.output_type == "error":
            yield f"code cell {number} ends in an error: {output.ename}"
        if output.get("name") == "stderr":
            yield f"code cell {number} writes to stderr: {output.text.strip().splitlines()[0]}"


def check_pictures(page):
    for number, output in page.outputs():
        data = output.get("data", {})
        images = [kind for kind in data if kind.startswith("image/")]
        if "application/vnd.jupyter.widget-view+json" in data and not images:
            yield f"code cell {number} shows a widget without a static picture"
        if not images:
            continue
        words = data.get("text/plain", "")
        if words.startswith("<") or not re.search(r"\w+ \w+ .*[.!?]$", words, re.DOTALL):
            yield f"code cell {number}: the picture's text/plain is no sentence that says what it shows: {words!r}"
        if any(output.metadata.get(kind, {}).get("alt") != words for kind in images):
            yield f"code cell {number}: the picture's alt metadata is not its text/plain"


def check_links(page):
    for source in page.prose:
        for bang, text, target in LINK.findall(re.sub(r"`[^`\n]+`", "", source)):
            if bang and len(text.split()) < 3:
                yield f"the image {target} has no text alternative that says what it shows"
            if text.strip().lower() in VAGUE or text.startswith("http"):
                yield f"the link text '{text}' does not say where it leads"
            yield from (f"[{text}]({target}): {wrong}" for wrong in broken(page, target))


def broken(page, target):
    if target.startswith("http://"):
        yield "not https"
    if re.match(r"[a-z]+:", target):
        return
    name, _, anchor = target.partition("#")
    file = (page.path.parent / name).resolve() if name else page.path
    if not file.exists():
        yield "no such file"
    elif anchor and file.suffix == ".ipynb":
        there = page if file == page.path else Page.read(file)
        if anchor not in there.anchors:
            yield "no such heading"


def check_math(page):
    for math in page.inline_math:
        if "\n" in math:
            yield f"a line break inside ${math}$"
    for source in page.prose:
        for line in source.splitlines():
            if line.startswith("|") and any("|" in math for math in inline_math(line)):
                yield f"a bare | inside mathematics splits a table's cell (write \\mid or \\Vert): {line}"
        if source.count("$$") % 2:
            yield f"an unpaired $$ in: {source[:60]!r}"
    text = "\n".join(page.prose)
    for macro in re.findall(r"\\(?:newcommand|DeclareMathOperator|def|require|label|ref|eqref)\b", text):
        yield f"{macro} does not render everywhere"
    for block in re.findall(r"\\begin\{(?:aligned|split|gathered)\}.*?\\end", text, re.DOTALL):
        if "\\tag" in block:
            yield f"\\tag inside aligned is an error for MathJax; put it after \\end: {block[:60]!r}"


def check_tags_of_equations(page):
    tags = re.findall(r"\\tag\{([^}]*)\}", "\n".join(page.prose))
    for tag in tags:
        if not re.fullmatch(rf"{page.chapter}\.\d+", tag):
            yield f"\\tag{{{tag}}} is not of the form {page.chapter}.n"
    for tag in sorted({tag for tag in tags if tags.count(tag) > 1}):
        yield f"\\tag{{{tag}}} stands twice"


def check_slides(page):
    for number, cell in enumerate(page.notebook.cells, 1):
        kind = cell.metadata.get("slideshow", {}).get("slide_type")
        if kind not in SLIDE_TYPES:
            yield f"cell {number} has slide type {kind!r}"
        if cell.source.startswith(("# ", "## ")) and cell.cell_type == "markdown" and kind not in {"slide", "skip"}:
            yield f"cell {number} begins a section but not a slide"


def check_cell_tags(page):
    for number, cell in enumerate(page.notebook.cells, 1):
        for tag in cell.metadata.get("tags", []):
            if tag != "nbval-ignore-output":
                yield f"cell {number} has the unknown tag {tag}"
            elif not re.search(r"perf_counter|timeit|device", cell.source):
                yield f"cell {number} is excused from comparison but shows neither a time nor a device"


def check_size(page):
    size = page.path.stat().st_size
    if size >= 2_000_000:
        yield f"{size / 1e6:.1f} MB, more than 2"


def check_exercises(page):
    if page.chapter < 2:
        return
    titles = [text for _, text in page.headings if text.startswith("Exercise ")]
    for title in titles:
        if not EXERCISE.match(title):
            yield f"'{title}' does not read 'Exercise {page.chapter}.n (★, 5 minutes)'"
    numbers = [tuple(map(int, m.groups()[:2])) for m in map(EXERCISE.match, titles) if m]
    if numbers != [(page.chapter, n) for n in range(1, len(numbers) + 1)]:
        yield f"the exercises are numbered {numbers}"
    if len(numbers) < 3:
        yield f"{len(numbers)} exercises, fewer than 3"
    checks = sum("check(" in cell.source for cell in page.code)
    if checks < len(numbers):
        yield f"{checks} cells call check(…) for {len(numbers)} exercises"
    if not page.is_solution and numbers:
        solutions = page.path.parent / "solutions" / page.path.name
        if not solutions.exists():
            yield "no notebook with solutions"
        elif [t for _, t in Page.read(solutions).headings if t.startswith("Exercise ")] != titles:
            yield "the notebook with solutions has other exercises"


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]

"""The checks of structure find what they are there to find."""

import pytest
from build import machine_paths, read_source
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks import structure
from tests.notebooks.structure import CHECKS, Page

ALT = "Two clouds of points, coloured by cluster."
EXERCISES = "# Two\n## Exercises\n" + "".join(f"### Exercise 2.{n} (★, 5 minutes)\nDo it.\n" for n in (1, 2, 3))


def prose(text, slide="slide"):
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": slide}})


def code(source="1 + 1", outputs=(), count=1, **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def picture(words=ALT, alt=ALT, **more):
    data = {"image/png": "AAAA", "text/plain": words, **more}
    return new_output("display_data", data, metadata={"image/png": {"alt": alt}})


def page(folder, *cells, name="00_toy.ipynb", metadata=None):
    path = folder / name
    path.touch()
    return Page(new_notebook(cells=list(cells), metadata=metadata or {}), path)


def test_a_good_notebook_passes_every_check(tmp_path):
    good = page(
        tmp_path,
        prose("# Title\nSee [the second part](#The-second-part): $a|b$.\n\n$$\\begin{split}a\\end{split} \\tag{0.1}$$"),
        code("time.perf_counter()", [picture()], tags=["nbval-ignore-output"]),
        prose("## The second part\n```\n# no heading\n```"),
        code("check(1)", count=2),
    )
    assert [problem for check in CHECKS for problem in check(good)] == []


@pytest.mark.parametrize(
    ("check", "message", "cells"),
    [
        ("headings", "2 H1", [prose("# A\n# B")]),
        ("headings", "not the H1", [prose("## A\n# B")]),
        ("headings", "H3 under an H1", [prose("# A\n### B")]),
        ("headings", "two headings", [prose("# A\n## B\n## B")]),
        ("code_cells", "median", [prose("x"), code("\n".join("abcdefg"))]),
        ("code_cells", "more than 25", [prose("x"), code("a\n" * 26)]),
        ("code_cells", "a line of 101 characters", [prose("x"), code("a" * 101)]),
        ("code_cells", "is empty", [prose("x"), code("\n")]),
        ("code_cells", "no prose before code cell 1", [code()]),
        ("code_cells", "no prose before code cell 2", [prose("x"), code(), code()]),
        ("devices", "without saying on which device", [prose("x"), code("fit(model, x, epochs=3)")]),
        ("execution", "execution counts", [code(count=None)]),
        ("execution", "execution counts", [code(count=2)]),
        ("execution", "ends in an error", [code(outputs=[new_output("error", ename="E", evalue="", traceback=[])])]),
        ("execution", "stderr", [code(outputs=[new_output("stream", name="stderr", text="careful\n")])]),
        ("pictures", "no sentence", [code(outputs=[picture("<Figure size 1x1>", "<Figure size 1x1>")])]),
        ("pictures", "no sentence", [code(outputs=[picture("", "")])]),
        ("pictures", "alt metadata", [code(outputs=[picture(alt="")])]),
        (
            "pictures",
            "without a static picture",
            [code(outputs=[new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})])],
        ),
        ("links", "no such file", [prose("[the next chapter](01_none.ipynb)")]),
        ("links", "no such heading", [prose("# A\n[the next part](#B)")]),
        ("links", "not https", [prose("[the article](http://example.org)")]),
        ("links", "does not say where", [prose("[here](https://example.org)")]),
        ("links", "no text alternative", [prose("![](00_toy.ipynb)")]),
        ("math", "line break", [prose("so $a\n+ b$ holds")]),
        ("math", "bare |", [prose("| symbol |\n|---|\n| $p(x|z)$ |")]),
        ("math", "unpaired", [prose("$$ a")]),
        ("math", "newcommand", [prose("$\\newcommand{\\x}{y}$")]),
        ("math", "inside aligned", [prose("$$\\begin{aligned}a \\tag{0.1}\\end{aligned}$$")]),
        ("tags_of_equations", "not of the form", [prose("$$a \\tag{1.1}$$")]),
        ("tags_of_equations", "stands twice", [prose("$$a \\tag{0.1}$$ $$b \\tag{0.1}$$")]),
        ("slides", "slide type '-'", [prose("A", slide="-")]),
        ("slides", "not a slide", [prose("## A", slide="-")]),
        ("cell_tags", "unknown tag", [code(tags=["hide"])]),
        ("cell_tags", "neither a time", [code("print(loss)", tags=["nbval-ignore-output"])]),
    ],
)
def test_a_mistake_is_found(tmp_path, check, message, cells):
    assert message in "\n".join(getattr(structure, f"check_{check}")(page(tmp_path, *cells)))


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("fewer than 3", "# Two"),
        ("does not read", EXERCISES.replace("(★, 5", "(5")),
        ("are numbered", EXERCISES.replace("2.3", "2.4")),
        ("0 cells call check", EXERCISES),
        ("no notebook with solutions", EXERCISES),
    ],
)
def test_a_mistake_among_the_exercises_is_found(tmp_path, message, text):
    assert message in "\n".join(structure.check_exercises(page(tmp_path, prose(text), name="02_toy.ipynb")))


def test_saved_widget_state_and_a_large_file_are_found(tmp_path):
    heavy = page(tmp_path, metadata={"widgets": {}})
    heavy.path.write_bytes(b" " * 2_000_000)
    assert list(structure.check_execution(heavy)) == ["widget state is saved"]
    assert list(structure.check_size(heavy)) == ["2.0 MB, more than 2"]


@pytest.mark.parametrize("text", ["/home/ada/x.py", "/tmp/ipykernel_12/1.py", "C:\\Users\\ada", "/Users/ada/gmvae"])
def test_a_path_of_the_building_machine_is_found(tmp_path, text):
    shown = page(tmp_path, code(outputs=[new_output("stream", name="stdout", text=text)]))
    assert machine_paths(shown.notebook)


def test_no_path_is_seen_where_there_is_none(tmp_path):
    text = "D/N https://example.org/home/x 1/2 ./tmp/x"
    shown = page(tmp_path, code(outputs=[new_output("stream", name="stdout", text=text)]))
    assert machine_paths(shown.notebook) == []


def test_ids_are_stable_and_a_slide_starts_with_prose_after_code(tmp_path):
    source = tmp_path / "00_toy.py"
    source.write_text("# %% [markdown]\n# # Title\n\n# %%\n1\n\n# %% [markdown]\n# Prose.\n\n# %%\n1\n")
    before = read_source(source)
    kinds = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in before.cells]
    assert kinds == ["slide", None, "subslide", None]
    assert len({cell.id for cell in before.cells}) == 4
    source.write_text("# %% [markdown]\n# First.\n\n" + source.read_text())
    assert [cell.id for cell in read_source(source).cells[1:]] == [cell.id for cell in before.cells]

"""The library's modules build on each other in the order that its docstring gives, so that a reader can follow it."""

import ast
import re
from pathlib import Path

import pytest

import gmvae_lib

FOLDER = Path(gmvae_lib.__file__).parent
ORDER = re.search(r"before it:\n(.*?)\.\n", gmvae_lib.__doc__, re.DOTALL)[1].replace("\n", " ").split(", ")


def imported(module):
    """The library's modules that a module, or any file of a package, imports."""
    path = FOLDER / f"{module}.py"
    for file in [path] if path.exists() else sorted((FOLDER / module).glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gmvae_lib":
                yield from [node.module.split(".")[1]] if "." in node.module else [name.name for name in node.names]


def test_the_order_names_every_module_once():
    modules = {path.stem for path in FOLDER.glob("*.py")} | {path.parent.name for path in FOLDER.glob("*/__init__.py")}
    assert sorted(ORDER) == sorted(modules - {"__init__"})


@pytest.mark.parametrize("module", ORDER)
def test_a_module_imports_only_from_those_before_it(module):
    assert set(imported(module)) - {module} <= set(ORDER[:ORDER.index(module)])

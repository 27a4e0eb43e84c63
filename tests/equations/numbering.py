"""Find equations' tags, the places that cite them, and the tests named after them."""

import ast
import re
from collections import Counter
from pathlib import Path

NUMBER = r"\d+\.\d+"
CITE = re.compile(rf"\bEqs?\.\s*(\({NUMBER}(?:[,–-]\s*{NUMBER})*\)(?:(?:\s*(?:,|;|–|-|and|to))+\s*\({NUMBER}\))*)")
UNLIKE = re.compile(rf"(?:(?i:equation)s?|Eqs?) \({NUMBER}\)")
CHECKING = re.compile(r"assert|raises|check|gradcheck")


def tags(text):
    """The numbers of the equations defined in a chapter's source."""
    return re.findall(r"\\tag\{([^}]*)\}", text)


def cites(text):
    """The numbers cited as Eq. (2.7), Eqs. (2.7) and (2.8), Eqs. (2.7)–(2.9)."""
    joined = re.sub(r"\s*\n\s*(?:#\s*)?", " ", text)  # a citation may run over a line's end, in prose or comments
    return [number for group in CITE.findall(joined) for number in re.findall(NUMBER, group)]


def tested(text):
    """The numbers that a test module covers: of functions test_eq_c_n_… that check something."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_eq_(\d+)_(\d+)_\w+$", node.name)):
            if any(isinstance(part, ast.Assert) or is_checking_call(part) for part in ast.walk(node)):
                found.append(f"{match[1]}.{match[2]}")
    return found


def is_checking_call(node):
    return isinstance(node, ast.Call) and bool(CHECKING.search(ast.unparse(node.func)))


def chapter(number):
    return int(number.split(".")[0])


def problems(chapters, citing, tests):
    """What is wrong, in words, and the citations of chapters that are not written yet.

    Each argument maps names to texts: `chapters` and `tests` by chapter number, `citing` by file name.
    """
    defined = [tag for text in chapters.values() for tag in tags(text)]
    wrong = [f"Eq. ({tag}) is defined {n} times" for tag, n in Counter(defined).items() if n > 1]
    for number, text in chapters.items():
        wrong += [f"Eq. ({tag}) is defined in chapter {number}" for tag in tags(text) if chapter(tag) != number]
        covered = tested(tests.get(number, ""))
        wrong += [f"Eq. ({tag}) has no test" for tag in tags(text) if tag not in covered]
        wrong += [f"a test is named after Eq. ({tag}), which is not defined" for tag in covered if tag not in defined]
    awaited = []
    for name, text in citing.items():
        for tag in sorted(set(cites(text)) - set(defined)):
            (wrong if chapter(tag) in chapters else awaited).append(f"{name} cites Eq. ({tag}), which is not defined")
        wrong += [f"{name} writes '{words}': write Eq. (c.n)" for words in UNLIKE.findall(text)]
    return wrong, awaited


def read(root):
    """The three arguments of `problems`, from a repository's files."""
    sources = sorted((root / "notebooks" / "src").glob("[0-9][0-9]_*.py"))
    modules = sorted((root / "tests" / "equations").glob("test_chapter_*.py"))
    others = [*(root / "notebooks" / "src" / "solutions").glob("*.py"), *(root / "notebooks" / "src").glob("app*.py")]
    citing = [*sources, *others, *(root / "gmvae_lib").glob("*.py"), *modules]
    return (
        {int(path.name[:2]): text_of(path) for path in sources},
        {path.relative_to(root).as_posix(): text_of(path) for path in sorted(citing)},
        {int(path.stem[-2:]): text_of(path) for path in modules},
    )


def text_of(path: Path):
    return path.read_text(encoding="utf-8")

"""List the addresses outside the course that its pages link to, and where: python -m tests.notebooks.links"""

from collections import defaultdict

from notebooks.build import ROOT, pairs
from tests.notebooks.structure import LINK, Page


def outside(root=ROOT):
    """Each address with the pages that name it."""
    prose = {path: Page.read(path).prose for _, path in pairs(root)}
    prose |= {path: [path.read_text(encoding="utf-8")] for path in [*root.glob("*.md"), *root.glob("notebooks/*.md")]}
    found = defaultdict(set)
    for path, texts in prose.items():
        for text in texts:
            for _, _, target in LINK.findall(text):
                if "://" in target:
                    found[target].add(path.relative_to(root).as_posix())
    return dict(sorted(found.items()))


if __name__ == "__main__":
    for address, pages in outside().items():
        print(address, *sorted(pages))

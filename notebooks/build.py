"""Execute the sources in notebooks/src into the notebooks that readers open: `make notebooks`, or

    python notebooks/build.py [--all] [--root FOLDER] [NAME …]      NAME: 02, 02_expectation, solutions/02, …

A notebook is built again when its contents differ from its source's, when it is not executed, or when the library has
changed since (a digest of gmvae_lib's sources stands in its metadata): contents decide, never time stamps.
"""

import argparse
import hashlib
import os
import re
import sys
import threading
import time
from pathlib import Path

import jupytext
import nbformat
import psutil
from jupytext.compare import NotebookDifference, compare_notebooks
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parents[1]
CELL_TIMEOUT = 300  # seconds
LANGUAGE = {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"}
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:home|root|Users|tmp|var|opt|private)/[\w.-]+|\b[A-Z]:\\\w+|ipykernel_\d+")


def pairs(root=ROOT):
    """Each source with its notebook, in reading order, solutions last."""
    folder = root / "notebooks"
    sources = sorted((folder / "src").glob("*.py")) + sorted((folder / "src" / "solutions").glob("*.py"))
    return [(src, (folder / src.relative_to(folder / "src")).with_suffix(".ipynb")) for src in sources]


def slide_type(cell, previous):
    """A section starts a slide; a subsection, or prose after code, the next one below; the rest goes on ("-")."""
    heading = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
    if heading:
        return "slide" if len(heading[1]) <= 2 else "subslide"
    starts = cell.cell_type == "markdown" and previous is not None and previous.cell_type == "code"
    return "subslide" if starts else "-"


def read_source(path):
    """The notebook that a percent script stands for, not executed: metadata, slide types and cell ids filled in."""
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": LANGUAGE,
    })
    seen, previous = {}, None
    for cell in notebook.cells:
        key = cell.cell_type + cell.source
        seen[key] = seen.get(key, 0) + 1
        # From the contents, so that a cell keeps its id wherever others are added.
        cell.id = hashlib.sha256(f"{key}{seen[key]}".encode()).hexdigest()[:12]
        cell.metadata.setdefault("slideshow", {"slide_type": slide_type(cell, previous)})
        if cell.metadata["slideshow"]["slide_type"] == "-":  # of a deck in JupyterLab, such a cell would be missing
            del cell.metadata["slideshow"]
        previous = cell
    return notebook


def library_digest(root=ROOT):
    """A short digest of the library's sources and shipped models."""
    files = sorted(p for p in (root / "gmvae_lib").rglob("*") if p.suffix in {".py", ".json", ".safetensors"})
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def difference(source, notebook):
    """What sets a notebook's contents apart from its source's, in words, or None."""
    expected, actual = read_source(source), nbformat.read(notebook, as_version=4)
    expected.metadata, actual.metadata = {}, {}  # the builder's own
    try:
        compare_notebooks(actual, expected, fmt="ipynb", compare_outputs=False, compare_ids=True)
    except NotebookDifference as found:
        return str(found)
    return None


def why_build(source, notebook, digest):
    """The reason for building a notebook again, or None."""
    if not notebook.exists():
        return "new"
    if difference(source, notebook):
        return "source changed"
    built = nbformat.read(notebook, as_version=4)
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in built.cells):
        return "not executed"
    return None if built.metadata.get("gmvae", {}).get("library") == digest else "library changed"


def own_memory(process):
    """Its resident bytes, without the libraries' pages that it shares with the kernel that started it (Linux)."""
    memory = process.memory_info()
    return memory.rss - getattr(memory, "shared", 0)


def watch_memory(client, peak, done):
    """Keep in `peak[0]` the largest memory, in bytes, of the kernel and its children until `done` is set."""
    while not done.wait(0.05):
        provisioner = getattr(client.km, "provisioner", None)
        if pid := getattr(provisioner, "pid", None):
            try:
                kernel = psutil.Process(pid)
                rss = kernel.memory_info().rss + sum(map(own_memory, kernel.children(recursive=True)))
            except psutil.NoSuchProcess:  # a process ended between two looks
                continue
            peak[0] = max(peak[0], rss)


def machine_paths(notebook):
    """The paths of the building machine that stand in a notebook's outputs (images aside)."""
    found = set()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts = [str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/")]
            found |= set(MACHINE_PATH.findall("\n".join([output.get("text", ""), *texts])))
    return sorted(found)


def settle(notebook):
    """Replace what differs from run to run and means nothing without a kernel: widgets' ids, the Python version."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if view := output.get("data", {}).get("application/vnd.jupyter.widget-view+json"):
                view["model_id"] = hashlib.sha256(cell.id.encode()).hexdigest()[:32]
    notebook.metadata["language_info"] = dict(LANGUAGE)


def build(source, notebook, digest):
    """Execute one source and write its notebook, all or nothing; returns seconds and peak memory in bytes."""
    nb = read_source(source)
    nb.metadata["gmvae"] = {"library": digest}
    notebook.parent.mkdir(parents=True, exist_ok=True)
    client = NotebookClient(
        nb,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(notebook.parent)}},
        store_widget_state=False,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only, not that a local kernel is not encrypted
    )
    peak, done, start = [0], threading.Event(), time.perf_counter()
    watcher = threading.Thread(target=watch_memory, args=(client, peak, done))
    watcher.start()
    try:
        client.execute()
    finally:
        done.set()
        watcher.join()
    seconds = time.perf_counter() - start
    settle(nb)
    if paths := machine_paths(nb):
        raise ValueError(f"the outputs name this machine's paths: {', '.join(paths)}")
    nbformat.validate(nb)
    unfinished = notebook.with_suffix(".ipynb.part")
    nbformat.write(nb, unfinished)
    unfinished.replace(notebook)
    return seconds, peak[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="build only notebooks whose path begins so: 02, solutions/02, …")
    parser.add_argument("--all", action="store_true", help="build even what has not changed")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.root.resolve()
    # No progress bars among the saved outputs: they differ from run to run.
    os.environ["GMVAE_PROGRESS"] = "0"

    found = [(s, n, n.relative_to(root / "notebooks").with_suffix("").as_posix()) for s, n in pairs(root)]
    if unknown := [name for name in args.names if not any(title.startswith(name) for *_, title in found)]:
        parser.error(f"no source begins with {', '.join(unknown)}; there are {', '.join(t for *_, t in found)}")
    digest, failed = library_digest(root), []
    for source, notebook, title in found:
        if args.names and not any(title.startswith(name) for name in args.names):
            continue
        reason = "asked for" if args.all else why_build(source, notebook, digest)
        if reason is None:
            print(f"{title}: up to date")
            continue
        print(f"{title}: {reason}, running …", flush=True)
        try:
            seconds, memory = build(source, notebook, digest)
        except (CellExecutionError, CellTimeoutError, ValueError) as error:
            print(f"{title}: FAILED, the notebook is left as it was\n{error}", file=sys.stderr)
            failed.append(title)
        else:
            size = notebook.stat().st_size
            print(f"{title}: {seconds:.1f} s, peak {memory / 1e6:.0f} MB, {size / 1e3:.0f} kB")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

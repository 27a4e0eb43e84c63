"""pip, conda and Binder install the same set, and Binder understands its files."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge's name is another


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0].lower()


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.lower().split("==") for line in lines if not line.startswith("#"))


def conda(path):
    """A conda file's packages with their versions (None where free), and its pip requirements."""
    dependencies = yaml.safe_load((ROOT / path).read_text())["dependencies"]
    packages = dict((*entry.split("="), None)[:2] for entry in dependencies if isinstance(entry, str))
    return packages, [entry["pip"] for entry in dependencies if isinstance(entry, dict)]


def test_every_requirement_has_an_exact_version_without_a_local_suffix():
    groups = project()["optional-dependencies"]
    required = [name_of(entry) for entry in [*project()["dependencies"], *groups["test"]]]
    pinned = constraints()
    assert set(required) <= set(pinned)
    assert not [version for version in pinned.values() if not re.fullmatch(r"[\d.]+(?:post\d+)?", version)]
    assert pinned["torch"] == "2.13.0"
    assert set(groups) == {"test"}


def test_conda_installs_what_pip_installs():
    packages, pip = conda("environment.yml")
    names = [name_of(entry) for entry in project()["dependencies"]]
    wanted = {CONDA_NAMES.get(name, name): ".".join(constraints()[name].split(".")[:2]) for name in names}
    assert packages == {"python": "3.11", "pip": None, **wanted}
    assert pip == [["--editable ."]]


def test_conda_takes_conda_forge_only():
    for path in ("environment.yml", "binder/environment.yml"):
        assert yaml.safe_load((ROOT / path).read_text())["channels"] == ["conda-forge", "nodefaults"]


def test_binder_installs_what_conda_installs_with_pytorch_for_the_processor():
    packages, _ = conda("environment.yml")
    assert conda("binder/environment.yml") == (
        {"pytorch-cpu" if name == "pytorch" else name: version for name, version in packages.items()},
        [],
    )
    assert not (ROOT / "binder" / "environment.yml").is_symlink()


def test_binder_starts_what_it_is_told_to():
    said = subprocess.run([ROOT / "binder" / "start", "printenv", "OMP_NUM_THREADS"], capture_output=True, text=True)
    assert said.stdout == "1\n"
    assert (ROOT / "binder" / "start").read_text().endswith('exec "$@"\n')


def test_repo2docker_takes_python_environment_and_scripts_from_binder(tmp_path):
    tool = shutil.which("jupyter-repo2docker", path=Path(sys.executable).parent)
    if tool is None or shutil.which("git") is None:
        pytest.skip("jupyter-repo2docker or git is not installed")
    shutil.copytree(ROOT / "binder", tmp_path / "binder")
    command = [tool, "--no-build", "--debug", "--Repo2Docker.default_buildpack=None", tmp_path]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    binder = [f"binder/{name}" for name in ("environment.yml", "postBuild", "start")]
    for part in ["conda environment for python=3.11", *binder]:
        assert part in said.stdout + said.stderr

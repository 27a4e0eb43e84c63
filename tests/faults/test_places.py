"""Disks that fill up, a home that cannot be written, a machine without a network, and a checkpoint that two share."""

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
import torch

from gmvae_lib import training
from gmvae_lib.data import load
from gmvae_lib.training import fit, load_checkpoint, save_checkpoint
from gmvae_lib.vae import VAE

X = load("digits").x[:100]
SUPERUSER = hasattr(os, "geteuid") and os.geteuid() == 0


def small(seed=0):
    torch.manual_seed(seed)
    return VAE.build(64, 3, (16,))


@contextlib.contextmanager
def mounted(folder, options):
    """A file system of its own in memory at `folder`; skips the test where it may not be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (SUPERUSER and sys.platform.startswith("linux")):
        pytest.skip("only Linux's superuser may mount a file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this superuser may not mount a file system (a container without CAP_SYS_ADMIN)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# A full disk


@contextlib.contextmanager
def disk_of(kind, folder):
    """A folder in which a second checkpoint of the small model finds no room, though the first did."""
    if kind == "tmpfs":
        with mounted(folder, "size=128k") as disk:
            yield disk
    else:  # the system refuses to let a file grow, in the middle of a write: for whoever may not mount
        resource = pytest.importorskip("resource", reason="this system has no limits on a file's size")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        folder.mkdir()
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(kind, disk):
    if kind == "tmpfs":
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 1024)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def empty(kind, disk):
    if kind == "tmpfs":
        (disk / "filler").unlink()
    else:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize("kind", ["tmpfs", "limit"])
def test_a_disk_that_is_really_full_costs_the_checkpoint_not_the_training(kind, tmp_path, monkeypatch):
    with disk_of(kind, tmp_path / "disk") as disk:
        path, model = disk / "model.safetensors", small()
        fit(model, X, epochs=1, checkpoint=path, device="cpu")
        before = path.read_bytes()
        fill(kind, disk)
        names = sorted(os.listdir(disk))
        with pytest.raises(OSError, match="No space left on device" if kind == "tmpfs" else "File too large"):
            save_checkpoint(path, model)
        monkeypatch.setattr(training, "SAVE_EVERY", 0)
        with pytest.warns(RuntimeWarning, match="could not be written, an older one is kept"):
            history = fit(model, X, epochs=3, checkpoint=path, resume=True, device="cpu")
        assert len(history) == 3 and path.read_bytes() == before and sorted(os.listdir(disk)) == names
        empty(kind, disk)
        again = small(1)
        fit(again, X, epochs=3, checkpoint=path, resume=True, device="cpu")  # from the first epoch, kept all the while
        assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())
        assert len(load_checkpoint(path, small())) == 3 and os.listdir(disk) == [path.name]


def test_a_disk_without_room_for_the_first_checkpoint_keeps_the_model(tmp_path):
    with mounted(tmp_path / "disk", "size=8k") as disk:
        model = small()
        with pytest.warns(RuntimeWarning, match="could not be written.*No space left on device"):
            history = fit(model, X, epochs=2, checkpoint=disk / "model.safetensors", device="cpu")
        assert len(history) == 2 and os.listdir(disk) == []


def test_a_disk_that_is_read_only_is_an_error_before_the_training(tmp_path):
    with mounted(tmp_path / "disk", "ro") as disk:
        with pytest.raises(ValueError, match="cannot be written .*Read-only file system.*name a file in a folder"):
            fit(small(), X, epochs=1, checkpoint=disk / "model.safetensors", device="cpu")


# A room in which nothing may be written at home, and nothing is connected


ROOM = """
import os, sys, nbformat
from nbclient import NotebookClient
cells = [
    '''
import os, socket
asked = []
def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
for place in ("HOME", "MPLCONFIGDIR", "IPYTHONDIR", "XDG_CACHE_HOME"):
    try:
        os.makedirs(os.path.join(os.environ[place], "new"))
    except OSError:
        continue
    raise AssertionError(f"{place} can be written")
''', '''
import torch
from gmvae_lib import explorers, figures
from gmvae_lib.data import load
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE
torch.manual_seed(0)
data, model = load("digits"), VAE.build(64, 2, (16,))
history = fit(model, data.x[:200], epochs=2)
assert len(history) == 2
''', '''
figures.curves([1, 2], {"distortion": history.distortion}, "A training", "epoch", "nats", "A curve that falls.")
''', '''
panel = explorers.LatentExplorer(model, data)
panel
''', '''
picture = panel.image.value
panel.z1.value = 1.5
assert panel.error is None and panel.image.value != picture
''', '''
try:
    fit(model, data.x[:200], epochs=1, checkpoint=os.path.expanduser("~/model.safetensors"))
except ValueError as error:
    print(error)
assert not asked, asked
''']
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
kinds = [sorted(key for output in cell.outputs for key in output.get("data", {})) for cell in notebook.cells]
assert [("image/png" in kind) for kind in kinds] == [False, False, True, True, False, False], kinds
assert "application/vnd.jupyter.widget-view+json" in kinds[3]
print(notebook.cells[-1].outputs[0].text)
"""


def unconnected():
    """What to put before a command so that it has the loopback only; nothing where that is not allowed."""
    if not (SUPERUSER and shutil.which("unshare") and shutil.which("ip")):
        return []
    command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return [] if subprocess.run([*command, "true"], capture_output=True).returncode else command


@contextlib.contextmanager
def read_only(folder):
    """A folder that cannot be written: mounted so for the superuser, whom permissions do not stop."""
    if not SUPERUSER:
        folder.mkdir()
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
    else:
        with mounted(folder, "ro"):
            yield folder


def test_a_notebook_runs_with_a_home_that_cannot_be_written_and_no_network(tmp_path):
    """Import, training, picture, widget. What Jupyter itself must be able to write is its runtime folder, no other.
    Python's own connections are refused, and their attempts counted, even where the network cannot be taken away."""
    with read_only(tmp_path / "home") as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "JUPYTER"))}
        environment |= {
            "HOME": str(home), "MPLCONFIGDIR": str(home / "matplotlib"), "IPYTHONDIR": str(home / "ipython"),
            "XDG_CACHE_HOME": str(home / "cache"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "OMP_NUM_THREADS": "1"}
        result = subprocess.run([*unconnected(), sys.executable, "-c", ROOM], env=environment, capture_output=True,
                                text=True, timeout=240, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "model.safetensors' cannot be written" in result.stdout and "name a file in a folder" in result.stdout


# A checkpoint that two share


SHARED = """
import os, signal, sys
import torch
from gmvae_lib.training import History, load_checkpoint, save_checkpoint
from gmvae_lib.vae import VAE
torch.set_num_threads(1)
path, rounds, model = sys.argv[1], int(sys.argv[2]), VAE.build(64, 3, (100, 100))

def save(n):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(n)
    save_checkpoint(path, model, history=History(distortion=[n]))

save(0)
parent, children = os.getpid(), []
for first in (1, 2):  # one notebook saves odd numbers, the other even ones
    children.append(os.fork())
    if children[-1] == 0:
        for n in range(first, 2**23, 2):
            if os.getppid() != parent:
                break
            save(n)
        os._exit(0)
seen, changes = set(), 0
try:
    while not (len(seen) >= rounds and {n % 2 for n in seen if n} == {0, 1}):
        n, = load_checkpoint(path, model).distortion
        assert {value for p in model.parameters() for value in p.unique().tolist()} == {n}
        seen.add(n)
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
load_checkpoint(path, model)
print(len(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_two_notebooks_that_save_to_one_file_leave_one_whole_checkpoint_at_any_time(tmp_path):
    """A third reads it all the while: always one save of one of them, never a mixture, nor none."""
    result = subprocess.run([sys.executable, "-c", SHARED, tmp_path / "model.safetensors", "60"], text=True,
                            timeout=240, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0 and int(result.stdout) >= 60, result.stderr

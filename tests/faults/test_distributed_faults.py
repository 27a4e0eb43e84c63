"""Training in two processes of which one is killed, hangs or is interrupted: all end soon, and the training resumes."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gmvae_lib.train import main, parse, train
from gmvae_lib.training import load_checkpoint
from gmvae_lib.vae import VAE

ROOT = Path(__file__).parents[2]
SETTINGS = ["--hidden", "16", "--latent-dim", "3", "--device", "cpu", "--epochs", "100000", "--checkpoint"]
SOON = 120  # seconds: far more than ending takes on a busy machine, far less than any timeout of torch's

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs Linux: its signals and /proc")


def epochs_in(path):
    return len(load_checkpoint(path, VAE.build(64, 3, (16,))))


def wait_for(condition, what):
    until = time.monotonic() + SOON
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"{what}: not within {SOON} s")
        time.sleep(0.02)


# With torchrun, which ends the others where one process dies


def workers(job):
    """The process numbers of torchrun's children, by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[1]) == job.pid:  # its parent
                if rank := re.search(rb"\0RANK=(\d)\0", (path / "environ").read_bytes()):
                    found[int(rank[1])] = int(path.name)
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


def test_a_killed_worker_ends_torchrun_s_job_and_the_training_resumes(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m",
               "gmvae_lib.train", *SETTINGS, path]
    job = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
                           start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    pids = {}
    try:
        for line in job.stdout:
            if line.startswith("epoch    3:"):
                break
        pids = workers(job)
        os.kill(pids[1], signal.SIGKILL)
        err = job.communicate(timeout=SOON)[1]
    finally:
        if job.poll() is None:
            for pid in (job.pid, *pids.values()):
                os.kill(pid, signal.SIGKILL)
            job.wait()
    assert job.returncode != 0 and "Signal 9 (SIGKILL)" in err
    assert os.listdir(tmp_path) == [path.name]
    kept = epochs_in(path)
    assert kept >= 1

    train(parse([*SETTINGS, str(path), "--epochs", str(kept + 1), "--resume"]))  # one process goes on
    out = capsys.readouterr().out
    assert f"epoch {kept + 1:4d}: distortion" in out and f"epoch {kept:4d}:" not in out
    assert re.search(r"held out: distortion [\d.]+, rate [\d.]+, bound -[\d.]+ nats an image", out)
    assert epochs_in(path) == kept + 1


# Without torchrun: a process must end by itself where another does not answer


def run(rank, port, path, more):
    """One of two processes, as torchrun would start it; its output goes to a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    sys.stdout = sys.stderr = open(path.parent / f"{rank}.txt", "w", buffering=1)
    sys.argv = ["gmvae_lib.train", *SETTINGS, str(path), *more]
    main()


@pytest.fixture
def pair(tmp_path):
    """Starts two processes that train, and waits for their fifth epoch: forked from one that has imported everything,
    which would cost each of them seconds."""
    started = []

    def start(*more):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["gmvae_lib.train"])
        for rank in range(2):
            started.append(forks.Process(target=run, args=(rank, port, tmp_path / "model.safetensors", more)))
            started[-1].start()
        wait_for(lambda: (tmp_path / "0.txt").exists() and "epoch    5:" in (tmp_path / "0.txt").read_text(), "epoch 5")
        return started

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_process_notices_and_the_first_saves_the_last_whole_epoch(victim, pair, tmp_path):
    both, path = pair(), tmp_path / "model.safetensors"
    both[victim].kill()
    both[1 - victim].join(SOON)
    text = (tmp_path / f"{1 - victim}.txt").read_text()
    assert both[1 - victim].exitcode == 1, text
    lost = re.search(r"ProcessLost: Another process has died, or does not answer \(.+\)\. Training ended in epoch "
                     r"(\d+) of 100000: start all processes again, with resume=True to go on from the ch", text)
    assert lost and "Traceback" not in text
    if victim == 1:  # the first lives, and writes what it knows; if it dies, what it wrote before is there
        assert epochs_in(path) == int(lost[1]) - 1 >= 5
    assert epochs_in(path) >= 1


def test_a_process_that_hangs_is_given_up_after_the_timeout(pair, tmp_path):
    both = pair("--timeout", "2")
    os.kill(both[1].pid, signal.SIGSTOP)
    stopped = time.monotonic()
    both[0].join(SOON)
    assert both[0].exitcode == 1 and time.monotonic() - stopped > 1.5
    assert "ProcessLost: Another process has died, or does not answer (" in (tmp_path / "0.txt").read_text()
    assert epochs_in(tmp_path / "model.safetensors") >= 5


def test_control_c_ends_both_after_the_same_epoch(pair, tmp_path):
    both = pair()
    for process in both:
        os.kill(process.pid, signal.SIGINT)
    for process in both:
        process.join(SOON)
    assert [process.exitcode for process in both] == [0, 0]
    text = (tmp_path / "0.txt").read_text()
    n = int(re.search(r"Interrupted after (\d+) of 100000 epochs: the model is kept\.", text)[1])
    assert f"epoch {n:4d}:" in text and f"epoch {n + 1:4d}:" not in text and "held out" in text
    assert epochs_in(tmp_path / "model.safetensors") == n and (tmp_path / "1.txt").read_text() == ""

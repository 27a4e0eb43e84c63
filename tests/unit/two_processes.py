"""Two processes of one group, as torchrun starts them, forked from one that has imported the library: torchrun and
each of its processes would import it afresh, which takes them seconds (tests/faults has a test under torchrun)."""

import multiprocessing
import os
import socket
import sys
import tempfile
from pathlib import Path

import torch

FORKS = "forkserver" in multiprocessing.get_all_start_methods()
TIMEOUT = 200  # seconds


def run(work, folder):
    """Calls work(folder), a function of a module, in two processes that torch.distributed can join by its environment
    variables. Returns what the two wrote to sys.stderr, together; asserts that both came to their end."""
    processes = multiprocessing.get_context("forkserver" if FORKS else "spawn")
    if FORKS:
        processes.set_forkserver_preload(["gmvae_lib.train", "gmvae_lib.mixture"])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:
        texts = [Path(place) / f"{rank}.txt" for rank in range(2)]
        for text in texts:
            text.touch()
        both = [processes.Process(target=begin, args=(work, folder, rank, port, texts[rank])) for rank in range(2)]
        try:
            for process in both:
                process.start()
            for process in both:
                process.join(TIMEOUT)
        finally:
            for process in both:
                process.kill()
                process.join()
        said = "".join(text.read_text() for text in texts)
    assert [process.exitcode for process in both] == [0, 0], said
    return said


def begin(work, folder, rank, port, text):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    sys.stderr = open(text, "w", buffering=1)
    torch.set_num_threads(1)
    work(folder)

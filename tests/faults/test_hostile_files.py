"""Checkpoints made to harm: code in disguise, sizes that lie, histories that are none. Each is refused, nothing of it
is run, and the memory that it costs has a bound."""

import copy
import json
import os
import pathlib
import pickle
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gmvae_lib.checkpoint import History, snapshot
from gmvae_lib.data import load
from gmvae_lib.training import fit, load_checkpoint, save_checkpoint
from gmvae_lib.vae import VAE

X = load("digits").x[:100]


def small(seed=0):
    torch.manual_seed(seed)
    return VAE.build(64, 3, (16,))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The tensors and the history's text of a checkpoint after two epochs."""
    path, model = tmp_path_factory.mktemp("trained") / "model.safetensors", small()
    history = fit(model, X, epochs=2, checkpoint=path, device="cpu")
    optimizer = torch.optim.Adam(model.parameters())
    load_checkpoint(path, model, optimizer)
    text = json.dumps(vars(history))
    return snapshot(model, optimizer, torch.Generator()), text


def refused(path, match, resume=True):
    """Loading and resuming both say what is wrong, and change nothing."""
    model = small(3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=match) as loading:
        load_checkpoint(path, model, torch.optim.Adam(model.parameters()), torch.Generator())
    assert path.name in str(loading.value)
    if resume:
        with pytest.raises(ValueError, match=match):
            fit(model, X, epochs=3, checkpoint=path, resume=True, device="cpu")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


# Code in disguise


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


DISGUISES = {
    "a plain pickle": lambda evil, path: path.write_bytes(pickle.dumps(evil)),
    "a pickle after a header's length": lambda evil, path: path.write_bytes(
        struct.pack("<Q", len(pickle.dumps(evil))) + pickle.dumps(evil)),
    "torch.save's archive": torch.save,
    "torch.save's old format": lambda evil, path: torch.save(evil, path, _use_new_zipfile_serialization=False),
    "numpy's objects": lambda evil, path: path.write_bytes(b"") or np.save(path.open("wb"), np.array([evil], object)),
}


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("kind", DISGUISES)
def test_a_pickle_in_disguise_is_refused_and_not_run(kind, name, tmp_path):
    path, trace = tmp_path / name, tmp_path / "it ran"
    DISGUISES[kind](Payload(trace), path)
    refused(path, "is not a readable checkpoint")
    assert not trace.exists()


def test_the_payload_works_where_a_pickle_is_read(tmp_path):
    """Else the tests above would prove nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()


def test_no_file_of_the_library_reads_a_pickle():
    root = pathlib.Path(__file__).resolve().parents[2] / "gmvae_lib"
    reads = re.compile(r"\bpickle\b(?!\W*[.;)])|torch\.load\(|joblib|allow_pickle\s*=\s*True|\bshelve\b|\bmarshal\b")
    found = {path.name for path in root.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()
             if reads.search(line.partition("#")[0]) and "never pickle" not in line}
    assert found == set()


# Tensors that are not the model's


@pytest.mark.parametrize("change", [
    lambda value: value.T, lambda value: value[:-1], lambda value: value.flatten(), lambda value: value[0, 0],
    lambda value: value.to(torch.complex64), lambda value: value.int(), lambda value: value > 0,
    lambda value: value.unsqueeze(0)])
@pytest.mark.parametrize("part", ["model.", "last."])
def test_wrong_shapes_and_types_are_refused(part, change, trained, tmp_path):
    tensors, text = trained
    last = {name: value.clone() for name, value in tensors.items() if name.startswith("model.")}
    tensors = tensors | {name.replace("model.", "last.", 1): value for name, value in last.items()}
    name = next(name for name, value in tensors.items() if name.startswith(part) and value.ndim == 2)
    save_file(tensors | {name: change(tensors[name]).contiguous()}, tmp_path / "m.safetensors", {"history": text})
    refused(tmp_path / "m.safetensors", f"belongs to another model: {re.escape(name.removeprefix(part))} differ")


@pytest.mark.parametrize("change", [
    {"optimizer.0.exp_avg": torch.zeros(3)}, {"optimizer.0.step": torch.zeros(1)}, {"optimizer.0.exp_avg": None},
    {"optimizer.99.step": torch.tensor(1.0)}, {"optimizer.-1.step": torch.tensor(1.0)},
    {"optimizer.0.exp_avg.x": torch.tensor(1.0)}, {"optimizer.": torch.tensor(1.0)},
    {"optimizer.0.more": torch.tensor(1.0)}, {"optimizer.0.step": torch.tensor(1)}])
def test_an_optimizers_state_that_is_none_is_refused(change, trained, tmp_path):
    tensors = {name: value for name, value in (trained[0] | change).items() if value is not None}
    save_file(tensors, tmp_path / "m.safetensors", {"history": trained[1]})
    refused(tmp_path / "m.safetensors", "was trained with other settings")
    load_checkpoint(tmp_path / "m.safetensors", small())  # whoever does not resume needs none


@pytest.mark.parametrize("state", [torch.zeros(5056), torch.full((5056,), 255, dtype=torch.uint8)])
def test_a_random_generators_state_that_is_none_is_refused(state, trained, tmp_path):
    assert torch.Generator().get_state().shape == (5056,)
    save_file(trained[0] | {"generator": state}, tmp_path / "m.safetensors", {"history": trained[1]})
    refused(tmp_path / "m.safetensors", "is not a readable checkpoint")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.timeout(30)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "is not a readable checkpoint .it is no file")


# Histories


def altered(text, **changes):
    return json.dumps(json.loads(text) | changes)


HISTORIES = {
    "NaN": lambda text: altered(text, distortion=[float("nan")] * 2),
    "infinity": lambda text: altered(text, rate=[1.0, float("inf")]),
    "a number beyond all floats": lambda text: text.replace('"beta": [1.0', f'"beta": [{10**400}'),
    "a number of many digits": lambda text: text.replace('"beta": [1.0', f'"beta": [{"9" * 100_000}'),
    "words": lambda text: altered(text, seconds=["1", "2"]),
    "a word": lambda text: altered(text, distortion="12"),
    "a number": lambda text: altered(text, distortion=2),
    "an object": lambda text: altered(text, distortion={"0": 1.0}),
    "nothing": lambda text: altered(text, validation=None),
    "truths": lambda text: altered(text, rate=[True, False]),
    "more epochs than there were": lambda text: altered(text, rate=[1.0] * 1000),
    "a list": lambda text: "[]",
    "a string": lambda text: '"history"',
    "unknown names": lambda text: altered(text, __class__="os.system"),
    "an unknown precision": lambda text: altered(text, precision="float128"),
    "no answer": lambda text: altered(text, interrupted="no"),
    "brackets without end": lambda text: "[" * 200_000,
    "objects without end": lambda text: '{"distortion":' * 200_000,
    "half of it": lambda text: text[:len(text) // 2],
    "no text": lambda text: "",
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_history_that_is_none_is_refused(kind, trained, tmp_path):
    tensors, text = trained
    assert HISTORIES[kind](text) != text
    save_file(tensors, tmp_path / "m.safetensors", {"history": HISTORIES[kind](text)})
    refused(tmp_path / "m.safetensors", "is not a readable checkpoint")


def test_the_unaltered_file_is_read(trained, tmp_path):
    """Else any refusal above could have another reason."""
    save_file(trained[0], tmp_path / "m.safetensors", {"history": trained[1]})
    model = small(3)
    assert len(fit(model, X, epochs=3, checkpoint=tmp_path / "m.safetensors", resume=True, device="cpu")) == 3


def test_a_validation_loss_may_have_overflowed(tmp_path):
    """Held-out data can be such that the training goes on; its checkpoint stays readable."""
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, small(), history=History([1.0], [1.0], [1.0], [float("inf")], [1.0]))
    assert load_checkpoint(path, small()).validation == [float("inf")]


# Memory


BOMBS = """
import json, struct, sys, torch
from pathlib import Path
from gmvae_lib.training import load_checkpoint
from gmvae_lib.vae import VAE
torch.set_num_threads(1)
folder, model = Path(sys.argv[1]), VAE.build(64, 3, (16,))
optimizer, generator = torch.optim.Adam(model.parameters()), torch.Generator()

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024

def header(tensors, history="{}"):
    at, entries = 0, {"__metadata__": {"history": history}}
    for name, shape in tensors.items():
        size = 4 * torch.Size(shape).numel()
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return json.dumps(entries).encode(), at

def write(name, content, size, length=None):
    with (folder / name).open("wb") as file:
        file.write(struct.pack("<Q", len(content) if length is None else length) + content)
        file.truncate(8 + len(content) + size)  # a hole: it claims a size that the disk need not have

mine = {f"model.{name}": value.shape for name, value in model.state_dict().items()}
huge = (2**13, 2**16)  # 2 GiB
for name in ("model.more", "last.more", "optimizer.0.exp_avg", "generator", next(iter(mine))):
    write(name, *header(mine | {name: huge}))
write("a header of 2**63 bytes", b"{}", 0, 2**63)
write("a header of 99 MB in a file of ten bytes", b"{}", 0, 99_000_000)
write("unused", *header(mine | {"unused": huge}))
write("many names", *header({f"model.{i}": (1,) for i in range(100_000)}))
write("a deep history", *header(mine, "[" * 15_000_000))
write("a long history", *header(mine, '{"distortion":[' + "1.5," * 3_700_000 + "1.5]}"))
write("a history longer than any", *header(mine, "[" * 50_000_000))
write("a harmless one", *header(mine | {"unused": (1000,)}))
load_checkpoint(folder / "a harmless one", model, optimizer, generator)
for path in sorted(folder.iterdir()):
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use now
    before = peak()
    try:
        load_checkpoint(path, model, optimizer, generator)
        said = "read"
    except ValueError as error:
        said = str(error)[len(str(path)):][:40].strip()
    print(path.name, said, round(peak() - before), sep="|")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from Linux's /proc")
def test_files_that_claim_to_be_huge_cost_little_memory(tmp_path, record_property):
    """Files of 2 GiB by their header, with holes in place of content, and headers that really are as long as may be.
    A checkpoint of the model is refused unread above 16 MB and eight times the model's bytes; 300 MB is what reading
    one of that size, the numbers of its history and Python's own objects for them included, may need at most."""
    result = subprocess.run([sys.executable, "-c", BOMBS, tmp_path], capture_output=True, text=True, timeout=240,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    rows = [line.split("|") for line in result.stdout.splitlines()]
    assert len(rows) == 13
    for name, said, grown in rows:
        words = ("read" if name in ("a harmless one", "a long history") else
                 "is not a readable checkpoint" if name.startswith("a ") and "than any" not in name
                 else "belongs to another model")
        assert said.startswith(words), (name, said)
        assert int(grown) < (300 if "long" in name or "many" in name else 80), (name, grown)
    record_property("hostile checkpoints: memory", f"{max(int(row[2]) for row in rows)} MB at most")

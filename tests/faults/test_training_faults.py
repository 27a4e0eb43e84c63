"""What goes wrong in a long training: interrupts, kills, full disks, damaged files, numbers that overflow."""

import copy
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from gmvae_lib import checkpoint, training
from gmvae_lib.data import load
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import History, fit, load_checkpoint, save_checkpoint
from gmvae_lib.vae import VAE

X = load("digits").x[:300]


def small(seed=0, prior=None, hidden=(16,)):
    torch.manual_seed(seed)
    return VAE.build(64, 3, hidden, prior=MixturePrior(3, 3) if prior is None else prior)


def same(a, b):
    a, b = (m if isinstance(m, dict) else m.state_dict() for m in (a, b))
    return a.keys() == b.keys() and all(a[name].cpu().equal(b[name].cpu()) for name in a)


def run(code, *arguments, **settings):
    """A Python process of its own."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}, **settings)


# Interrupts


def test_an_interrupt_after_an_epoch_keeps_the_model(tmp_path, capsys):
    path, model, states = tmp_path / "model.safetensors", small(), []

    def interrupt(epoch, history):
        states.append(copy.deepcopy(model.state_dict()))
        if epoch == 2:
            raise KeyboardInterrupt

    history = fit(model, X, epochs=9, checkpoint=path, on_epoch=interrupt)
    assert history.interrupted and len(history) == 3 and same(model, states[2]) and not model.training
    assert "Interrupted after 3 of 9 epochs: the model is kept." in capsys.readouterr().err
    loaded = small(1)
    assert load_checkpoint(path, loaded).interrupted and same(loaded, model)


@pytest.mark.parametrize("where", ["batch", "validation", "prior"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_interrupt_within_an_epoch_can_be_resumed_to_the_last_bit(where, tmp_path, monkeypatch):
    """The broken epoch is taken back whole: model, optimizer, random numbers and history."""
    settings = {"epochs": 5, "batch_size": 64, "validation": X[:40], "prior_update": "em", "patience": 50}
    whole, broken, resumed = small(), small(), small(7)
    expected = fit(whole, X, **settings)
    path, calls = tmp_path / "broken.safetensors", []
    original = {"batch": (training.torch.optim.Adam, "step"), "prior": (MixturePrior, "update"),
                "validation": (VAE, "elbo")}[where]
    call = getattr(*original)

    def interrupt(self, *args, **kwargs):
        calls.append(None)
        result = call(self, *args, **kwargs)
        if len(calls) == {"batch": 13, "prior": 3, "validation": 18}[where]:  # in the third of five epochs
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(*original, interrupt)
        history = fit(broken, X, checkpoint=path, **settings)
    assert history.interrupted and len(history) == len(history.validation) == 2
    again = fit(resumed, X, checkpoint=path, resume=True, **settings)
    assert same(whole, resumed) and not again.interrupted
    assert again.distortion == expected.distortion and again.validation == expected.validation


TRAIN = """
import sys, torch
from gmvae_lib.data import load
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE
torch.manual_seed(0)
model = VAE.build(64, 3, (16,))
history = fit(model, load("digits").x[:300], epochs=100_000, checkpoint=sys.argv[1],
              on_epoch=lambda epoch, history: print(epoch, flush=True) if epoch == 3 else None)
print("kept", history.interrupted, len(history) > 3)
"""


def test_control_c_ends_the_training_and_keeps_the_model(tmp_path):
    path = tmp_path / "model.safetensors"
    process = run(TRAIN, path)
    assert process.stdout.readline() == "3\n"
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out == "kept True True\n"
    assert "the model is kept" in err and "Traceback" not in err
    torch.manual_seed(1)
    assert load_checkpoint(path, VAE.build(64, 3, (16,))).interrupted


KILL = """
import os, signal, sys, time, torch
from gmvae_lib.training import History, load_checkpoint, save_checkpoint
from gmvae_lib.vae import VAE
torch.set_num_threads(1)
path, model = sys.argv[1], VAE.build(64, 3, (300, 300))

def save(n):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(n)
    save_checkpoint(path, model, history=History(distortion=[n]))

save(0)
last, cut = 0, 0
for i in range(300):
    if i >= 30 and cut:  # on a busy machine, writing takes a small share of the time
        break
    child = os.fork()  # a fresh interpreter for each kill would cost seconds
    if child == 0:
        for n in range(last + 1, 10**9):
            save(n)
    time.sleep(0.03 + 0.0013 * (i % 30))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last, = load_checkpoint(path, model).distortion
    assert {value for p in model.parameters() for value in p.unique().tolist()} == {last}
    cut += os.path.exists(f"{path}.{child}.part")
print(last > 0, cut > 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_kill_in_the_middle_of_saving_leaves_a_whole_checkpoint(tmp_path):
    """Thirty kills and more at times spread over the write: always one whole save, never a mixture of two, nor none."""
    process = run(KILL, tmp_path / "model.safetensors")
    out, err = process.communicate(timeout=120)
    assert out == "True True\n", err  # it did save, and some kills did cut a save short


# Disks and folders


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [full_disk, "replace"])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_litter(error, tmp_path, monkeypatch):
    path, model = tmp_path / "model.safetensors", small()
    save_checkpoint(path, model, history=History([1.0]))
    before = path.read_bytes()
    monkeypatch.setattr(*((checkpoint, "save") if error is full_disk else (checkpoint.os, "replace")), full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, small(1))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_disk_that_fills_up_costs_the_checkpoint_but_not_the_training(tmp_path, monkeypatch):
    path, model = tmp_path / "model.safetensors", small()
    fit(model, X, epochs=1, checkpoint=path)
    before = path.read_bytes()
    monkeypatch.setattr(training, "SAVE_EVERY", 0)
    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.warns(RuntimeWarning, match="could not be written, an older one is kept .*No space left"):
        history = fit(model, X, epochs=3, checkpoint=path, resume=True)
    assert len(history) == 3 and path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_place_that_cannot_be_written_is_an_error_before_the_training(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for path, reason in ((blocked / "model.safetensors", "cannot be written"), (tmp_path, "it is a folder")):
        with pytest.raises(ValueError, match=f"{reason}.*name a file in a folder that you may write to"):
            fit(small(), X, epochs=1, checkpoint=path, on_epoch=lambda *_: pytest.fail("trained all the same"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_write_permission_is_an_error_before_the_training(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(ValueError, match="cannot be written.*name a file in a folder"):
            fit(small(), X, epochs=1, checkpoint=tmp_path / "model.safetensors")
    finally:
        tmp_path.chmod(0o755)


# Damaged and foreign files


def whole(path):
    fit(small(), X, epochs=1, checkpoint=path)
    return path.read_bytes()


DAMAGE = {
    "empty": lambda content, path: path.write_bytes(b""),
    "half": lambda content, path: path.write_bytes(content[:len(content) // 2]),
    "without its last byte": lambda content, path: path.write_bytes(content[:-1]),
    "with a byte too much": lambda content, path: path.write_bytes(content + b"\0"),
    "a broken header": lambda content, path: path.write_bytes(content[:8] + b"}" + content[9:]),
    "a huge header": lambda content, path: path.write_bytes(b"\xff" * 8 + content[8:]),
    "text": lambda content, path: path.write_text("<html>404 Not Found</html>"),
    "pickled": lambda content, path: torch.save(small().state_dict(), path),
    "a folder": lambda content, path: (path.unlink(), path.mkdir()),
    "another history": lambda content, path: save_file(
        {f"model.{k}": v for k, v in small().state_dict().items()}, path, {"history": '{"epochs": 3}'}),
    "a broken history": lambda content, path: save_file(
        {f"model.{k}": v for k, v in small().state_dict().items()}, path, {"history": "{"}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_changes_nothing(kind, tmp_path):
    path = tmp_path / "model.safetensors"
    DAMAGE[kind](whole(path), path)
    model = small(3)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"model.safetensors is not a readable checkpoint \(.*\): delete it and train"):
        load_checkpoint(path, model)
    assert same(model, before)
    if kind != "a folder":  # which is refused as a place to write, before it is read
        with pytest.raises(ValueError, match="not a readable checkpoint"):
            fit(model, X, epochs=2, checkpoint=path, resume=True)
        assert same(model, before) and all(p.requires_grad for p in model.parameters())
        fit(model, X, epochs=1, checkpoint=path)  # without resume it is simply replaced
        assert len(load_checkpoint(path, small())) == 1


@pytest.mark.parametrize("other", [
    lambda: VAE.build(64, 4, (16,), prior=MixturePrior(3, 4)), lambda: small(hidden=(17,)),
    lambda: small(hidden=(16, 16)), lambda: small(prior=MixturePrior(4, 3)),
    lambda: small(prior=MixturePrior(3, 3, "full")), lambda: VAE.build(64, 3, (16,)),
    lambda: VAE.build(64, 3, (16,), prior=MixturePrior(3, 3), gated=True)])
def test_another_models_checkpoint_is_refused_and_changes_nothing(other, tmp_path):
    path, model = tmp_path / "model.safetensors", other()
    whole(path)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"belongs to another model: .* differ\(s\) in name or shape. Build the"):
        load_checkpoint(path, model)
    assert same(model, before)


def test_other_settings_are_refused_on_resuming_and_change_nothing(tmp_path):
    """With the prior left out, the optimizer's moments would belong to other parameters."""
    path, model = tmp_path / "model.safetensors", small(3)
    whole(path)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="trained with other settings .prior_update.: resume with the same ones"):
        fit(model, X, epochs=2, checkpoint=path, resume=True, prior_update="fixed")
    assert same(model, before)


def test_a_missing_checkpoint_is_named_and_resuming_starts_anew(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at .*none.safetensors"):
        load_checkpoint(tmp_path / "none.safetensors", small())
    assert len(fit(small(), X, epochs=1, checkpoint=tmp_path / "none.safetensors", resume=True)) == 1


# Numbers


@pytest.mark.parametrize("update", ["gradient", "em"])
@pytest.mark.parametrize("batch_size", [100, 300])
def test_a_loss_that_is_no_longer_finite_restores_the_last_good_model(update, batch_size):
    """With one batch an epoch the loss is still finite when the step has already ruined the model."""
    model, states = small(prior=MixturePrior(3, 3, "full")), [None]

    def poison(epoch, history):
        states.append(copy.deepcopy(model.state_dict()))
        if epoch == 1:  # a gradient of NaN in the third epoch, by a hook that leaves the loss as it is
            model.decoder.mlp.layers[0].weight.register_hook(lambda gradient: gradient * float("nan"))

    with pytest.raises(FloatingPointError, match=r"no longer finite in epoch 3 .*as it was before it: lower lr"):
        fit(model, X, epochs=9, batch_size=batch_size, prior_update=update, on_epoch=poison)
    assert same(model, states[-1]) and not model.training
    assert all(p.requires_grad and p.isfinite().all() for p in model.parameters())


def test_a_learning_rate_far_too_high_never_leaves_a_model_of_nan():
    model = small()
    with pytest.raises(FloatingPointError, match="lower lr"):
        fit(model, X, epochs=20, lr=1e20)
    assert all(p.isfinite().all() for p in model.parameters())


def test_an_error_in_the_readers_own_function_leaves_the_model_usable():
    model = small()

    def wrong(x, generator):
        raise RuntimeError("my augmentation")

    with pytest.raises(RuntimeError, match="my augmentation"):
        fit(model, X, epochs=1, transform=wrong, prior_update="em")
    assert not model.training and all(p.requires_grad for p in model.parameters())


def test_interrupting_twice_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    before = whole(path)

    def again(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", again)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), X, epochs=3, checkpoint=path, on_epoch=again)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]

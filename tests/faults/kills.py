"""Trainings killed at random moments, again and again: what `test_kills.py` does a few times and `make soak` often."""

import os
import subprocess
import sys

PROGRAM = """
import os, random, signal, sys, time
import torch
from gmvae_lib import training
from gmvae_lib.data import load
from gmvae_lib.prior import MixturePrior
from gmvae_lib.training import fit, load_checkpoint
from gmvae_lib.vae import VAE

path, kills, draw = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))
torch.set_num_threads(1)
training.SAVE_EVERY = 0  # a checkpoint after every epoch
x = load("digits").x
settings = dict(batch_size=64, validation=x[200:240], patience=10**9, prior_update="em", device="cpu", checkpoint=path)

def build():
    torch.manual_seed(0)
    return VAE.build(64, 3, (150, 150), prior=MixturePrior(3, 3))

def litter(pid):
    return f"{path}.{pid}.part"

done, cut, between = 0, 0, 0
while cut + between < kills or not (cut and between):
    assert cut + between < 20 * kills, f"of {cut + between} kills {cut} came within a save"
    parent, child = os.getpid(), os.fork()  # a fresh interpreter for each kill would cost seconds
    if child == 0:
        orphaned = lambda *_: os.getppid() != parent  # if an assertion below fails, nobody would end it
        fit(build(), x[:200], epochs=10**6, resume=True, on_epoch=orphaned, **settings)
        os._exit(1)
    aimed, end = (cut + between) % 2 == 0, time.monotonic() + 60
    if not os.path.exists(path):
        while not os.path.exists(path):  # a kill before the first save could leave nothing to look at
            assert time.monotonic() < end
    else:
        time.sleep(draw.uniform(0.0, 0.2))
    while aimed and not os.path.exists(litter(child)):  # every other kill waits for a save to begin
        assert time.monotonic() < end
    if aimed:
        time.sleep(draw.choice([0, 0, draw.uniform(0.0, 0.002)]))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the training ended before it was killed"
    if os.path.exists(litter(child)):
        cut += 1
        os.remove(litter(child))
    else:
        between += 1
    model = build()
    history = load_checkpoint(path, model, torch.optim.Adam(model.parameters()), torch.Generator())
    assert {len(v) for v in vars(history).values() if isinstance(v, list)} == {len(history)}
    assert len(history) >= done, f"{done} epochs were saved, and only {len(history)} are left"
    done = len(history)

resumed, whole = build(), build()
after = fit(resumed, x[:200], epochs=done + 2, resume=True, **settings)
alone = fit(whole, x[:200], epochs=done + 2, **settings | {"checkpoint": None})
assert len(after) == done + 2 and after.distortion == alone.distortion and after.validation == alone.validation
assert all(value.equal(whole.state_dict()[name]) for name, value in resumed.state_dict().items())
print(cut, between, done)
"""


def kill_often(path, kills, seed=0, timeout=240):
    """Trains with a checkpoint at `path` after every epoch, killed (SIGKILL) and resumed `kills` times: every second
    time while a checkpoint is being written or just after, else at a random moment.

    Asserts that each time the checkpoint is whole, loses no epoch that was saved, and resumes; and that the model
    after all this is, to the last bit, that of one training without a break. Returns how many kills cut a save short,
    how many did not, and the epochs trained.
    """
    result = subprocess.run([sys.executable, "-c", PROGRAM, path, str(kills), str(seed)], text=True, timeout=timeout,
                            capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return tuple(map(int, result.stdout.split()))

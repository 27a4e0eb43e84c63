"""The training loop beside a plain one, as tutorials write it (DataLoader and Adam), and beside pythae's trainer.

Same network, likelihood, batch size, epochs and threads. On one thread, processor time is compared, which other
programs disturb less; else the time on the wall.
"""

import logging
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gmvae_lib.data import load
from gmvae_lib.likelihood import Bernoulli
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE
from tests.benchmarks.timing import alternate, line

try:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import CallbackHandler
except ImportError:
    BaseTrainer = None

DIGITS = [(64, 128, 128, 10), (64, 256, 256, 10)]
MNIST = (784, 500, 500, 10)
SIZE, TIMES = 1024, 5
PRODUCT = 2 * SIZE**3 * TIMES  # operations
MATRIX = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def plain_loop(model, x, epochs, batch_size):
    """What one would write without a library."""
    loader = DataLoader(TensorDataset(x), batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        total = 0.0
        for batch, in loader:
            optimizer.zero_grad()
            loss = -model.elbo(batch, validate=False).value.mean()
            loss.backward()
            optimizer.step()
            total += loss.item()


def pythae_epoch(x, sizes, batch_size):
    """A function that trains the same network for one epoch with pythae's trainer, without its checkpoints."""
    data_dim, *hidden, latent_dim = sizes

    def layers(*sizes):
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        return nn.Sequential(*(layer for a, b in pairs for layer in (nn.Linear(a, b), nn.ReLU())))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.hidden = layers(data_dim, *hidden)
            self.mean, self.log_var = (nn.Linear(hidden[-1], latent_dim) for _ in range(2))

        def forward(self, x):
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = layers(latent_dim, *hidden[::-1]), nn.Linear(hidden[0], data_dim)

        def forward(self, z):
            return ModelOutput(reconstruction=self.out(self.hidden(z)).sigmoid())

    logging.disable(logging.INFO)
    model = PythaeVAE(VAEConfig(input_dim=(data_dim,), latent_dim=latent_dim, reconstruction_loss="bce"),
                      Encoder(), Decoder())
    settings = BaseTrainerConfig(output_dir=None, per_device_train_batch_size=batch_size, learning_rate=1e-3,
                                 no_cuda=True)
    trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=settings)
    trainer.set_optimizer()
    trainer.callback_handler = CallbackHandler([], model)  # without its progress bars
    return lambda: trainer.train_step(1)


def main(quick, threads, repeats):
    """Prints milliseconds a step: the digits' size on one thread, MNIST's also on all. Returns the rows."""
    print("VAE training, CPU: milliseconds a step; float32, but for the last column")
    line("network, batch, threads", "ours", "plain loop", "pythae", "plain / ours", "pyth / ours", "of peak",
         "bf16 / ours")
    digits = load("digits").x
    rows = [compare(digits, sizes, 5 if quick else 20, 128, 1, repeats) for sizes in DIGITS]
    if not quick:
        torch.manual_seed(0)
        images = torch.randint(0, 2, (10_000, 784)).float()  # MNIST's shape; the speed does not depend on the content
        rows += [compare(images, MNIST, 1, 256, n, repeats) for n in sorted({1, threads})]
    print()
    return rows


def compare(x, sizes, epochs, batch_size, threads, repeats):
    """One row: ours and the peers', and the share of the machine's own matrix products that ours reaches."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    data_dim, *hidden, latent_dim = sizes
    likelihood = Bernoulli() if data_dim == 784 else None  # what pythae has too
    torch.manual_seed(0)
    ours, half, plain = (VAE.build(data_dim, latent_dim, hidden, likelihood) for _ in range(3))
    settings = {"epochs": epochs, "batch_size": batch_size, "device": "cpu", "progress": False}
    runs = [lambda: fit(ours, x, **settings), lambda: plain_loop(plain, x, epochs, batch_size),
            lambda: fit(half, x, precision="bfloat16", **settings), product]
    if likelihood is not None and BaseTrainer is not None:
        runs.append(pythae_epoch(x, sizes, batch_size))
    mine, theirs, bfloat16, peak, *pythae = alternate(*runs, repeats=repeats, clock=clock)
    weights = [p.numel() for p in ours.parameters() if p.ndim == 2]
    operations = (6 * sum(weights) - 2 * weights[0]) * len(x) * epochs  # no gradient of the first layer's input
    steps = epochs * -(-len(x) // batch_size)
    peak_share = (operations / mine) / (PRODUCT / peak)
    name = f"{'-'.join(map(str, sizes))}, {batch_size}, {threads}"
    line(name, f"{1e3 * mine / steps:.2f}", f"{1e3 * theirs / steps:.2f}",
         *([f"{1e3 * t / steps:.2f}" for t in pythae] or ["-"]), f"{theirs / mine:.2f}x",
         *([f"{t / mine:.2f}x" for t in pythae] or ["-"]), f"{100 * peak_share:.0f} %", f"{bfloat16 / mine:.2f}x")
    return {"network": name, "ours": 1e3 * mine / steps, "plain": 1e3 * theirs / steps,
            "pythae": 1e3 * pythae[0] / steps if pythae else None, "peak": peak_share}


def product():
    """Large products of matrices: what the machine can do at most."""
    for _ in range(TIMES):
        torch.mm(MATRIX, MATRIX)

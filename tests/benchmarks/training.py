"""The training loop beside a plain one, as tutorials write it: DataLoader and Adam, same network, batch and epochs."""

import time

import torch
from torch.utils.data import DataLoader, TensorDataset

from gmvae_lib.data import load
from gmvae_lib.training import fit
from gmvae_lib.vae import VAE
from tests.benchmarks.timing import alternate, line


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


def main(quick, threads, repeats):
    """Prints seconds an epoch for the digits' size on one thread, and for MNIST's on all."""
    print("VAE training, float32, CPU: seconds an epoch")
    line("data, network, batch, threads", "ours", "plain loop", "ratio", "GFLOP/s", "of peak")
    digits = load("digits").x
    epochs = 5 if quick else 10
    compare("digits 64-128-128-10", digits, lambda: VAE.build(64, 10, (128, 128)), epochs, 128, 1, repeats)
    compare("digits 64-256-256-10", digits, lambda: VAE.build(64, 10, (256, 256)), epochs, 128, 1, repeats)
    if not quick:
        torch.manual_seed(0)
        images = torch.randint(0, 17, (20_000, 784)).float()  # MNIST's shape; the speed does not depend on the content
        compare("MNIST 784-500-500-10", images, lambda: VAE.build(784, 10, (500, 500)), 1, 256, threads,
                min(repeats, 3))
    print()


def compare(name, x, build, epochs, batch_size, threads, repeats):
    """One row: ours, the plain loop's, and the share of the machine's matrix products that ours reaches."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    ours, plain = build(), build()
    mine, others = alternate(lambda: fit(ours, x, epochs=epochs, batch_size=batch_size, device="cpu", progress=False),
                             lambda: plain_loop(plain, x, epochs, batch_size), repeats=repeats)
    weights = sum(p.numel() for p in ours.parameters() if p.ndim == 2)
    rate = 6 * weights * len(x) * epochs / mine / 1e9  # a product forward, two backward, two operations a weight
    line(f"{name}, {batch_size}, {threads}", f"{mine / epochs:.3f}", f"{others / epochs:.3f}", f"{others / mine:.2f}x",
         f"{rate:.0f}", f"{100 * rate / peak():.0f} %")


def peak(size=1024, repeats=8):
    """GFLOP/s of this machine's float32 matrix product, the best of a few."""
    a, best = torch.randn(size, size), 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, a)
        best = max(best, 2 * size**3 / (time.perf_counter() - began) / 1e9)
    return best

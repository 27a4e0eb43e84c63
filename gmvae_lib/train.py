"""Trains one model from the command line, in one process or in many:

    python -m gmvae_lib.train --data mnist --prior mixture --checkpoint model.safetensors
    torchrun --nproc-per-node=4 -m gmvae_lib.train --data mnist --prior mixture --checkpoint model.safetensors

With torchrun each process trains on its share of the images, on a graphics processor of its own where there are enough.
The batch size counts the images of all processes together, so that the same settings serve any number of them.
What was broken off goes on with --resume, with as many processes or with more or fewer.
"""

import argparse
import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from gmvae_lib.data import load, pick_device, random_affine, views
from gmvae_lib.evaluation import mean_elbo
from gmvae_lib.likelihood import Bernoulli, Binomial
from gmvae_lib.prior import MixturePrior
from gmvae_lib.processes import Processes, ProcessLost
from gmvae_lib.training import fit, warm_up
from gmvae_lib.vae import VAE


def parse(arguments=None):
    """The settings in a command line."""
    parser = argparse.ArgumentParser("gmvae_lib.train", description="Trains a VAE with one prior or another.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data", default="digits", choices=["digits", "mnist", "fashion-mnist"])
    add("--prior", default="standard", choices=["standard", "mixture"])
    add("--n-components", "-K", type=int, default=10, help="of the mixture")
    add("--prior-update", default="em", choices=["em", "gradient"], help="of the mixture")
    add("--latent-dim", type=int, default=10)
    add("--hidden", type=int, nargs="+", default=[256, 256], help="sizes of the encoder's hidden layers")
    add("--epochs", type=int, default=100)
    add("--batch-size", type=int, default=128, help="images in one step, of all processes together")
    add("--lr", type=float, default=1e-3)
    add("--beta", type=float, default=1.0, help="the rate's weight")
    add("--warm-up", type=float, default=0.0, help="the share of the training in which beta rises from 0")
    add("--views", type=int, default=0, help="slightly moved views of each image, which share a component; 0: none")
    add("--precision", default="float32", choices=["float32", "bfloat16", "auto"])
    add("--device", help="cuda, mps or cpu; the best by default")
    add("--seed", type=int, default=0)
    add("--checkpoint", help="a file to save to, about every ten seconds")
    add("--resume", action="store_true", help="go on from the checkpoint, if there is one")
    add("--timeout", type=float, default=300.0, help="seconds to wait for a process that does not answer; one that "
        "has died is noticed at once")
    return parser.parse_args(arguments)


def images(name, split, rank=0, size=1):
    """This process's share of a data set's images: every size-th, from number `rank`. MNIST's pixels become black or
    white, at random, with a probability that is their grey value; the same in every process and every run."""
    data = load(name, split)
    x = data.x if name == "digits" else torch.bernoulli(data.x / 255, generator=torch.Generator().manual_seed(0))
    return x[rank::size], data.image_shape


def join(settings):
    """Makes this one of torchrun's processes; returns its device."""
    device, backend = pick_device(settings.device), "gloo"
    if device.type == "cuda":
        n = torch.cuda.device_count()
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % n)
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if int(os.environ["LOCAL_WORLD_SIZE"]) <= n else "gloo"  # NCCL shares none
    dist.init_process_group(backend, timeout=timedelta(seconds=settings.timeout))
    return device


def train(settings):
    """Trains and scores a model by the settings of `parse`; returns (model, history)."""
    distributed = "LOCAL_RANK" in os.environ  # which torchrun sets
    device = join(settings) if distributed else pick_device(settings.device)
    processes = Processes(distributed, device)

    def say(text):
        if processes.rank == 0:
            print(text, flush=True)

    processes.from_first(lambda: [len(load(settings.data, split)) for split in ("train", "test")])  # may download them
    x, shape = images(settings.data, "train", processes.rank, processes.size)
    held_out, _ = images(settings.data, "test", processes.rank, processes.size)
    torch.manual_seed(settings.seed)
    prior = None
    if settings.prior == "mixture":
        prior = MixturePrior(settings.n_components, settings.latent_dim, "full", seed=settings.seed)
    likelihood = Binomial(16) if settings.data == "digits" else Bernoulli()
    model = VAE.build(x.shape[1], settings.latent_dim, settings.hidden, likelihood, prior)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, {processes.size} process(es), {device.type}")

    def report(epoch, history):
        say(f"epoch {epoch + 1:4d}: distortion {history.distortion[-1]:.2f}, rate {history.rate[-1]:.2f} nats, "
            f"{history.seconds[-1]:.2f} s")

    history = fit(model, x, settings.epochs, warm_up(settings.beta, settings.warm_up) if settings.warm_up else
                  settings.beta, settings.batch_size, settings.lr, on_epoch=report, progress=False,
                  prior_update=settings.prior_update if prior else "gradient",
                  transform=views(random_affine(shape), settings.views) if settings.views else None,
                  checkpoint=settings.checkpoint, resume=settings.resume, seed=settings.seed, device=device,
                  precision=settings.precision, distributed=distributed)
    distortion, rate = processes.mean(mean_elbo(model, held_out, seed=processes.rank), len(held_out))
    say(f"held out: distortion {distortion:.2f}, rate {rate:.2f}, bound {-distortion - rate:.2f} nats an image")
    return model, history


def main():
    """The command: errors that a reader can mend are one line."""
    try:
        train(parse())
    except (ProcessLost, ValueError, FileNotFoundError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()

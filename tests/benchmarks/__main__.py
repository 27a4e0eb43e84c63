"""`make bench`, or `python -m tests.benchmarks [em|starts|training] [--quick] [--threads 1] [--repeats 5]`.

Prints ours, the peer and the ratio, from one run on this machine: compare ratios, not seconds.
"""

import argparse
import os
import platform

import sklearn
import torch

from tests.benchmarks import em, starts, training

parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Speed and memory beside the peers.")
parser.add_argument("which", nargs="*", choices=[[], "em", "starts", "training"], help="some of them (default: all)")
parser.add_argument("--quick", action="store_true", help="small sizes only")
parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides (default: all cores)")
parser.add_argument("--repeats", type=int, default=5, help="alternating repetitions, of which the median counts")
options = parser.parse_args()
torch.set_num_threads(options.threads)
print(f"{platform.machine()}, {options.threads} threads, Python {platform.python_version()}, torch {torch.__version__},"
      f" scikit-learn {sklearn.__version__}; load {os.getloadavg()[0]:.1f}\n")
for module in (em, starts, training):
    if not options.which or module.__name__.rsplit(".")[-1] in options.which:
        module.main(options.quick, options.threads, options.repeats)

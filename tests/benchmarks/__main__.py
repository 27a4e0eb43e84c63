"""`make bench`, or `python -m tests.benchmarks [em|starts|training] [--quick] [--threads 1] [--report FILE]`.

Prints ours, the peer and the ratio, from one run on this machine: compare ratios, not seconds. A run of all of them
writes RESULTS.md, with the latencies and the duration in FILE if `make test ARGS=--junitxml=FILE` wrote it.
"""

import argparse
import contextlib
import io
import os
import platform
import sys

import sklearn
import torch

from tests.benchmarks import em, results, starts, training


class Both(io.StringIO):
    """Keeps what is printed, and shows it."""

    def write(self, text):
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return super().write(text)


parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Speed and memory beside the peers.")
parser.add_argument("which", nargs="*", choices=[[], "em", "starts", "training"], help="some of them (default: all)")
parser.add_argument("--quick", action="store_true", help="small sizes only")
parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides (default: all cores)")
parser.add_argument("--repeats", type=int, default=5, help="alternating repetitions, of which the median counts")
parser.add_argument("--report", help="a report of make test, in JUnit's format")
options = parser.parse_args()
torch.set_num_threads(options.threads)
found, printed = {}, Both()
with contextlib.redirect_stdout(printed):
    print(f"{platform.machine()}, {options.threads} threads, Python {platform.python_version()}, torch "
          f"{torch.__version__}, scikit-learn {sklearn.__version__}; load {os.getloadavg()[0]:.1f}\n")
    for module in (em, starts, training):
        name = module.__name__.rsplit(".")[-1]
        if not options.which or name in options.which:
            found[name] = module.main(options.quick, options.threads, options.repeats)
if not options.which and not options.quick:
    results.write(found, printed.getvalue(), options.report)
    print(f"wrote {results.PAGE}")

# The course in a few commands; everything is installed into .venv, nothing outside this folder.
#
#   make lab          open the course in JupyterLab
#   make test         run every test: library, equations, notebooks, browser, lint
#   make soak         what only time shows: thousands of moves of every widget, two hundred kills (ten minutes)
#   make notebooks    execute the sources that changed into notebooks   NAMES="02 05"  only these, ALL=1  all
#   make slides       decks for lectures in slides/, one file each that needs no network   NAMES="02 05"  only these
#   make lint         ruff and codespell
#   make bench        speed and memory beside the peers', and the page tests/benchmarks/RESULTS.md
#   make checkpoints  train the shipped models again (but MNIST's: python -m gmvae_lib.pretrained.mnist)
#   make clean        remove .venv
#
# Variables:
#   PYTHON=python3.12      the interpreter that .venv is made from (3.11 or newer; default: python3)
#   TORCH=cpu              PyTorch from its own wheel index: cpu, cu130, … (default: what pip gives for this machine)
#   LAB_ARGS="--port 9000" further arguments for JupyterLab
#   ARGS="-k em -x"        further arguments for pytest

PYTHON ?= python3
TORCH ?=
LAB_ARGS ?=
ARGS ?=
ALL ?=
NAMES ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
ROOT := $(filter 0,$(shell id -u))
# The value of TORCH is part of a stamp's name, so that another value installs again.
LAB := .venv/lab-$(TORCH).stamp
TEST := .venv/test-$(TORCH).stamp

.PHONY: lab test soak notebooks slides lint bench checkpoints clean

# Without jupytext's extension, which would write what a reader saves over the source too.
lab: $(LAB)
	$(BIN)/python -m jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb \
	  --ServerApp.jpserver_extensions=jupyterlab_jupytext=False $(if $(ROOT),--allow-root) $(LAB_ARGS)

# Two workers with one thread each beat one worker with two threads on small models. Neither waits for the other at the
# end: tests/workers.py.
test: $(TEST)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

# No file of it is named as pytest's own search expects, so that only this target runs it.
soak: $(TEST)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n 2 tests/soak/soak.py $(ARGS)

notebooks: $(TEST)
	$(BIN)/python notebooks/build.py $(if $(ALL),--all) $(NAMES)

slides: $(TEST)
	$(BIN)/python notebooks/slides.py $(NAMES)

lint: $(TEST)
	$(BIN)/ruff check .
	$(BIN)/codespell

bench: $(TEST)
	-$(PIP) --quiet pomegranate==1.1.2 pythae==0.1.2
	$(BIN)/python -m tests.benchmarks $(ARGS)

checkpoints: $(TEST)
	$(BIN)/python -m gmvae_lib.pretrained
	$(BIN)/python -m gmvae_lib.pretrained.rate_distortion
	$(BIN)/python -m gmvae_lib.pretrained.clustering

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "The course needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Install a newer one" \
	  "(https://www.python.org/downloads/) and name it: make lab PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "'$(PYTHON)' cannot make virtual environments." \
	  "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/torch-$(TORCH).stamp: .venv/bin/python constraints.txt
	$(if $(TORCH),$(PIP) --no-deps --force-reinstall --index-url https://download.pytorch.org/whl/$(TORCH) torch)
	@touch $@

$(LAB): .venv/torch-$(TORCH).stamp pyproject.toml constraints.txt
	@echo "Installing the course's packages into .venv: a few minutes, once."
	$(PIP) --editable .
	@touch $@

$(TEST): .venv/torch-$(TORCH).stamp pyproject.toml constraints.txt
	@echo "Installing the course's packages and its tests' into .venv: a few minutes, once."
	$(PIP) --editable '.[test]'
	@touch $(LAB) $@

# make demo    sets up .venv, reconstructs the shipped clip, says how to look at it
# make test    sets up .venv, runs the tests (minutes; the slow ones with `make test-all`)
# make test-nerfstudio   the plugin of nerfstudio, in an environment of its own
# make bench   prints the table of accuracy and speed, beside COLMAP and the tracking without its parts; BENCH= leaves
#              those out, BENCH='--memory' asks for others (tools/bench.py)
# make lint    style, and which module may import which

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# torch is named with its version on the same command line as everything else, and torchvision is never asked for:
# so pip keeps the CPU build of torch.
TORCH ?= torch==2.13.0
BENCH ?= --colmap --ablation
READY = $(VENV)/.ready
# nerfstudio itself without its dependencies, most of which are pinned to old versions, and beside it what it imports.
NS_VENV ?= .venv-nerfstudio
NS_NEEDS = pytest plyfile websockets msgspec requests tensorboard plotly torchmetrics pytorch-msssim matplotlib
NS_ALONE = nerfstudio==1.1.5 torchvision==0.28.0 viser==0.2.7 nerfacc==0.5.2 splines==0.3.0 fpsample tensorly mediapy \
	rawpy pyquaternion appdirs pathos dill multiprocess pox ppft nodeenv yourdfpy

.PHONY: demo test test-all test-nerfstudio bench lint clean

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("endorecon needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt $(TORCH) --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/endorecon reconstruct demo --out runs/demo --overwrite

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-all: $(READY)
	$(BIN)/python -m pytest

test-nerfstudio:
	test -x $(NS_VENV)/bin/python || $(PYTHON) -m venv $(NS_VENV)
	$(NS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt $(TORCH) --editable . $(NS_NEEDS)
	$(NS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps $(NS_ALONE)
	$(NS_VENV)/bin/python -m pytest tests/endorecon/test_nerfstudio_plugin.py

bench: $(READY)
	$(BIN)/python tools/bench.py $(BENCH)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache *.egg-info

# make demo    sets up .venv, reconstructs the shipped clip, says how to look at it
# make test    sets up .venv, runs the tests (minutes; the slow ones with `make test-all`)
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

.PHONY: demo test test-all bench lint clean

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

bench: $(READY)
	$(BIN)/python tools/bench.py $(BENCH)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache *.egg-info

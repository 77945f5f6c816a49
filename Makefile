# make demo   evaluate the embedded checkpoints and write reports/demo/report.html
# make test   run the tests
# Both begin from nothing (CPython 3.11+, make, a package index) and cost nothing when run again.

PYTHON ?= python3
VENV ?= .venv
# Where torch alone is fetched from. The default serves builds without CUDA, so that a machine without
# a GPU downloads 200 MB and not several GB. Out of reach: the ordinary index is used. Empty: this step
# is skipped, and torch comes as your index has it (with CUDA, on Linux).
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/autointerp demo --out reports/demo

# One worker a core, one thread a worker. Skips are printed with their reasons.
PYTEST_ARGS ?= -q -n auto --dist loadscope

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("autointerp needs CPython 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(if $(strip $(TORCH_INDEX)),$(PIP) install --quiet --no-deps --retries 1 --timeout 30 --extra-index-url $(TORCH_INDEX) $(TORCH))
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) reports/demo

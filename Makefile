# Two commands set up .venv and run: `make train` and `make test`.
# The newest of Python 3.13, 3.12 and 3.11 that can make an environment, on the path or in the directory of a
# version manager; else python3. A name on the path may be a shim that fails, so each one is tried.
PYTHON ?= $(shell for v in 3.13 3.12 3.11; do \
	for p in python$$v $$HOME/.pyenv/versions/$$v*/bin/python$$v $$HOME/.local/share/uv/python/cpython-$$v*/bin/python$$v \
		$$HOME/.local/share/mise/installs/python/$$v*/bin/python$$v $$HOME/.asdf/installs/python/$$v*/bin/python$$v \
		/opt/homebrew/bin/python$$v /usr/local/bin/python$$v; do \
		if "$$p" -c 'import venv, ensurepip' >/dev/null 2>&1; then echo "$$p"; exit; fi; done; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt pyproject.toml $(wildcard requirements/*.txt)
# Exact versions of the tested set, if there are some for this Python; other versions take the newest that they can.
PYTHON_VERSION = $(shell $(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(addprefix --constraint=,$(wildcard requirements/constraints-$(PYTHON_VERSION).txt))
# Arguments of the program, for example: make train ARGS="--config=configs/cifar10.py:method=at"
ARGS ?=
# For `make data`: the TFDS name, its directory, and (optional) the directory of a downloaded archive.
DATASET ?= cifar10
DATA_DIR ?= $(HOME)/tensorflow_datasets_array_record
MANUAL_DIR ?=
# Two workers, each with a file at a time: compiling uses one core.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile
# Tests of `make check`: the structure, the arrays and the terms, without whole runs.
QUICK := tests/test_architecture.py tests/test_objective.py tests/arrays tests/training/test_config.py \
	tests/terms/test_base.py tests/terms/test_registry.py tests/terms/test_user_terms.py

# Training allocates and frees hundreds of megabytes a step. With huge pages glibc has the kernel map them in
# fewer pieces (a WRN-16-1 step on 2 cores takes 0.28 s instead of 0.33 s). Other systems ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: train check test test-all lint format types docs table bench gpu host-overhead data constraints audit clean
.DELETE_ON_ERROR:

train: $(VENV)/.train
	$(BIN)/at-jax train $(ARGS)

# While developing: under two minutes.
check: lint
	$(PYTEST) $(QUICK)

test: lint
	$(PYTEST)

# With the checks that take minutes; one of them builds the documentation.
test-all: lint $(VENV)/.docs
	$(PYTEST) -m "slow or not slow"

lint: $(VENV)/.test types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site is docs/_build/html/index.html. Building and reading it need no network.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

# For example: make table ARGS="digits --seeds 3"
table: $(VENV)/.train
	$(BIN)/at-jax tables $(ARGS)

bench: $(VENV)/.train
	$(BIN)/python -m benchmarks.double_backprop $(ARGS)

# On a machine with a GPU, at most 9 minutes. A Python that has jax and flax is used as it is.
GPU_PYTHON ?= python3
gpu:
	@if $(GPU_PYTHON) -c 'import jax, flax, optax, chex' 2>/dev/null; then \
		$(GPU_PYTHON) -m benchmarks.gpu $(ARGS); \
	else $(MAKE) $(VENV)/.train && $(BIN)/python -m benchmarks.gpu $(ARGS); fi

host-overhead: $(VENV)/.train
	$(BIN)/python -m benchmarks.host_overhead $(ARGS)

data: .venv-prepare/.done
	.venv-prepare/bin/python at_jax/data/prepare.py --dataset="$(DATASET)" --data_dir="$(DATA_DIR)" --manual_dir="$(MANUAL_DIR)"

# The newest versions that the requirements allow, in a fresh environment, as requirements/constraints-X.Y.txt of its
# Python: make constraints PYTHON=python3.12
FROZEN := .venv-constraints
constraints:
	rm -rf $(FROZEN)
	$(PYTHON) -m venv $(FROZEN)
	$(FROZEN)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
		$(foreach name,pretrained export gcs test docs,-r requirements/$(name).txt)
	$(FROZEN)/bin/python requirements/freeze.py
	rm -rf $(FROZEN)

# Exit code 3, and a line that says so, where no database of advisories can be reached.
audit:
	$(PYTHON) requirements/audit.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-prepare $(FROZEN) docs/_build docs/api/generated build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"at_jax needs Python 3.11 or later, got {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python $(REQUIREMENTS)
	$(PIP_INSTALL) -r requirements.txt
	$(PIP_INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(PIP_INSTALL) -r requirements/test.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.train
	$(PIP_INSTALL) -r requirements/docs.txt
	@touch $@

.venv-prepare/.done: requirements/prepare.txt
	$(PYTHON) -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/prepare.txt
	@touch $@

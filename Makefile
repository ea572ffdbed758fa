# Two commands set up .venv and run: `make train` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := requirements.txt $(wildcard requirements/*.txt)
# What comes after the program, for example: make train ARGS="--config=configs/cifar10.py:method=at"
ARGS ?=
# For `make data`: the TFDS name, where to put it, and (optional) where a downloaded archive lies.
DATASET ?= cifar10
DATA_DIR ?= $(HOME)/tensorflow_datasets_array_record
MANUAL_DIR ?=

# Training allocates and frees hundreds of megabytes a step: with huge pages glibc has the kernel map them
# in fewer pieces (a WRN-16-1 step on 2 cores takes 0.28 s and not 0.33). Other systems ignore it.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: train test lint table bench host-overhead data clean
.DELETE_ON_ERROR:

train: $(VENV)/.train
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q

lint: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# For example: make table ARGS="digits --seeds 3"
table: $(VENV)/.train
	$(BIN)/python -m at_jax.tables $(ARGS)

bench: $(VENV)/.train
	$(BIN)/python -m benchmarks.double_backprop $(ARGS)

host-overhead: $(VENV)/.train
	$(BIN)/python -m benchmarks.host_overhead $(ARGS)

data: .venv-prepare/.done
	.venv-prepare/bin/python at_jax/data/prepare.py --dataset="$(DATASET)" --data_dir="$(DATA_DIR)" --manual_dir="$(MANUAL_DIR)"

clean:
	rm -rf $(VENV) .venv-prepare build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"at_jax needs Python 3.11 or later, got {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: $(BIN)/python $(REQUIREMENTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.test: $(VENV)/.train
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/test.txt
	@touch $@

.venv-prepare/.done: requirements/prepare.txt
	$(PYTHON) -m venv .venv-prepare
	.venv-prepare/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/prepare.txt
	@touch $@

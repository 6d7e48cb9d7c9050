# `make train` and `make test` need Python 3.11 or 3.12, git's checkout and a package registry; nothing else.
# Settings, on the command line or in the environment:
#   PYTHON   the interpreter to build the environment with (searched for when not given)
#   VENV     where the environment lies (.venv)
#   ARGS     more words for the command, e.g. make train ARGS="env=mamujoco/ant-4x2 seed=1"
#   JOBS     processes that share the tests (2); 0: one after the other in this one

VENV ?= .venv
ARGS ?=
JOBS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Tensors are small in the tests: one thread is as fast as two and leaves the second core to others.
# Runs that a file's tests share are made once, so a file's tests stay in one process.
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: help install train test slow lint format bench smax

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -e 's/:.*## /|/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(STAMP) ## the environment in .venv, once (train and test do it themselves)

train: $(STAMP) ## a team learns HalfCheetah-2x3 in imagination, on a CPU, in minutes
	$(BIN)/dima train $(ARGS)

test: $(STAMP) ## the default tests
	$(TEST_ENV) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

slow: $(STAMP) ## the tests that take longer
	$(TEST_ENV) $(BIN)/python -m pytest -m "slow and not gpu" $(ARGS)

lint: $(STAMP) ## style and types: ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## how fast each stage runs on this machine
	$(BIN)/dima bench $(ARGS)

smax: ## SMAX for env=smax/..., in an environment of its own: .smax
	@python=$$(PYTHON="$(PYTHON)" sh .ci/find_python) && $$python -m venv .smax && echo '*' > .smax/.gitignore
	@.smax/bin/python -m pip install --quiet --disable-pip-version-check jaxmarl
	@echo "Ready: export DIMA_SMAX_PYTHON=$(CURDIR)/.smax/bin/python"

# torch first: it is the largest, and nothing else then gets to choose its version.
$(STAMP): pyproject.toml constraints.txt
	@python=$$(PYTHON="$(PYTHON)" sh .ci/find_python) || exit 1; \
	  echo "Setting up $(VENV) with $$($$python --version); this happens once and takes a few minutes."; \
	  $$python -m venv $(VENV) || { \
	    echo "Could not create $(VENV): install the venv module of $$python (Debian, Ubuntu: python3-venv)." >&2; exit 1; }
	@echo "Installing torch ..."
	@$(PIP) torch
	@echo "Installing the project, its dependencies and the development tools ..."
	@$(PIP) --editable ".[dev]"
	@touch $(STAMP)
	@echo "Ready: $$($(BIN)/python -c 'import torch; print("torch", torch.__version__)')"

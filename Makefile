# `make train` and `make test` set up all they need in .venv, on a machine that has Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
EXPERIMENT ?= pareto_digits

.PHONY: train test test-all test-browser test-slurm pictures lint clean
train: $(VENV)/ready
	$(BIN)/python -m diffq_exp.train $(ARGS)

# Of several checks of one thing the cheapest, and of many parameter sets a sample: five minutes on two cores.
test: $(VENV)/ready-dev lint
	$(BIN)/python -m pytest -m "not long" $(ARGS)

test-all: $(VENV)/ready-dev lint
	$(BIN)/python -m pytest $(ARGS)

# A sweep on a Slurm of its own; needs root and apt-get install slurm-wlm munge.
test-slurm: $(VENV)/ready-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[slurm]'
	TEST_SLURM=1 $(BIN)/python -m pytest -n 0 tests/slurm $(ARGS)

test-browser: $(VENV)/ready-browser
	$(BIN)/python -m pytest -n 0 -rs tests/browser $(ARGS)

# The pictures of README.md and docs/, from one set of runs: trains what is missing of a front.
pictures: $(VENV)/ready-browser
	$(BIN)/python -m diffq_exp.train experiment=$(EXPERIMENT) $(ARGS)
	$(BIN)/python scripts/make_pictures.py --experiment $(EXPERIMENT)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/ready-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@ $(VENV)/ready

$(VENV)/ready-browser: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,browser]'
	touch $@ $(VENV)/ready $(VENV)/ready-dev

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

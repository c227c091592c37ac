# All set-up is in .venv: made on first use, reused while pyproject.toml and constraints.txt stay as they are.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
DEMO := demo

.PHONY: help demo test lint chart clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

$(BIN)/skysift: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "skysift needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/dev: $(BIN)/skysift
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(BIN)/skysift  ## Simulate 12,000 quasars and run everything, survey to report
	$(BIN)/skysift simulate $(DEMO)/sky --quasars 12000 --seed 1 --quasar-fraction 0.5 --no-resolution
	$(BIN)/skysift run $(DEMO)/sky --workspace $(DEMO)/workspace --run demo

test: $(VENV)/dev  ## Run all tests
	$(BIN)/python -m pytest

lint: $(VENV)/dev  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chart: $(VENV)/dev  ## Write again what is kept of the chart's output; read the differences
	$(BIN)/python -m tests.helm.regenerate

clean:  ## Delete the demo and the virtual environment
	rm -rf $(DEMO) $(VENV) build *.egg-info

# Two commands set everything up on a fresh machine: `make explore` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
HW ?=
MODEL ?= digits_cnn

.PHONY: help install install-test explore test test-all lint docs bench clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F: '{printf "  make %-14s%s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "soniq-dse needs Python 3.10 or later, got " + sys.version.split()[0])'
	@echo "installing into $(VENV) (about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@echo "installing the test tools into $(VENV) ..."
	@$(PIP) install -q -c constraints.txt -e '.[test]'
	@touch $@

install: $(VENV)/.installed-test  ## Make .venv with the program and its test tools

explore: $(VENV)/.installed  ## The main job on the built-in digits: trains, predicts, measures, writes the report
	@$(BIN)/soniq-dse explore --model $(MODEL) $(if $(HW),--hw $(HW))
	@echo "next: . $(BIN)/activate, then docs/tutorial.md goes on from here"

test: $(VENV)/.installed-test  ## The test suite (under 6 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: test  ## The test suite and its slow parts: browser, foreign processors, sanitizers, docs, kills
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

lint: $(VENV)/.installed-test  ## Style, types, import contract
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed  ## Write the generated files under docs/ again
	$(BIN)/python docs/schemas/generate.py

bench: $(VENV)/.installed  ## Install the peers and run every benchmark
	$(PIP) install -q -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks --run

clean:  ## Remove what the builds left (not .venv, not reports/runs)
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Everything a checkout needs: python3 (with venv), make and gcc. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MIN_PYTHON := $(shell sed -n 's/^requires-python = ">=\([0-9.]*\)"$$/\1/p' pyproject.toml)

, := ,

# Quiet unless it fails: one sentence and exit status 1. $(1) is a shell test, $(2) the sentence.
require = @$(1) >/dev/null 2>&1 || { echo "$(2)" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help setup test demo docs lint format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with everything (once; again when pyproject.toml or constraints.txt change)

$(INSTALLED): pyproject.toml constraints.txt
	$(call require,command -v $(PYTHON),$(PYTHON) was not found: install Python $(MIN_PYTHON) or newer$(,) or name one with make setup PYTHON=/path/to/python3.)
	$(call require,$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int$(,) "$(MIN_PYTHON)".split("."))))',$(PYTHON) is older than Python $(MIN_PYTHON): name a newer one with make setup PYTHON=/path/to/python3.)
	$(call require,$(PYTHON) -c 'import ensurepip$(,) venv',$(PYTHON) cannot make virtual environments: install its venv package (on Debian and Ubuntu: apt install python3-venv).)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev,docs]'
	@touch $@

test: setup ## Run every test; ARGS='-k decode' to choose, ARGS=... goes to pytest
	$(BIN)/python -m pytest $(ARGS)

demo: setup ## Draw people, train on them, export, measure and paint: runs/demo/
	$(BIN)/mdpose-edge demo $(ARGS)

docs: setup ## Build the documents as a site: build/site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lint: setup ## Check style, formatting, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Rewrite the code in the house's formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove .venv, caches and build products; runs/ is kept
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

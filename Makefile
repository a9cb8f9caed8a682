# The recipes a person needs. Everything happens in .venv, which the first recipe makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test check tests evaluate readme bench drift clean

help: ## This list.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Makes .venv and installs everything into it.

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install ## MovieLens 100K, the whole batch, and answers from the Lambda handler.
	$(BIN)/shortlist demo

test: check tests ## Everything that CI runs.

check: install ## Lint, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: install ## The test suite.
	$(BIN)/python -m pytest

evaluate: install ## Both reports on MovieLens 100K, as JSON in docs/reports/.
	$(BIN)/shortlist data fetch ml-100k --out .demo/data
	for protocol in leave-one-out last-10pct; do \
	  $(BIN)/shortlist evaluate --interactions .demo/data/interactions.parquet --items .demo/data/items.parquet \
	    --users .demo/data/users.parquet --protocol $$protocol --json docs/reports/ml-100k-$$protocol.json || exit 1; done

readme: install ## Writes the README's generated tables from docs/reports/.
	$(BIN)/python -m infra.readme

bench: install ## The benchmarks' table.
	$(BIN)/python tests/benchmarks/serving.py

drift: install ## Measures the skew check: docs/drift.md and its figure, in a quarter of an hour.
	OMP_NUM_THREADS=1 $(BIN)/python -m infra.drift

clean: ## Removes what the recipes made, but not .venv.
	rm -rf .demo .shortlist artefacts .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The recipes a person needs. Everything happens in .venv, which the first recipe makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SAM := .cache/sam
ASL := .cache/asl
MACHINE := $(patsubst aarch64,arm64,$(shell uname -m))
HERE = $(shell $(BIN)/python -c 'import sys; print("{}.{}".format(*sys.version_info))')

.PHONY: help install demo test check tests evaluate worlds readme bench bench-large bench-load drift local package chaos infra-check build-Serve clean

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

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

tests: install ## The test suite, a file at a time on each core.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

evaluate: install ## Both reports on MovieLens 100K, as JSON in docs/reports/.
	$(BIN)/shortlist data fetch ml-100k --out .demo/data
	for protocol in leave-one-out last-10pct; do \
	  $(BIN)/shortlist evaluate --interactions .demo/data/interactions.parquet --items .demo/data/items.parquet \
	    --users .demo/data/users.parquet --protocol $$protocol --json docs/reports/ml-100k-$$protocol.json \
	    $$([ $$protocol = last-10pct ] && echo --cold-start) --report .demo/reports/$$protocol || exit 1; done

worlds: install ## The same defaults on data of other kinds, as JSON in docs/reports/; after `make evaluate`.
	$(BIN)/python tests/benchmarks/quality.py

readme: install ## Writes the generated tables of README.md and docs/.
	$(BIN)/python -m shortlist.infra.tools.docs

bench: install ## The benchmarks' table.
	$(BIN)/python tests/benchmarks/serving.py

bench-large: install ## The same for made-up worlds of MovieLens 1M's size and of 100 000 items, after half an hour of training.
	$(BIN)/python tests/benchmarks/serving.py .demo/1m 6040 3706 165
	$(BIN)/python tests/benchmarks/serving.py .demo/100k-items 20000 100000 50

bench-load: install ## `shortlist serve` at 40, 70 and 130% of its capacity, after `make demo`.
	$(BIN)/python tests/benchmarks/load.py

local: install ## The API on http://127.0.0.1:3000: the Lambda package under the real runtime client, over Valkey.
	rm -rf build/local
	$(BIN)/python infra/tools/package.py --out build/local --machine $(MACHINE) --python $(HERE)
	$(BIN)/shortlist local --package build/local

package: install ## The Lambda's package for deployment, in build/lambda.
	rm -rf build/lambda
	$(BIN)/python infra/tools/package.py --out build/lambda

build-Serve: # Called by `sam build`, which names the directory.
	$(PYTHON) infra/tools/package.py --out "$(ARTIFACTS_DIR)"

infra-check: install $(SAM)/.installed $(ASL)/.installed ## Everything about the deployment that needs no account.
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam validate --lint --region us-east-1
	$(SAM)/bin/cfn-lint template.yaml
	mkdir -p build
	$(SAM)/bin/python infra/tools/expand.py template.yaml > build/expanded.json
	$(SAM)/bin/cfn-lint --ignore-checks W1033 W2001 -- build/expanded.json
	if [ -d $(ASL)/node_modules ]; then $(ASL)/node_modules/.bin/asl-validator --json-path infra/refresh.asl.json; fi
	$(SAM)/bin/python infra/tools/sam_local.py template.yaml
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam build --region us-east-1
	$(BIN)/python -m pytest tests/deployment

$(SAM)/.installed: # SAM's pins are not ours, so it lives by itself.
	$(PYTHON) -m venv $(SAM)
	$(SAM)/bin/python -m pip install --quiet aws-sam-cli cfn-lint
	touch $@

$(ASL)/.installed: # Step Functions' language is checked by a Node program, where there is Node.
	mkdir -p $(ASL)
	if command -v npm > /dev/null; then npm install --silent --no-fund --no-audit --prefix $(ASL) asl-validator@4; else echo "no npm: the state machine is checked by the tests alone"; fi
	touch $@

chaos: install ## Attacks the whole service, for most of an hour: docs/reliability.md; with the load test after `make demo`.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos run --write $(if $(wildcard .demo/data),--load)

drift: install ## Measures the skew check: docs/drift.md and its figure, in a quarter of an hour.
	OMP_NUM_THREADS=1 $(BIN)/python -m shortlist.infra.tools.skew_study

clean: ## Removes what the recipes made, but not .venv.
	rm -rf .aws-sam .demo .shortlist artefacts build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

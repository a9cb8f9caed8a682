# The recipes a person needs. Everything happens in .venv, which the first recipe makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SAM := .cache/sam
UV := .cache/uv
SPY := .cache/py-spy
ASL := .cache/asl
MACHINE := $(patsubst aarch64,arm64,$(shell uname -m))
# `make lowest UV_OPTIONS=...` for an index or a torch of one's own.
UV_OPTIONS ?=
# The tests that need no trained release: enough to see that an old library breaks.
FAST_TESTS := tests/unit tests/contracts tests/golden
HERE = $(shell $(BIN)/python -c 'import sys; print("{}.{}".format(*sys.version_info))')

.PHONY: help install demo quick test check tests lock lowest evaluate worlds readme docs bench \
  bench-large bench-refresh bench-load bench-training flames drift local package chaos infra-check \
  screenshots build-Serve clean

help: ## This list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(STAMP) ## Makes .venv and installs everything into it.

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) \
	  and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install ## MovieLens 100K, the whole batch, and answers from the Lambda handler.
	$(BIN)/shortlist demo

quick: install ## Lint, types and the unit tests, for whoever edits.
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet --numprocesses auto --dist loadfile tests/unit

test: check tests ## Lint, types, import contracts and the whole test suite.

check: install ## Lint, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/benchmarks
	$(BIN)/lint-imports

# A thread a worker: more would wait for each other. In the files' own order, which ends with the
# short ones.
tests: install ## The test suite, a file at a time on each core.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
	  --no-loadscope-reorder

lock: install $(UV)/.installed ## Writes infra/locked, after constraints.txt or pyproject.toml changed.
	PATH="$(CURDIR)/$(UV)/bin:$$PATH" $(BIN)/python -m shortlist.infra.tools.lock

# Old libraries warn of what newer ones removed, which is no failure of ours: warnings stay warnings.
lowest: $(UV)/.installed ## The fast tests under the lowest versions that pyproject.toml allows.
	mkdir -p build
	$(UV)/bin/uv pip compile pyproject.toml --extra dev --resolution lowest-direct \
	  --python-version 3.11 --quiet --output-file build/lowest.txt $(UV_OPTIONS)
	$(UV)/bin/uv venv --quiet --clear --python 3.11 .cache/lowest
	$(UV)/bin/uv pip install --quiet --python .cache/lowest $(UV_OPTIONS) \
	  --requirement build/lowest.txt
	$(UV)/bin/uv pip install --quiet --python .cache/lowest --no-deps --editable .
	.cache/lowest/bin/python -m pytest --quiet --override-ini filterwarnings=default $(FAST_TESTS)

evaluate: install ## Both reports on MovieLens 100K, as JSON in docs/reports/.
	$(BIN)/shortlist data fetch ml-100k --out .demo/data
	for protocol in leave-one-out last-10pct; do \
	  $(BIN)/shortlist evaluate --interactions .demo/data/interactions.parquet \
	    --items .demo/data/items.parquet --users .demo/data/users.parquet \
	    --protocol $$protocol --json docs/reports/ml-100k-$$protocol.json \
	    $$([ $$protocol = last-10pct ] && echo --cold-start) \
	    --report .demo/reports/$$protocol || exit 1; \
	done

worlds: install ## The same defaults on other data, as JSON in docs/reports/; after `make evaluate`.
	$(BIN)/python tests/benchmarks/quality.py

readme: install ## Writes the generated tables of README.md and docs/.
	$(BIN)/python -m shortlist.infra.tools.docs

docs: install ## The documents as a site, in build/docs.
	$(BIN)/python -m shortlist.infra.tools.site

bench: install ## The benchmarks' table.
	$(BIN)/python tests/benchmarks/serving.py

bench-refresh: install ## Whole refreshes as users, items and events grow: forty minutes.
	$(BIN)/python tests/benchmarks/refresh.py

bench-large: install ## As `make bench` for 1M events, after `make bench-refresh`, and 100,000 items.
	$(BIN)/python tests/benchmarks/serving.py .demo/1m 6040 3706 165
	$(BIN)/python tests/benchmarks/serving.py .demo/100k-items 20000 100000 50

bench-training: install ## A training step of the towers by size of the catalogue.
	$(BIN)/python tests/benchmarks/training.py

flames: install $(SPY)/.installed ## Flame graphs of the answers and of precompute, after `make demo`.
	PATH="$(CURDIR)/$(SPY)/bin:$$PATH" $(BIN)/python tests/benchmarks/flame.py

bench-load: install ## `shortlist serve` at 40, 70 and 130% of its capacity, after `make demo`.
	$(BIN)/python tests/benchmarks/load.py

local: install ## The API on http://127.0.0.1:3000, over an embedded Valkey.
ifeq ($(shell uname -s),Linux)
	rm -rf build/local
	$(BIN)/python infra/tools/package.py --out build/local --machine $(MACHINE) --python $(HERE)
	$(BIN)/shortlist local --package build/local
else # the package holds Linux's libraries, so the source tree is served
	$(BIN)/shortlist local
endif

package: install ## The Lambda's package for deployment, in build/lambda.
	rm -rf build/lambda
	$(BIN)/python infra/tools/package.py --out build/lambda

build-Serve: # Called by `sam build`, which names the directory.
	$(PYTHON) infra/tools/package.py --out "$(ARTIFACTS_DIR)"

infra-check: install $(SAM)/.installed $(ASL)/.installed ## The deployment, without an account.
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam validate --lint --region us-east-1
	$(SAM)/bin/cfn-lint template.yaml
	mkdir -p build
	$(SAM)/bin/python infra/tools/expand.py template.yaml > build/expanded.json
	$(SAM)/bin/cfn-lint --ignore-checks W1033 W2001 -- build/expanded.json
	if [ -d $(ASL)/node_modules ]; then \
	  $(ASL)/node_modules/.bin/asl-validator --json-path infra/refresh.asl.json; fi
	$(SAM)/bin/python infra/tools/sam_local.py template.yaml
	SAM_CLI_TELEMETRY=0 $(SAM)/bin/sam build --region us-east-1
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/deployment

$(UV)/.installed: # Resolves the locks and the floors; nothing else here needs it.
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip install --quiet uv
	touch $@

$(SPY)/.installed: # Samples a process from outside; only the flame graphs need it.
	$(PYTHON) -m venv $(SPY)
	$(SPY)/bin/python -m pip install --quiet py-spy
	touch $@

$(SAM)/.installed: # SAM's pins are not ours, so it lives by itself.
	$(PYTHON) -m venv $(SAM)
	$(SAM)/bin/python -m pip install --quiet aws-sam-cli cfn-lint
	touch $@

$(ASL)/.installed: # Step Functions' language is checked by a Node program, where there is Node.
	mkdir -p $(ASL)
	if command -v npm > /dev/null; then \
	  npm install --silent --no-fund --no-audit --prefix $(ASL) asl-validator@4; \
	else echo "no npm: the state machine is checked by the tests alone"; fi
	touch $@

chaos: install ## Attacks the whole service for an hour: docs/reliability.md; load after `make demo`.
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos run --write $(if $(wildcard .demo/data),--load)

drift: install ## Measures the skew check: docs/drift.md and its figure, in a quarter of an hour.
	OMP_NUM_THREADS=1 $(BIN)/python -m shortlist.infra.tools.skew_study

screenshots: install ## The studio's pictures in docs/images, by Chromium.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet tests/browser/screenshots.py

clean: ## Removes what the recipes made, but not .venv.
	rm -rf .aws-sam .demo .shortlist artefacts build dist \
	  .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Two commands on a fresh machine do everything: `make demo` and `make test`. `make` alone lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
EXAMPLE ?= digits
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow slow-sample conformance conformance-sample cases lint format docs bench clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@echo "creating $(VENV) (Python 3.11 or 3.12, exact versions of constraints.txt)"
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)) and f"found Python {sys.version.split()[0]}, expected 3.11 or 3.12: make PYTHON=python3.11")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt torch numpy
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[engine,onnx,images,dev]'
	@touch $@

$(VENV)/.example-%: $(STAMP) examples/%/requirements.txt
	@echo "installing what examples/$* reads, without its own dependencies"
	@$(BIN)/pip install --quiet --no-deps --requirement examples/$*/requirements.txt
	@touch $@

demo: $(STAMP)  ## run the gate on a real trained model: make demo [EXAMPLE=digits|mnist|basic-pitch]
	@if [ -f examples/$(EXAMPLE)/requirements.txt ]; then $(MAKE) --no-print-directory $(VENV)/.example-$(EXAMPLE); fi
	@if [ -f examples/$(EXAMPLE)/prepare.py ]; then $(BIN)/python examples/$(EXAMPLE)/prepare.py; fi
	@$(BIN)/gate check --config examples/$(EXAMPLE)/gate.yml --out out/$(EXAMPLE)

test: $(STAMP) $(VENV)/.example-mnist $(VENV)/.example-basic-pitch  ## the default test suite, under 10 minutes on 2 cores
	@$(BIN)/python -m pytest -q -n 2 -m "not slow and not conformance and not oci"

$(VENV)/.real: $(STAMP) tests/real/requirements.txt
	@$(BIN)/pip install --quiet --no-deps --requirement tests/real/requirements.txt
	@touch $@

test-slow: $(STAMP) $(VENV)/.example-mnist $(VENV)/.example-basic-pitch $(VENV)/.real  ## the slow tests too
	@$(BIN)/python -m pytest -q -m "slow"

slow-sample: $(STAMP) $(VENV)/.example-mnist $(VENV)/.example-basic-pitch  ## 40 of the slow ones, drawn by a seed: what CI runs
	@timeout 600 $(BIN)/python -m pytest -q -n 2 -m "slow" --ignore tests/real --sample 40

$(VENV)/.conformance: $(STAMP) tests/conformance/requirements.txt
	@$(BIN)/pip install --quiet --constraint constraints.txt --requirement tests/conformance/requirements.txt
	@touch $@

conformance: $(VENV)/.conformance  ## coremltools' own tests, answered by our evaluator; resumable, two hours
	@$(BIN)/python -m tests.conformance.run --resume out/conformance

conformance-sample: $(VENV)/.conformance  ## 400 of them that count, in seeded order: what CI runs
	@timeout 900 $(BIN)/python -m pytest -q -m conformance tests/conformance

lint: $(STAMP)  ## ruff, mypy, and the linters of actions, workflows and the Dockerfile
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy gate
	@PATH="$(abspath $(BIN)):$$PATH" support/lint.sh

format: $(STAMP)  ## rewrite the files as ruff wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(STAMP)  ## regenerate the JSON schemas and the generated parts of the documents
	@$(BIN)/python -m gate.documentation

cases: $(STAMP)  ## the failures from the field: verdict, culprit and cure of each
	@$(BIN)/python -m tests.cases_table

bench: $(STAMP)  ## run every benchmark, each side by side in one run
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the environment and what was produced
	@rm -rf $(VENV) out gate-out build dist

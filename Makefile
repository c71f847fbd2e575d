# The one door: every target makes what it needs, from a bare python3 (3.11 or newer) with its venv and pip.

PYTHON ?= python3
MATRIX := 3.11 3.12 3.13
AT_ONCE := 2  # tests: most of what those of clusters do is to wait

VENV := .venv
BIN := $(VENV)/bin
PINNED := $(VENV)/.pinned
PEERS := .venvs/bench
MADE := $(VENV)/.made

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_REQUIRE_VIRTUALENV := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-deps test-matrix suite check format docs bench verify bench-peers bench-echo bench-idle \
	requirements clean

help:  ## What can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(MADE)  ## A cluster of three nodes on this machine, until Ctrl-C
	@$(BIN)/ring dev --nodes 3

test: $(MADE) test-deps  ## The whole test suite, with the coverage that it must reach
	$(BIN)/pytest --numprocesses $(AT_ONCE) --dist worksteal --cov --cov-report=
	@$(BIN)/coverage report --fail-under=95 > $(VENV)/coverage.txt || { cat $(VENV)/coverage.txt; exit 1; }
	@$(BIN)/coverage report --fail-under=100 --include='ring/protocol/*,ring/cluster/*' > $(VENV)/coverage.txt \
		|| { cat $(VENV)/coverage.txt; exit 1; }

test-deps:  ## What the tests need beside Python: installed as root on Debian, else named
	@sh .ci/test-deps

test-matrix:  ## The test suite on each supported Python that this machine has
	@for version in $(MATRIX); do \
		python=$$(sh .ci/find-python $$version) || { echo "no Python $$version on this machine: left out" >&2; continue; }; \
		$(MAKE) --no-print-directory VENV=.venvs/$$version PYTHON=$$python suite || exit 1; \
	done

suite: $(MADE)
	@echo "== $$($(BIN)/python --version)"
	$(BIN)/pytest --numprocesses $(AT_ONCE) --dist worksteal --quiet

check: $(MADE)  ## Lint, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/reference/make.py --check

format: $(MADE)  ## Formats the code and mends what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(MADE)  ## Writes the reference pages that are made from the code
	$(BIN)/python docs/reference/make.py

bench: $(MADE)  ## Ring beside what bench-peers has installed: docs/benchmarks.md (QUICK=1: a look, no page)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

verify: $(MADE)  ## ring verify with five seeds, behind HAProxy too, and kills: docs/how-to/verify.md, in an hour
	$(BIN)/python -m benchmarks.verified

bench-peers: $(PEERS)/.made  ## What bench compares with: installed as root on Debian, else named
	@sh benchmarks/peers/install

bench-echo: $(MADE) $(PEERS)/.made  ## What an echo costs, beside trio-websocket and picows
	$(BIN)/python -m ring.bench.echo_load 'ring=$(BIN)/ring bench echo --listen 127.0.0.1:0' \
		'trio-websocket=$(BIN)/python benchmarks/echo_trio_websocket.py' \
		'picows=$(PEERS)/bin/python benchmarks/echo_picows.py'

bench-idle: $(MADE)  ## What 18,000 idle clients cost a node
	$(BIN)/ring bench idle --local 1 --connections 18000

# --universal: one file for every Python and platform. No index or host is named: pip's own configuration decides.
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

requirements: $(MADE)  ## Pins the newest releases that pyproject.toml allows
	$(COMPILE) --upgrade --extra dev --group test --group build --output-file requirements/dev.txt
	$(COMPILE) --upgrade --constraints requirements/dev.txt --output-file requirements/run.txt
	$(subst pyproject.toml,--group bench,$(COMPILE)) --upgrade --output-file requirements/bench.txt

clean:  ## Removes the environments and everything that was made
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew, from nothing, when what is pinned changes: nothing stays behind of what was pinned before. --no-deps: what
# is pinned is all there is to install; pip, left to resolve "coverage[toml]", would look past the pin at newer releases.
# 'pip check' then holds that nothing is missing.
$(PINNED): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Ring needs Python 3.11 or newer, and '$(PYTHON)' is not: name one, as in 'make PYTHON=python3.12 demo'" >&2; \
		exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version) (once; about a minute)" >&2
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

$(PEERS)/.made: requirements/bench.txt
	@$(PYTHON) -m venv --clear $(PEERS)
	@$(PEERS)/bin/pip install --quiet --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

$(MADE): $(PINNED) pyproject.toml
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/pip check >&2 || { echo "requirements/dev.txt lacks what is named above: 'make requirements'" >&2; exit 1; }
	@touch $@

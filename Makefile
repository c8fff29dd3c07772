.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Lock files are complete, so pip resolves nothing.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --no-deps

.PHONY: help install demo test simulate bench check format lock audit changelog clean

help: ## show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## make .venv with the `archiver` command: what runs, from the versions pinned in requirements.lock

$(VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 install"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# Python 3.11 puts setuptools into a new environment; nothing here uses it
	@$(BIN)/python -m pip --quiet --disable-pip-version-check uninstall --yes setuptools 2>/dev/null || true
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --require-hashes --target $(VENV)/build -r requirements-build.lock
	PYTHONPATH=$(VENV)/build $(PIP) --no-build-isolation -e .
	@rm -rf $(VENV)/build
	@touch $@

# The tools of tests and checks, on top.
$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock tests/azurite/package-lock.json
	$(PIP) --require-hashes -r requirements-dev.lock
	$(BIN)/python -m tests.azurite.install
	@touch $@

demo: install ## archive one simulated asset of every type into ./archive-demo, and show it
	$(BIN)/archiver demo

test: $(VENV)/.installed-dev ## every test
	$(BIN)/pytest

simulate: $(VENV)/.installed-dev ## the whole system in virtual time, seed by seed: SEEDS=1000, PLANTED=yes plants bugs (docs/simulation.md)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100) --start $(or $(START),1) $(if $(PLANTED),--planted)

bench: $(VENV)/.installed-dev .venv-bench/.installed ## our engine against rclone, obstore, s5cmd, boto3 and others: JOBS=A,C SETTINGS=life TLS=both
	$(BIN)/python -m benchmarks --jobs $(or $(JOBS),A1,A,B,C,D,E) --settings $(or $(SETTINGS),raw,life) --tls $(or $(TLS),no) $(BENCH)
	$(BIN)/python -m benchmarks.sweep
	.venv-bench/bin/python -m benchmarks.chart $$(ls -t benchmarks/results/*.json | head -1) benchmarks/results/latest.svg

.venv-bench/.installed: benchmarks/requirements.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	@touch $@

check: $(VENV)/.installed-dev ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## put the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: $(VENV)/.installed-dev ## look up known vulnerabilities of the locked versions; write an SBOM (needs the network; not part of CI)
	.ci/audit

changelog: $(VENV)/.installed-dev ## print what the fragments in changelog.d amount to
	$(BIN)/towncrier build --draft

LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --quiet
lock: ## renew the lock files from pyproject.toml (needs uv)
	$(LOCK) --upgrade pyproject.toml --group dev -o requirements-dev.lock
	$(LOCK) --constraints requirements-dev.lock pyproject.toml -o requirements.lock
	$(LOCK) --constraints requirements-dev.lock --group build -o requirements-build.lock
	$(LOCK) --upgrade benchmarks/requirements.in -o benchmarks/requirements.lock

clean: ## remove what install and the tests made
	rm -rf $(VENV) .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# `make demo` and `make test` need only Python 3.11 and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-oracles lint benchmarks clean

demo: $(VENV)/.installed
	$(BIN)/tauflow study flip-flop

test: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q $(PARALLEL)
	TAUFLOW_TEST_X64=0 $(BIN)/python -m pytest -q $(PARALLEL) -m "x64off and not slow" $$(grep -l x64off tests/test_*.py)

test-slow: $(VENV)/.test-installed
	$(BIN)/python -m pytest -q -m slow

test-oracles: $(VENV)/.oracles-installed
	$(BIN)/python -m pytest -q tests_oracles

lint: $(VENV)/.test-installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

benchmarks: $(VENV)/.oracles-installed
	$(BIN)/python -m benchmarks.kernel
	$(BIN)/python -m benchmarks.ensemble
	$(BIN)/python -m benchmarks.filters
	$(BIN)/python -m benchmarks.fit --score

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"tauflow needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}; name another one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable ".[data]"
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/.oracles-installed: $(VENV)/.test-installed
	$(PIP) --editable ".[test,torch]"
	touch $@

clean:
	rm -rf $(VENV)

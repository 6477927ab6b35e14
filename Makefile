# The commands of the README. Each target sets up all it needs; the second time is quick.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup demo test lint chaos test-containers clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "stepstream needs Python 3.11 or newer; none was found on PATH (or say make PYTHON=/path/to/python)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m stepstream.demo

# Two at a time: most of the time goes by waiting. Each has engines of its own, so more need more memory than they save time.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: setup
	$(BIN)/python -m pytest -m long
	$(BIN)/python -m tests.chaos

test-containers: setup
	$(BIN)/python -m pytest -m containers --containers

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache

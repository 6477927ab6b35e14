# The commands of the README. Each target sets up all it needs; the second time is quick.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# Tests start hundreds of processes. Where PYTHONDONTWRITEBYTECODE is set each would compile the project
# anew, and pytest would rewrite each test file: 3.8 s for those of stream/ where 2.1 s are enough.
COMPILED_ONCE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.venv/compiled

.PHONY: setup demo unit test lint chaos test-containers test-clients test-frameworks test-web test-console dist-typescript clean

# A venv of a Python that is too old, or of another one than the one asked for, is made anew.
setup:
	@test -n "$(PYTHON)" || { echo "stepstream needs Python 3.11 or newer; none was found on PATH (or say make PYTHON=/path/to/python)"; exit 1; }
	@$(PYTHON) -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { echo "stepstream needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1 || echo not there): say make PYTHON=/path/to/python3.11"; exit 1; }
	@test ! -d .venv || $(BIN)/python -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { echo "making .venv anew: its Python is older than 3.11, or gone"; rm -rf .venv; }
ifneq ($(origin PYTHON),file)
	@test ! -d .venv || test "$$($(BIN)/python -V)" = "$$($(PYTHON) -V)" || { echo "making .venv anew with $$($(PYTHON) -V)"; rm -rf .venv; }
endif
	@$(MAKE) --no-print-directory .venv/.ready PYTHON="$(PYTHON)"
	@$(BIN)/python web_build/bundle.py --if-possible
	@$(BIN)/python web_build/typescript.py --install-if-possible

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

# Four at a time on two cores, because half of the time goes by waiting: 690 s where three take 830 s. Each has
# engines of its own (about 1 GB).
# In the order of the folders, so that the files with engines, which take longest, come first; by default
# pytest-xdist starts with the files of most tests, and in the end one process is waited for.
test: setup
	$(COMPILED_ONCE) $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# The tests that need no engine: what to run while you work.
unit: setup
	$(COMPILED_ONCE) $(BIN)/python -m pytest tests/unit -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: setup
	$(BIN)/python -m pytest -m long
	$(BIN)/python -m tests.chaos

test-containers: setup
	$(BIN)/python -m pytest -m containers --containers

# Frameworks and large client packages, on top of .venv in an environment of their own, because their
# requirements exclude some versions of .venv's packages. Nothing is installed into .venv.
.venv/frameworks/.ready: .venv/.ready tests/frameworks/requirements.txt
	rm -rf .venv/frameworks
	$(BIN)/python -m venv .venv/frameworks
	.venv/frameworks/bin/python tests/frameworks/on_top.py "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	.venv/frameworks/bin/python -m pip install --quiet --disable-pip-version-check -r tests/frameworks/requirements.txt
	@touch $@

# The streams of client packages that are too large for every test run.
test-clients: setup
	@$(MAKE) --no-print-directory .venv/frameworks/.ready
	.venv/frameworks/bin/python -m pytest tests/unit/producers/test_clients.py tests/unit/producers/instruments

# Real frameworks with offline models, and Node, whose packages npm installs.
test-frameworks: setup
	@$(MAKE) --no-print-directory .venv/frameworks/.ready
	.venv/frameworks/bin/python -m pytest tests/unit/producers/instruments
	.venv/frameworks/bin/python -m pytest tests/frameworks -m frameworks

# The console's front end without a browser: types, style and pure functions.
test-web: setup
	$(BIN)/python -m pytest tests/unit/console/test_web.py

# The console's pages in Chromium (apt-get install chromium); skipped with the reason without it.
test-console: setup
	$(BIN)/python -m pytest tests/console -m console -rs

# The TypeScript SDK as npm publish takes it: dist/stepstream-VERSION.tgz.
dist-typescript: setup
	$(BIN)/python web_build/typescript.py

clean:
	rm -rf .venv clients/typescript/node_modules clients/typescript/dist console/static console/web/node_modules build dist .mypy_cache .pytest_cache .ruff_cache

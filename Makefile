# `make` lists what there is. Needed: Python 3.11 or newer, git and make; everything else is installed
# into .venv, again only when a lock or pyproject.toml has changed.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
COMPILE := $(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

# The tests start the bot and its helpers many hundred times: what is compiled is kept, whatever the
# environment says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo run check lint types quick test agents verify bench screenshots fmt lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/runtime ## Slack and GitHub on loopback, and the bot between them, in your browser (AGENT=claude)
	@scripts/bubblewrap.sh needed
	@$(BIN)/sandpiper demo $(if $(AGENT),--agent $(AGENT))

run: $(VENV)/runtime ## the bot itself, with the settings in .env
	@$(BIN)/sandpiper serve

check: $(VENV)/dev ## format, lint, types and the quick tests: a minute, before every commit
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint types quick

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/dev
	$(BIN)/mypy

QUICK := tests/test_architecture.py tests/unit

quick: $(VENV)/dev
	$(BIN)/pytest -q $(QUICK)

# Three more at once than there are processors, for tests wait two thirds of their time: for programs, for the
# disk, and for time that is real.
test: $(VENV)/dev ## every test (ARGS= is passed on to pytest, CHECKED=1 leaves out those of make check)
	@scripts/bubblewrap.sh wanted
	$(BIN)/pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 3)) --dist loadfile --no-loadscope-reorder \
		$(if $(CHECKED),$(QUICK:%=--ignore=%)) $(ARGS)

agents: $(VENV)/dev ## install the real agents that the tests drive, by npm, outside of the checkout
	@$(BIN)/python -m tests.agents.install

verify: agents ## everything that can be asked of the real agents and their codecs (some minutes; needs npm)
	SANDPIPER_TEST_AGENTS=all SANDPIPER_TEST_EXAMPLES=10000 SANDPIPER_VERIFIED=docs/agents-verified.json \
		$(BIN)/pytest -q -m "live or streams" --numprocesses auto $(ARGS)
	@$(BIN)/python -m tests.agents.document

bench: $(VENV)/dev ## what the bot adds to a bare server, store and sandbox, as ratios
	@$(BIN)/python -m tests.bench

screenshots: $(VENV)/dev ## take the pictures of docs/images from the demo, in Chromium
	SANDPIPER_SCREENSHOTS=docs/images $(BIN)/pytest -q tests/e2e/test_demo_browser.py

fmt: $(VENV)/dev ## format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: | $(BIN)/python ## write the locks from pyproject.toml (UPGRADE=1: with the newest releases)
	@$(PIP) uv
	$(COMPILE) --output-file requirements.lock --group pyproject.toml:build pyproject.toml
	$(COMPILE) --constraint requirements.lock --output-file requirements-dev.lock --group pyproject.toml:dev

clean: ## remove .venv and all caches; never data/ or .env
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@scripts/venv.sh $(VENV)

# Both files are only stamps: when the libraries were installed last.
$(VENV)/runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the libraries into $(VENV) (about a minute the first time)"
	@$(PIP) --no-deps --requirement requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/runtime
	@echo "Installing the development tools into $(VENV)"
	@$(PIP) --no-deps --requirement requirements-dev.lock
	@touch $@

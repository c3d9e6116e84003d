# Every target sets up what it needs; a machine with Python 3.11 or later and make is enough.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
STAMP_RUN := $(VENV)/.installed
STAMP_DEV := $(VENV)/.installed-dev
STAMP_DOCS := $(VENV)/.installed-docs

.PHONY: demo test test-all test-complete lint docs bench clean help
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train, search and export on the digits data; the figures end up in runs/digits/summary.json'
	@echo 'make test    the tests but those that are slow or start Ray (PYTEST_ARGS="-k name" narrows it)'
	@echo 'make test-all  these too; how long each took is left in .cache/tests.xml'
	@echo 'make test-complete  every case: also those that tests/complete_tests.csv leaves out of test-all, and says why'
	@echo 'make lint    ruff and pyright over sources and tests'
	@echo 'make docs    the documentation as a site, in site/; a broken link fails'
	@echo 'make bench   the benchmarks, one JSON object each'
	@echo 'make clean   remove environments, caches, builds and runs of the demo'

demo: $(STAMP_RUN)
	$(BIN)/supernest run experiments/demo.yaml --out runs/digits
	@echo
	@echo 'Three networks of three sizes are in runs/digits/subnets. Next:'
	@echo '  open runs/digits/report.html in a browser: what each size costs and is worth'
	@echo '  $(BIN)/supernest export runs/digits --budget "macs<=25%"          # a size between, at once'
	@echo '  $(BIN)/supernest evaluate runs/digits/subnets/small --data experiments/demo.yaml'
	@echo '  $(BIN)/supernest init my.yaml --data folder=photos                # your own pictures'
	@echo '  docs/first_steps.md                                              # what happened, and how to go on'

# A file's tests stay in one process, so that what they share is made once.
test: $(STAMP_DEV)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not ray" --junitxml=.cache/tests_fast.xml $(PYTEST_ARGS)
	@echo 'Those that are slow or start Ray were left out: make test-all runs these too.'

# As above; one process more, as those of Ray mostly wait.
test-all: $(STAMP_DEV)
	$(BIN)/python -m pytest -n $$(($(WORKERS) + 1)) --dist loadfile --no-loadscope-reorder --junitxml=.cache/tests.xml $(PYTEST_ARGS)

# Hours on two cores.
test-complete:
	SUPERNEST_COMPLETE=1 SUPERNEST_PARITY=all SUPERNEST_KILLS=20 SUPERNEST_FORMS=all $(MAKE) test-all

lint: $(STAMP_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(STAMP_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP_RUN)
	$(BIN)/python -m experiments.benchmarks.cost_model --json
	$(BIN)/python -m experiments.benchmarks.step_time --family vit --architectures 200 --json
	$(BIN)/python -m experiments.benchmarks.step_time --family mobilenet --architectures 200 --json

clean:
	rm -rf $(VENV) build dist site .cache .pytest_cache .ruff_cache .hypothesis runs/digits *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is missing or older than Python 3.11. Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }

$(STAMP_RUN): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(STAMP_DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(STAMP_RUN)

$(STAMP_DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# make demo                  the whole job on made-up patches
# make demo DATA=FOLDER      the same on Kaggle's folder
# make test                  linters, types and tests
# make test-quick            those of the folders without TensorFlow
# make test-long             tests that take minutes each
# make test-beam             tests of Apache Beam and of buckets
# make docs                  the pages of docs/, into build/docs
# make peers                 an environment for tools/compare_peers.py
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev
BEAM := .venv-beam
PEERS := .venv-peers
INSTALLED := $(VENV)/.installed
# Bytecode is kept, wherever this is set: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-quick test-long browser test-beam docs peers clean

demo: $(INSTALLED)
	@$(BIN)/python tools/demo.py --data='$(DATA)'

test: $(INSTALLED) browser docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

# The folders that do without TensorFlow.
QUICK := system images records runs sources conversion synthetic audit doctor report

test-quick: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal $(QUICK:%=tests/%) \
	  -m "not tensorflow and not long and not beam"

test-long: $(INSTALLED) browser
	$(BIN)/python -m pytest -n auto --dist worksteal -m "long and not beam"

# What tests of the report look at it with, where it can be had: they are skipped
# without it.
browser: $(INSTALLED)
	@command -v chromium > /dev/null || test ! -w /usr/bin || \
	  ! command -v apt-get > /dev/null || \
	  { apt-get update -qq && apt-get install -qq -y chromium; } > /dev/null || \
	  echo "no chromium" >&2
	@test -d $(VENV)/node/node_modules/axe-core || ! command -v npm > /dev/null || \
	  npm install --silent --no-audit --no-fund --prefix $(VENV)/node axe-core@4 || \
	  echo "no axe-core" >&2

# Every warning is an error: a link or an anchor that leads nowhere, a picture that is
# missing. Nothing is asked of the network.
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -q -E -b html docs build/docs

# Beam's requirements are not TensorFlow's newest: an environment of its own.
test-beam:
	$(MAKE) $(BEAM)/.installed VENV=$(BEAM) EXTRAS=beam,remote,dev,dev-remote
	$(BEAM)/bin/python -m pytest -n auto --dist worksteal -m beam

peers:
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	$(PEERS)/bin/python -m pip freeze --exclude-editable > $(PEERS)/constraints.txt
	@grep -v '^#' tools/peers_requirements.txt | while read -r line; do \
	  echo "installing $$line"; \
	  $(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --constraint $(PEERS)/constraints.txt $$line || echo "failed: $$line"; \
	done

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
	  { echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) $(BEAM) $(PEERS) demo build *.egg-info

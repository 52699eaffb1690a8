# Each target does all its own set-up: what it needs from Debian (each install line is shown before it runs), then .venv.
# A fresh Debian 12 with git, make and python3 is enough; as root, because networks are made for real.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
IN := .venv/bin
PIP := $(IN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help venv demo check test test-engines test-ovs bench clean lab beside root

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

venv: .venv/.made ## .venv with weft in it: .venv/bin/weft

.venv/.made: pyproject.toml constraints.txt
	@bash tests/lab/install.sh venv
	@$(IN)/python -m pip --version >/dev/null 2>&1 || { set -x; $(PYTHON) -m venv --clear .venv; }
	$(PIP) install 'pip>=25.1' # which knows --group
	$(PIP) install --constraint constraints.txt --editable . --group dev
	@touch $@

demo: venv lab ## a Docker Engine, two containers that talk over weft, and what they survive
	@$(IN)/python -m tests.lab.demo

check: venv ## lint, format, types, and who may import whom
	$(IN)/ruff check
	$(IN)/ruff format --check
	$(IN)/mypy
	$(IN)/lint-imports

test: venv lab beside ## every test up to a real dockerd 20.10.24
	$(IN)/python -m pytest -m 'not engine28 and not ovs'

test-engines: venv lab beside root ## the engine tests on Docker 28.5.2
	$(IN)/python -m pytest -m engine28

test-ovs: venv lab beside ## what speaks with Open vSwitch, on a real one
	$(IN)/python -m pytest -m ovs tests/drivers

bench: venv lab ## figures, beside Docker's own drivers: docs/performance.md
	$(IN)/python -m bench.attach --write
	$(IN)/python -m bench.ports --write
	$(IN)/python -m bench.ipam --write

clean: ## remove what the other targets made here
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# the engine and the tools of the tests' own nodes
lab:
	@[ "$$(id -u)" = 0 ] || { echo 'networks are made for real here: run this as root'; exit 1; }
	@bash tests/lab/install.sh lab

# what weft is tried beside, and what it is looked at with
beside:
	@bash tests/lab/install.sh beside

# a folder with another engine in it, once per machine
root: venv
	@bash tests/lab/install.sh root
	@$(IN)/python -m tests.lab.root

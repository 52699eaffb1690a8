# Each target does all its own set-up: what it needs from Debian (each install line is shown before it runs), then .venv.
# A fresh Debian 12 with git, make and python3 is enough; as root, because networks are made for real.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
IN := .venv/bin
PIP := $(IN)/python -m pip --disable-pip-version-check --quiet

# a file's tests stay together, for they share a host; tests with an engine wait for it most of the time
JOBS ?= 4
# of a long suite, those tests whose names have this in it, as pytest -k has it
ONLY ?= test
PYTEST := $(IN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 10

# the managed plugin
DOCKER ?= docker
BASE_IMAGE ?= debian:bookworm-slim
NAME ?= weft
TAG ?= latest
ROOTFS := build/plugin

.PHONY: help venv demo demo-multihost check test test-matrix test-engines test-firewalls test-ovs test-hosts test-swarm test-plugin test-vm test-faults bench clean lab beside root plugin plugin-push plugin-rootfs zipapp

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

venv: .venv/.made ## .venv with weft in it: .venv/bin/weft

.venv/.made: pyproject.toml constraints.txt
	@bash tests/lab/install.sh venv
	@$(IN)/python -m pip --version >/dev/null 2>&1 || { set -x; $(PYTHON) -m venv --clear .venv; }
	$(PIP) install 'pip>=25.1' # which knows --group
	$(PIP) install --constraint constraints.txt --editable . --group dev
	@touch $@

demo: venv lab ## a Docker Engine, two containers that talk over weft, and what they survive
	@$(IN)/python -m tests.lab.demo

demo-multihost: venv lab beside ## two hosts, a network over GRE on Open vSwitch, another one over VXLAN, and who talks
	@$(IN)/python -m tests.lab.demo_multihost

check: venv ## lint, format, types, and who may import whom
	$(IN)/ruff check
	$(IN)/ruff format --check
	$(IN)/mypy
	$(IN)/lint-imports

test: venv lab beside ## every test up to a real dockerd 20.10.24
	$(PYTEST) -m 'not matrix and not engine28 and not firewalls and not ovs and not plugin and not hosts and not faults and not vm'

test-matrix: venv lab ## who reaches whom, cell by cell, on a Linux bridge (make test-ovs has the other backend)
	$(PYTEST) -m 'matrix and not ovs'

ENGINES ?= 20 28
test-engines: venv lab beside root ## the engine tests on Docker 20.10.24 and 28.5.2 (or on one: ENGINES=28)
	$(PYTEST) -m '(engine or engine28) and not firewalls and not ovs and not plugin and not hosts and not faults and not vm $(if $(filter 20,$(ENGINES)),,and engine28) $(if $(filter 28,$(ENGINES)),,and not engine28)'

test-firewalls: venv lab beside root ## weft and Docker beside firewalld, ufw and whoever flushes rules, on both engines
	$(PYTEST) -m firewalls

test-hosts: venv lab beside ## three hosts with an engine, Open vSwitch and weft each, and networks over all of them
	$(PYTEST) -m 'hosts and not swarm'

test-swarm: venv lab root ## a swarm of three nodes that come and go, on both engines: twenty minutes (ENGINES=20 ONLY='meet or late')
	@bash tests/lab/install.sh plugin
	@$(IN)/python -m tests.lab.base
	$(IN)/python -m pytest -k '$(ONLY)' -m 'swarm $(if $(filter 20,$(ENGINES)),,and engine28) $(if $(filter 28,$(ENGINES)),,and not engine28)'

test-plugin: venv lab root ## the managed plugin: built, pushed, installed, upgraded, removed, on both engines
	@bash tests/lab/install.sh plugin
	@$(IN)/python -m tests.lab.base
	$(PYTEST) -m plugin

test-vm: venv lab ## two hosts with a stock Debian kernel, in virtual machines: by hand, when a data path changes
	@bash tests/lab/install.sh vm
	@$(IN)/python -m tests.lab.vm_image
	VM_PAGE=1 $(IN)/python -m pytest --durations 10 -m vm tests/vm/test_vm.py tests/vm/test_swarm.py

test-ovs: venv lab beside ## what speaks with Open vSwitch, on a real one
	$(PYTEST) -m 'ovs and not faults and not hosts'

EVERY ?= 1
# tests of one file are apart here: each has a host of its own
test-faults: venv lab beside root ## faults at every point there is: points injected, states compared, leaks found (EVERY=4: at one in four)
	FAULTS_EVERY=$(EVERY) $(PYTEST) --dist load -m faults -k '$(ONLY)'

bench: venv lab beside ## figures, beside Docker's own drivers: docs/performance.md
	$(IN)/python -m bench.attach --write
	$(IN)/python -m bench.ports --write
	$(IN)/python -m bench.ipam --write
	$(IN)/python -m bench.healing --write
	$(IN)/python -m bench.ovs --write
	@bash tests/lab/install.sh plugin
	$(IN)/python -m bench.plugin --write

plugin: plugin-rootfs ## the managed plugin, in the local Docker Engine: then `docker plugin enable weft`
	@$(call create,$(NAME):$(TAG))
	@echo 'next: $(DOCKER) plugin enable $(NAME):$(TAG)'

plugin-push: plugin-rootfs ## the managed plugin, in a registry: REGISTRY=registry.example:5000 (and TAG=)
	@[ -n "$(REGISTRY)" ] || { echo 'which registry? make plugin-push REGISTRY=registry.example:5000'; exit 2; }
	@$(call create,$(REGISTRY)/$(NAME):$(TAG))
	$(DOCKER) plugin push $(REGISTRY)/$(NAME):$(TAG)
	$(DOCKER) plugin rm $(REGISTRY)/$(NAME):$(TAG)

# Docker wants a folder with rootfs and config.json in it
plugin-rootfs:
	rm -rf $(ROOTFS)
	mkdir -p $(ROOTFS)/rootfs
	$(DOCKER) build --build-arg BASE_IMAGE=$(BASE_IMAGE) --tag $(NAME)-rootfs .
	container=$$($(DOCKER) create $(NAME)-rootfs true); \
	$(DOCKER) export $$container | tar -x -C $(ROOTFS)/rootfs; \
	$(DOCKER) rm $$container >/dev/null
	cp plugin.json $(ROOTFS)/config.json

# an engine refuses a second plugin with the very same rootfs under another name: so the name is in it
create = set -x; echo $(1) >$(ROOTFS)/rootfs/opt/weft/plugin-name; $(DOCKER) plugin create $(1) $(ROOTFS)

ZIPAPP ?= dist/weft.pyz
zipapp: venv ## the command in one file, for hosts with the managed plugin: dist/weft.pyz
	folder=$$(mktemp -d); trap "rm -rf $$folder" EXIT; set -x; \
	cp -r plugin drivers LICENSE $$folder/; \
	$(PIP) install --no-compile --constraint constraints.txt --target $$folder $$($(IN)/python -c "$$COMMAND_NEEDS"); \
	find $$folder -name __pycache__ -prune -exec rm -rf {} +; \
	mkdir -p $(dir $(ZIPAPP)); \
	$(IN)/python -m zipapp --compress --python '/usr/bin/env python3' --main plugin.cli.main:run --output $(ZIPAPP) $$folder

# all that weft needs but what only the server does; nothing of it may be compiled, for one file serves every host
define COMMAND_NEEDS
import tomllib
needs = tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"]
print(*(one for one in needs if one.partition("==")[0] not in {"flask", "gunicorn", "pydantic", "typing-extensions"}))
endef
export COMMAND_NEEDS

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

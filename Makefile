# asd-edge: every command a newcomer needs. `make demo` shows it at work; `make test` proves it.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell n=$$(nproc); echo $$(( (n < 4 ? n : 4) + 1 )))   # processes of the tests: one more than cores, since many wait for sound
ARCH ?= $(shell dpkg --print-architecture)
DEBIAN_PYTHON ?= 3.11               # of the Debian that it is for: 3.11 in bookworm, 3.13 in trixie
RUN ?=                              # of `make bundle`: a trained run; unset: one is trained …
DATA ?=                             # … and the recordings of its machines; unset: the small simulated set
HNSW ?= auto                        # whether a bank has a graph: auto, where it is large enough; always
BIN := $(VENV)/bin
export HNSWLIB_NO_NATIVE = 1        # a wheel built for this processor alone would crash on another
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo demo-web docs screenshots test test-oldest test-newest lint bench deb dist audit soak bundle clean

demo: $(VENV)/.edge                 ## a simulated fan that begins to fail, seen by an MQTT subscriber
	@deploy/system-packages.sh broker
	@$(BIN)/python deploy/demo.py

demo-web: $(VENV)/.edge            ## the page for people, with simulated machines that fail and are repaired, until Ctrl-C
	@$(BIN)/python deploy/demo_web.py

screenshots: $(VENV)/.all           ## the pictures of the README, anew
	@deploy/system-packages.sh browser
	PYTHONPATH=tests $(BIN)/python -m rig.screenshots docs/pictures

test: $(VENV)/.all                  ## everything; ends with pytest's summary line
	@deploy/system-packages.sh broker nats network microphone units browser fleet
	$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint test-oldest test-newest
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

test-oldest:                        ## the edge with the oldest versions that pyproject.toml allows, in an environment of its own
	deploy/edge-tests.sh oldest $(PYTHON)

test-newest:                        ## the edge with the newest Python that is here, in an environment of its own
	deploy/edge-tests.sh newest $(PYTHON)

lint: $(VENV)/.all                  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.all                  ## the documentation as a site in build/site, without a link that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

bench: $(VENV)/.bench               ## the tables of figures, measured on this machine (the first time it trains networks of edge size: minutes)
	@deploy/system-packages.sh microphone
	PYTHONPATH=tests $(BIN)/python benchmarks/edge.py --write benchmarks/results.md

deb: $(VENV)/.all                   ## a Debian package of the edge: dist/asd-edge_….deb (ARCH=arm64 DEBIAN_PYTHON=3.13 for others)
	$(BIN)/python deploy/debian/build.py --arch $(ARCH) --python $(DEBIAN_PYTHON)

dist: $(VENV)/.all             ## wheel, source distribution and bill of materials in dist/, checked, installed and run in an environment of their own
	$(BIN)/python deploy/release/distributions.py

audit: $(VENV)/.all            ## what is known against the libraries that an edge box gets, asked of the package index
	$(BIN)/python deploy/release/audit.py

soak: $(VENV)/.all                  ## the long proofs: microphone, a day and a week of sound, small boards, arm64, alerts, brokers, clusters of them, configurations, rollouts, the page, systemd, packages, the image; about three hours
	@deploy/system-packages.sh broker nats rabbitmq network microphone box arm64 image fleet series
	for proof in microphone day week small_board arm64 alerts brokers cluster configuration rollout home_assistant page units package image retention ray_cluster object_store; do \
		OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m soak.$$proof || exit 1; done

bundle: $(VENV)/.all                ## the bundle that comes with the package, made anew (an hour and a half; RUN=runs/x DATA=recordings HNSW=always: of a run that there is)
	[ -n "$(DATA)" ] || $(BIN)/asd-train simulate build/default/data --small
	[ -n "$(RUN)" ] || $(BIN)/asd-train simulate build/default/units --sections 24 --source-train 20 --target-train 5 --test 0 --supplemental 8 --supplement both --seed 1
	[ -n "$(RUN)" ] || $(BIN)/asd-train simulate build/default/full
	[ -n "$(RUN)" ] || $(BIN)/asd-train run default --data build/default/units --data build/default/full --out build/default/run
	$(BIN)/asd-export $(or $(RUN),build/default/run) daemon/asd_daemon/bundles/default --data $(or $(DATA),build/default/data) --name asd-edge-default \
		--score views --no-twin --hnsw $(HNSW) --bundle-version 0.5.0 --licence "Apache-2.0; trained on simulated sound only"
	@du --bytes --summarize daemon/asd_daemon/bundles/default

clean:                              ## the virtual environment and everything built
	rm -rf $(VENV) build dist

$(VENV)/bin/python:
	deploy/system-packages.sh python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.edge: $(VENV)/bin/python pyproject.toml constraints.txt
	@deploy/system-packages.sh sound
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[web,notify]'
	@touch $@

$(VENV)/.all: $(VENV)/.edge
	@deploy/system-packages.sh compiler
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,export,test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.all
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

# Every command of the project; `make help` lists them. Each makes what it needs and does nothing twice.
#
#   PYTHON=...  the interpreter .venv is made from (default: the first python3 >= 3.11)
#   ARGS=...    passed on by run, test-python, coverage and bench: make run ARGS=--once
#   WORKERS=...  processes that share the Python tests (default 3: tests wait more than they compute; 0: none)
#   STRICT=1    a test that would be skipped for want of a tool fails instead
#   CI=true     Cargo.lock must be up to date

SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run soak fuzz test test-rust test-python coverage bench lint fmt proto docs constraints build build-all clean

WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CARGO_LOCKED := $(if $(CI),--locked)
EXTENSION := python/telemetry_broker/_core.abi3.so
# What the extension is made of; a folder counts too, so that a deleted file is noticed.
RUST_SOURCES := $(shell find broker_core/src -name '*.rs' -o -type d 2>/dev/null) \
    $(wildcard broker_core/build.rs) broker_core/Cargo.toml Cargo.toml $(wildcard Cargo.lock)

help: ## show this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

run: build ## stream the sample dump end to end and answer over REST: make run ARGS=--once
	@$(BIN)/telemetry up $(ARGS)

test: test-rust test-python ## run every test; the ten slowest are listed at the end

test-rust: $(VENV)/.made ## run the tests of the core alone
	cargo test --quiet $(CARGO_LOCKED) --package broker_core --features grpc

test-python: build ## run the Python tests alone: make test-python ARGS="-k lease"
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

coverage: build ## run the Python tests and fail below 85 % coverage; the pages go to htmlcov/
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage html --quiet --fail-under=0
	$(BIN)/coverage report

bench: build ## measure throughput and print it with durability and machine
	@$(PIP) install --constraint constraints.txt --group bench
	$(BIN)/python benchmarks/run.py $(ARGS)

lint: build ## check formatting, lints, types, protos and scripts
	cargo fmt --all --check
	cargo clippy --quiet $(CARGO_LOCKED) --workspace --all-targets -- -D warnings
	cargo clippy --quiet $(CARGO_LOCKED) --workspace --all-targets --features broker_core/python -- -D warnings
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --quiet --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest telemetry_broker._core --mypy-config-file pyproject.toml \
	    --allowlist scripts/stubtest-allowlist.txt
	$(BIN)/buf lint protos
	$(BIN)/shellcheck .ci/run scripts/*.sh examples/go/*.sh

fmt: $(VENV)/.packages ## format Rust, Python and protos
	cargo fmt --all
	$(BIN)/ruff check --quiet --fix-only
	$(BIN)/ruff format --quiet
	$(BIN)/buf format --write protos

proto: $(VENV)/.packages ## regenerate the Python and Rust code of protos/
	$(BIN)/python scripts/generate_protos.py

docs: build ## write the tables of docs/configuration.md anew from the settings
	$(BIN)/python scripts/generate_configuration.py

constraints: $(VENV)/.packages ## pin the newest packages that fit into constraints.txt
	scripts/update_constraints.sh

build: $(EXTENSION) $(VENV)/.services ## make .venv with the release extension and both distributions

build-all: $(VENV)/.packages ## build the wheels of both distributions into dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist . ./services
	@ls dist

clean: ## remove everything the other targets made (data/ stays)
	rm -rf $(VENV) target dist htmlcov .coverage .coverage.* .hypothesis .pytest_cache .mypy_cache .ruff_cache
	rm -f python/telemetry_broker/_core*.so
	find python services tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what the targets above need ---

$(VENV)/.made:
	@python=$$(scripts/prerequisites.sh) && echo "==> making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.packages: constraints.txt pyproject.toml services/pyproject.toml $(VENV)/.made
	@echo "==> installing the packages pinned in constraints.txt (first time: about 1 minute)"
	@$(PIP) install --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

$(EXTENSION): $(RUST_SOURCES) pyproject.toml $(VENV)/.packages
	@scripts/prerequisites.sh >/dev/null
	@test -e $@ || echo "==> building the release extension (first build: about 2 minutes on 2 cores, later ones seconds)"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 \
	    $(BIN)/maturin develop --release $(CARGO_LOCKED)
	@touch $@

$(VENV)/.services: services/pyproject.toml $(VENV)/.packages | $(EXTENSION)
	@echo "==> installing the services and the \`telemetry\` command"
	@$(PIP) install --constraint constraints.txt --no-build-isolation --editable services
	@touch $@

soak: build ## look for rare faults: make soak SECONDS=600
	@scripts/soak.sh $(or $(SECONDS),60)

fuzz: ## fuzz one decoder (nightly Rust, cargo install cargo-fuzz): make fuzz TARGET=wire SECONDS=60
	cd broker_core/fuzz && cargo +nightly fuzz run --fuzz-dir . $(TARGET) -- -max_total_time=$(or $(SECONDS),60) -max_len=4096

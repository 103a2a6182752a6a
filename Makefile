# SPDX-License-Identifier: GPL-2.0-only
#
#   make demo    set everything up and show the reverse map of this machine
#   make test    all tests, with the compiled core and without
#   make lint    ruff and mypy
#   make soak    millions of random operations against the oracles: make soak SOAK="--steps 10000000"
#   make bench   all benchmarks, or some: make bench BENCH="snapshot invert"
#   make conformance   the model against what real kernels did
#   make dumps   fresh dumps of two kernels against what these say of themselves (needs QEMU)
#   make build   compile the core (again, where its sources changed)
#   make clean   remove all that was built, and the virtual environment
#
# PYTHON=python3.12 makes the virtual environment with that Python.
# PYTEST_ARGS="-m 'not slow'" is handed to pytest.
# CONFORMANCE="--profile 6.1 hand-*" chooses programs and profiles.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH ?=
SOAK ?=
CONFORMANCE ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
TOOLS := $(VENV)/.tools
INSTALLED := $(VENV)/.installed
SAY := @printf '== %s\n'

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.PHONY: demo test lint bench conformance dumps build clean

# What pyproject.toml names as needed for building, into a fresh virtual environment.
REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])
RECENT := import sys; sys.exit(sys.version_info < (3, 11))

$(TOOLS): pyproject.toml
	@$(PYTHON) -c '$(RECENT)' || { echo "rmap needs Python 3.11 or later; $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1): name another, make PYTHON=..." >&2; exit 1; }
	$(SAY) 'virtual environment $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade $$($(PY) -c '$(REQUIRES)')
	@touch $@

# Always run: it compares contents, takes a moment when nothing changed, and so is never fooled.
build: $(TOOLS)
	@$(PY) setup.py --quiet build_ext --inplace

$(INSTALLED): pyproject.toml $(TOOLS) | build
	$(SAY) 'installing rmap and what it needs into $(VENV)'
	@$(PIP) install --no-build-isolation --editable '.[test,lint]'
	@touch $@

MODE := import rmap; print("== tests,", rmap.version_line())

test: $(INSTALLED)
	@RMAP_PURE= $(PY) -c '$(MODE)'
	@RMAP_PURE= $(PY) -m pytest $(PYTEST_ARGS)
	@RMAP_PURE=1 $(PY) -c '$(MODE)'
	@RMAP_PURE=1 $(PY) -m pytest $(PYTEST_ARGS)

soak: $(INSTALLED)
	@RMAP_PURE= $(PY) -c 'import rmap; print("== soak,", rmap.version_line())'
	@RMAP_PURE= $(PY) -m tests.model.soak $(SOAK)

lint: $(INSTALLED)
	$(SAY) 'ruff'
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	$(SAY) 'mypy'
	@$(PY) -m mypy

bench: $(INSTALLED)
	@$(PY) -m benchmarks $(BENCH)

conformance: $(INSTALLED)
	@$(PY) -m tools.conformance $(CONFORMANCE)

dumps: $(INSTALLED)
	@PYTHON=$(PY) .ci/dumps

demo: $(INSTALLED)
	@RMAP=$(VENV)/bin/rmap tools/demo.sh

clean:
	rm -rf $(VENV) build dist demo bench-results src/*.egg-info src/rmap/_build_info.json
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks tools lab -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete

# The same commands for people and for CI. `make install` needs Python 3.11 or newer and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLD := .venv-transformers4
STAMP := $(VENV)/.installed
# What tests share, and the benchmarks, are typed as strictly as the product.
TYPED := $(wildcard tests/*.py benchmarks/*.py benchmarks/parity/*.py) tests/acceptance/cli.py tests/integration/harness.py tests/tasks/conformance.py

.PHONY: install demo test check format docs bench parity clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/nightshift demo

test: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(TYPED)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m jobs.pages

bench: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks

parity: install $(OLD)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.parity $(OLD)/bin/python

$(OLD)/.installed: benchmarks/parity/requirements.txt
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf $(VENV) $(OLD) demo-output build dist *.egg-info

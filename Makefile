# The same commands for people and for CI. `make install` needs Python 3.11 or newer and pip, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLD := .venv-transformers4
STAMP := $(VENV)/.installed
# Tests and benchmarks are typed as strictly as the product.
TYPED := $(wildcard tests/*.py tests/*/*.py benchmarks/*.py benchmarks/parity/*.py)

.PHONY: install demo test faults api-check locks deploy-check check format docs bench parity clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/nightshift demo

test: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The whole fault campaign; the random killer once for each seed.
SEEDS ?= 1 2 3
faults: install
	HF_HUB_OFFLINE=1 FAULT_SEEDS="$(SEEDS)" $(BIN)/python -m pytest tests/faults tests/acceptance/test_sharing.py -m "slow or not slow" --timeout 1800

# The API against its OpenAPI document, for up to twenty minutes, and what its page says to type; `make test` has a short
# run of the one and most of the other.
api-check: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/acceptance/test_contract.py tests/acceptance/test_docs.py -m "slow or not slow" --timeout 1800

# The images' lock files, anew from pyproject.toml.
locks: install
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	PATH="$(abspath $(BIN)):$$PATH" deploy/lock.sh

# What the images api and worker-cpu run, in clean virtual environments from their lock files.
deploy-check: install
	$(BIN)/python -m deploy.check

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

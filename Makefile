# The same commands for people and for CI. They need Python 3.11 to 3.14 and pip, nothing else: uv comes from pip, and
# installs exactly what uv.lock says, by hash.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_HOME := .uv
UV := UV_PROJECT_ENVIRONMENT=$(VENV) $(UV_HOME)/bin/uv
OLD := .venv-transformers4
STAMP := $(VENV)/.installed
# A process that ends in the middle of a test ends the run: with another in its place pytest waits for ever.
TESTS := -n 2 --dist loadfile --max-worker-restart 0
# Tests and benchmarks are typed as strictly as the product.
TYPED := $(wildcard tests/*.py tests/*/*.py tests/unit/*/*.py tests/integration/*/*.py benchmarks/*.py benchmarks/parity/*.py) \
  $(wildcard deploy/*.py docs/*.py)

.PHONY: install demo test test-latest test-lowest faults simulate replay attack api-check integrations-check lock locks deploy-check check format docs bench parity clean

install: $(STAMP)

$(UV_HOME)/bin/uv: deploy/locks/uv.txt
	$(PYTHON) -m venv $(UV_HOME)
	$(UV_HOME)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r deploy/locks/uv.txt
	touch $@

$(STAMP): pyproject.toml uv.lock $(UV_HOME)/bin/uv
	$(UV) sync --quiet --locked --compile-bytecode --all-extras --python $(PYTHON)
	touch $@

demo: install
	$(BIN)/nightshift demo

test: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest $(TESTS)

# The tests on the newest packages that pyproject.toml allows, and on the oldest that it names; each in an environment of
# its own, with the newest tools for testing. What other people's packages warn of is reported there, and fails nothing.
# In a variable, since a test runs pytest itself. An exception in a thread of ours is a failure all the same.
REPORTED := -W default -W error::pytest.PytestUnhandledThreadExceptionWarning \
  -W error::pytest.PytestUnraisableExceptionWarning
test-latest: $(UV_HOME)/bin/uv
	$(call suite_with,.venv-latest,highest,--group readers)
test-lowest: $(UV_HOME)/bin/uv
	$(call suite_with,.venv-lowest,lowest-direct)
define suite_with
	$(UV_HOME)/bin/uv venv --quiet --clear --python $(PYTHON) $(1)
	$(UV_HOME)/bin/uv pip compile --quiet --resolution $(2) --all-extras --python $(PYTHON) --no-annotate \
	  pyproject.toml --output-file $(1)/requirements.txt
	$(UV_HOME)/bin/uv pip install --quiet --compile-bytecode --python $(1) --requirements $(1)/requirements.txt --group test --group build $(3) \
	  --editable .
	HF_HUB_OFFLINE=1 PYTEST_ADDOPTS="$(REPORTED)" $(1)/bin/python -m pytest $(TESTS)
endef

# The whole fault campaign; the random killer once for each seed. The scenes below need no processes of their own.
SEEDS ?= 1 2 3
SCENES := tests/acceptance/test_sharing.py tests/acceptance/test_recovery.py tests/acceptance/test_jobs.py \
  tests/acceptance/test_killers.py tests/acceptance/test_outside_task.py \
  tests/integration/state tests/integration/control tests/integration/execution tests/integration/models \
  tests/integration/supervisor tests/integration/webhooks tests/integration/submission tests/integration/storage \
  tests/integration/schedules   tests/unit/storage tests/unit/io
faults: install
	HF_HUB_OFFLINE=1 FAULT_SEEDS="$(SEEDS)" $(BIN)/python -m pytest $(TESTS) tests/faults $(SCENES) -m "slow or not slow" --timeout 1800

# The protocol under 10,000 schedules drawn from seeds, and the bugs that are planted to see that such are found.
simulate: install
	HF_HUB_OFFLINE=1 SIMULATE=10000 $(BIN)/python -m pytest $(TESTS:loadfile=load) tests/simulation -m "slow or not slow" --timeout 1800

# For each task a job without faults and one with ten kills: the checksums of their parts are equal.
replay: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/replay -m "slow or not slow" --timeout 1800

# A hostile tenant against a live deployment, and 10,000 broken inputs for each parser of foreign bytes.
attack: install
	HF_HUB_OFFLINE=1 FUZZ=10000 ATTACK_P95_S=1 $(BIN)/python -m pytest tests/attack -m "slow or not slow" --timeout 1800

# The API against its OpenAPI document, for up to twenty minutes, and what its page says to type; `make test` has a short
# run of the one and most of the other.
api-check: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/acceptance/test_contract.py tests/acceptance/test_docs.py -m "slow or not slow" --timeout 1800

# Airflow and Dagster, each in an environment of its own, run a job of a deployment here: a DAG run with a triggerer, and a
# materialisation. They are in no lock: their pins and ours don't go together for long.
integrations-check: install
	$(UV_HOME)/bin/uv venv --quiet --clear --python $(BIN)/python .venv-airflow
	$(UV_HOME)/bin/uv pip install --quiet --python .venv-airflow 'apache-airflow>=3,<4' --editable .
	$(UV_HOME)/bin/uv venv --quiet --clear --python $(BIN)/python .venv-dagster
	$(UV_HOME)/bin/uv pip install --quiet --python .venv-dagster 'dagster>=1.11,<2' --editable .
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/integrations -m slow --timeout 3600

# uv.lock anew, with the newest versions; then the images' requirements, which are exported from it.
lock: $(UV_HOME)/bin/uv
	$(UV) lock --upgrade
	$(PYTHON) deploy/lock.py "$(abspath $(UV_HOME)/bin/uv)"

# The images' requirements from uv.lock as it is.
locks: $(UV_HOME)/bin/uv
	$(PYTHON) deploy/lock.py "$(abspath $(UV_HOME)/bin/uv)"

# What the images api and worker-cpu run, in clean virtual environments from their requirements.
deploy-check: install
	$(BIN)/python -m deploy.check

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy $(TYPED)
	$(BIN)/deptry .
	$(UV) lock --check --quiet
	$(PYTHON) deploy/lock.py "$(abspath $(UV_HOME)/bin/uv)" --check

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m docs.task_pages

bench: install
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks

parity: install $(OLD)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.parity $(OLD)/bin/python

$(OLD)/.installed: benchmarks/parity/requirements.txt
	$(PYTHON) -m venv $(OLD)
	$(OLD)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:
	rm -rf $(VENV) $(UV_HOME) $(OLD) .venv-latest .venv-lowest .venv-airflow .venv-dagster demo-output build dist *.egg-info

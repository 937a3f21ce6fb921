"""A real DAG run in Airflow's own environment: by `dags test`, and in `airflow standalone`, where it is deferred."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import read_output
from tests.integrations.conftest import clean_environment, environment_of, said_by
from tests.servers import free_ports, running, wait_for

pytestmark = pytest.mark.slow

DAG = """
from datetime import datetime
from airflow.sdk import DAG
from nightshift.integrations.airflow import NightshiftOperator

with DAG("annotate", start_date=datetime(2026, 11, 1), schedule=None, catchup=False):
    NightshiftOperator(task_id="annotate", spec={spec!r}, poll_s=1)
"""


@pytest.fixture
def airflow(url: str, spec: dict[str, Any], tmp_path: Path) -> dict[str, str]:
    """The environment of an Airflow that has the DAG and the connection, and an empty database."""
    home = tmp_path / "airflow"
    (home / "dags").mkdir(parents=True)
    written = json.loads(json.dumps(spec).replace("DAY", "{{ ds }}"))
    (home / "dags" / "annotate.py").write_text(DAG.format(spec=written))
    host, _, port = url.removeprefix("http://").partition(":")
    env = clean_environment(environment_of("airflow")) | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
        "AIRFLOW__API__PORT": str(free_ports(1)[0]),
        "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "10",
        "AIRFLOW_CONN_NIGHTSHIFT_DEFAULT": json.dumps({"conn_type": "nightshift", "host": host, "port": int(port)}),
    }
    env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] = f"http://localhost:{env['AIRFLOW__API__PORT']}/execution/"
    said_by(["airflow", "db", "migrate"], env, tmp_path)
    return env


def test_it_is_a_provider_and_its_dag_runs(airflow: dict[str, str], tmp_path: Path) -> None:
    assert "nightshift-inference" in said_by(["airflow", "providers", "list"], airflow, tmp_path)
    said_by(["airflow", "dags", "test", "annotate", "2026-11-20"], airflow, tmp_path)
    assert len(read_output(f"{tmp_path}/out/2026-11-20")) == 200


def test_a_run_is_deferred_to_the_triggerer(airflow: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "standalone.log"
    with running([str(environment_of("airflow") / "airflow"), "standalone"], airflow, log, tmp_path):
        wait_for("the DAG is known", lambda: "annotate" in listed(airflow, tmp_path, "list"), 300, every_s=5)
        trigger = ["airflow", "dags", "trigger", "annotate", "--logical-date", "2026-11-21T00:00:00+00:00"]
        said_by(trigger, airflow, tmp_path)

        def is_over() -> bool:
            return not {"queued", "running"} & run_states(airflow, tmp_path)

        wait_for("the run has ended", is_over, 600, every_s=5)
        assert run_states(airflow, tmp_path) == {"success"}, log.read_text()[-8000:]
    assert len(read_output(f"{tmp_path}/out/2026-11-21")) == 200
    logs = [file.read_text() for file in (tmp_path / "airflow" / "logs").rglob("*.log*")]
    assert any("DEFERRED" in one for one in logs)


def listed(env: dict[str, str], folder: Path, *what: str) -> str:
    return said_by(["airflow", "dags", *what, "--output", "json"], env, folder)


def run_states(env: dict[str, str], folder: Path) -> set[str]:
    said = listed(env, folder, "list-runs", "annotate")
    return {run["state"] for run in json.loads(said[said.index("[") :])}

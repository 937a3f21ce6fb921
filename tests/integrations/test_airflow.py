"""A real DAG run in Airflow's own environment: by `dags test`, and in `airflow standalone`, where it is deferred."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.harness import read_output
from tests.integrations.conftest import clean_environment, environment_of, said_by
from tests.servers import free_ports, wait_for

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
    with standalone(airflow, log, tmp_path):
        wait_for("the DAG is known", lambda: "annotate" in told(airflow, "select dag_id from dag"), 900, every_s=2)
        trigger = ["airflow", "dags", "trigger", "annotate", "--logical-date", "2026-11-21T00:00:00+00:00"]
        said_by(trigger, airflow, tmp_path)

        def is_over() -> bool:
            return not {"queued", "running"} & told(airflow, "select state from dag_run")

        wait_for("the run has ended", is_over, 900, every_s=2)
        assert told(airflow, "select state from dag_run") == {"success"}, log.read_text()[-8000:]
    assert len(read_output(f"{tmp_path}/out/2026-11-21")) == 200
    logs = [file.read_text() for file in (tmp_path / "airflow" / "logs").rglob("*.log*") if file.is_file()]
    assert any("DEFERRED" in one for one in logs)


@contextmanager
def standalone(env: dict[str, str], log: Path, folder: Path) -> Iterator[None]:
    """A whole Airflow: scheduler, triggerer, DAG processor and API server, all of which end with the context."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(environment_of("airflow") / "airflow"), "standalone"], env=env, cwd=folder, stdout=output,
            stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    family = psutil.Process(process.pid)
    try:
        yield
    finally:
        members = [family, *family.children(recursive=True)]
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        for member in psutil.wait_procs(members, timeout=30)[1]:
            member.kill()
        process.wait()


def told(env: dict[str, str], query: str) -> set[str]:
    """What Airflow's database says. Its command line takes many seconds to start."""
    with closing(sqlite3.connect(f"file:{env['AIRFLOW_HOME']}/airflow.db?mode=ro", uri=True, timeout=30)) as database:
        return {row[0] for row in database.execute(query)}

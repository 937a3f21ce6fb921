"""Tables after kills between the parts and the commit, and after races: each row once, as in a run that nothing hit."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.storage.job_folder import JobFolder
from schemas.errors import NotFound
from schemas.layout import TABLE, child
from schemas.manifest import JobStatus, Manifest
from schemas.table import TableSpec
from tests.faults.conftest import Note, make_stage
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted, write_table
from tests.servers import S3_ENV, wait_for
from tests.tables import readers_of, rows_by, rows_of_parts, sql_catalog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

#: What is the same in two runs of the stub task, which draws random numbers.
SAME = ["id", "text", "error", "source_uri", "source_row"]
ALL = [*SAME, "prediction"]
#: Where the process that is there dies: the control process, and the one that commits.
STEPS = ["after_manifest", "before_table", "before_add", "table_there", "after_add", "after_table"]
PROCESSES = 4


@pytest.fixture
def stage(
    copy: Path, stub_task: None, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stage:
    for name, value in sql_catalog(tmp_path).items():
        monkeypatch.setenv(name, value)
    return make_stage(copy, tmp_path, redis_server.url)


def table_at(format: str, location: str, name: str) -> TableSpec:
    named = {"catalog": "lake", "name": f"nightly.{name.rpartition('/')[2]}"} if format == "iceberg" else {}
    return TableSpec.model_validate({"format": format, "location": f"{location}/{name}/"} | named)


def night(stage: Stage, table: TableSpec, number: int) -> Submitted:
    """A job of 20 rows in two shards, which is to be a version of the table."""
    file = stage.folder / f"night-{number}.parquet"
    if not file.exists():
        write_table(file, [f"night {number}, text {i}" for i in range(20)])
    return stage.submit(str(file), f"{table.location}night-{number}", table=table, shard={"rows": 10}, batch_size=5)


def is_committed(stage: Stage, job: Submitted) -> bool:
    try:
        return bool(stage.storage.stat(child(job.output, TABLE)))
    except NotFound:
        return False


def committed(stage: Stage, job: Submitted) -> Manifest:
    wait_for(f"job {job.id} is in its table", lambda: is_committed(stage, job), timeout_s=300)
    manifest = JobFolder(job.output, stage.storage).read_manifest()
    assert manifest is not None
    assert manifest.status is JobStatus.SUCCEEDED
    assert manifest.table_version is not None
    return manifest


@pytest.mark.parametrize("format", ["delta", "iceberg"])
def test_kills_between_parts_and_commit(stage: Stage, redis_server: RedisServer, note: Note, format: str) -> None:
    """A night for each step at which a process is killed, and one that loses its worker and Redis while it waits."""
    table, clean = (table_at(format, str(stage.folder), name) for name in ("struck", "clean"))
    with stage.worker("--groups", "text,control") as first:
        for number, step in enumerate(STEPS):
            stage.failpoints.arm(step, "kill")
            committed(stage, night(stage, table, number))
            assert stage.failpoints.fired(step), step
        stage.failpoints.arm("before_add", "stop")
        last = night(stage, table, len(STEPS))
        wait_for("the commit is under way", lambda: len(stage.failpoints.fired("before_add")) == 2)
        first.kill()
        redis_server.kill()
        redis_server.start()
    with stage.worker("--groups", "text,control"):
        committed(stage, last)
        struck = [f"{table.location}night-{number}" for number in range(len(STEPS) + 1)]
        untouched = [committed(stage, night(stage, clean, number)) for number in range(len(STEPS) + 1)]
    versions = [JobFolder(output, stage.storage).read_manifest() for output in struck]
    for reader in readers_of(format):
        assert rows_by(reader, table, SAME) == rows_by(reader, clean, SAME), reader
        assert rows_by(reader, table, ALL) == rows_of_parts(struck, ALL), reader
        for count, (one, other) in enumerate(zip(versions, untouched, strict=True), start=1):
            if reader == "duckdb" or one is None:
                continue
            then = rows_by(reader, table, ALL, version=one.table_version)
            assert then == rows_of_parts(struck[:count], ALL), (reader, count)
            assert len(then) == len(rows_by(reader, clean, ALL, version=other.table_version))
    note(f"kill -9 between parts and {format} commit", len(STEPS) + 1, "each night once, equal to a clean table")


@pytest.mark.parametrize("store", ["local", "s3"])
@pytest.mark.parametrize("format", ["delta", "iceberg"])
def test_finishers_race(
    stage: Stage, s3: str, s3_endpoint: str, note: Note, format: str, store: str, tmp_path: Path
) -> None:
    """Two nights, each committed by several processes at once, into a table that none of them finds."""
    root = str(tmp_path) if store == "local" else s3
    access = S3_ENV | {"AWS_ENDPOINT_URL_S3": s3_endpoint}
    table, apart = table_at(format, root, "raced"), table_at(format, root, "raced/apart")
    with stage.worker("--groups", "text,control", **access):
        jobs = [night(stage, apart, number) for number in (1, 2)]
        for job in jobs:
            committed(stage, job)
    requests = []
    for job in jobs:  # the same parts, for another table
        spec = job.accepted.spec
        spec = spec.model_copy(update={"output": spec.output.model_copy(update={"table": table})})
        requests.append(job.accepted.model_copy(update={"spec": spec}).model_dump_json())
    env = os.environ | access | {"PYTHONPATH": str(stage.copy), "FAULTS": str(stage.failpoints.folder)}
    answers: list[set[str]] = [set(), set()]
    with ExitStack() as ending:
        started = [ending.enter_context(_committing(stage.copy, env)) for _ in range(PROCESSES * len(jobs))]
        for index, process in enumerate(started):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"job": requests[index % 2]}))
            process.stdin.close()
        for index, process in enumerate(started):
            assert process.stdout is not None
            answers[index % 2].add(process.stdout.read())
            assert process.wait(300) == 0
    assert [len(said) for said in answers] == [1, 1], answers
    expected = sorted((i, f"night {number}, text {i}") for number in (1, 2) for i in range(20))
    env |= _file_access(s3_endpoint)
    options = _delta_access(s3_endpoint) if store == "s3" else None
    for reader in readers_of(format):
        found = rows_by(reader, table, ["id", "text"], env=env, options=options)
        assert sorted((row["id"], row["text"]) for row in found) == expected, reader
    note(f"{PROCESSES} finishers each of two jobs at one {format} table, {store}", len(started), "each night once")


def _committing(copy: Path, env: dict[str, str]) -> "subprocess.Popen[str]":
    """A process that commits a job once it is told which."""
    command = [sys.executable, "-m", "jobs.tables"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=copy)


def _file_access(endpoint: str) -> dict[str, str]:
    """What pyiceberg's readers need to know of the store."""
    said = {
        "endpoint": endpoint,
        "access-key-id": S3_ENV["AWS_ACCESS_KEY_ID"],
        "secret-access-key": S3_ENV["AWS_SECRET_ACCESS_KEY"],
        "region": S3_ENV["AWS_DEFAULT_REGION"],
    }
    return {f"PYICEBERG_CATALOG__LAKE__S3__{name.upper().replace('-', '_')}": value for name, value in said.items()}


def _delta_access(endpoint: str) -> dict[str, str]:
    """What deltalake's and Polars' readers need to know of the store."""
    return S3_ENV | {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": S3_ENV["AWS_DEFAULT_REGION"], "AWS_ALLOW_HTTP": "true"}

"""A job's parts become a version of its table, once, after the manifest; or the job says why not, and what to do."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from jobs.supervisor.recovery import Standing, rebuild
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import JobStatus, Manifest
from schemas.table import TableSpec
from tests.integration.harness import House, spec_for
from tests.tables import make_other_table, rows_by, rows_of_parts, sql_catalog

COLUMNS = ["id", "review", "prediction", "error", "source_uri", "source_row"]


@pytest.fixture
def lake(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tables, and a catalog `lake` of it that jobs may commit to."""
    for name, value in sql_catalog(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "lake house"


@pytest.fixture
def delta(lake: Path) -> TableSpec:
    return TableSpec(format="delta", location=f"{lake}/réviews/")


@pytest.fixture
def house(lake: Path) -> House:
    return House(Settings.read())


def spec_of(table: TableSpec, model: Path, texts: Path, name: str, **changes: Any) -> JobSpec:
    """A job of four shards whose output lies below the table's location."""
    spec = spec_for(model, str(texts), f"{table.location}{name}", shard={"rows": 25}, **changes)
    return spec.model_copy(update={"output": spec.output.model_copy(update={"table": table})})


def computed(house: House, spec: JobSpec) -> AcceptedJob:
    """The job, of which nothing but its end is left to do."""
    job = house.submit(spec)
    assert house.plan(job) == 4
    while house.next() is not None:
        pass
    return job


def told(house: House, job: AcceptedJob) -> Manifest | None:
    return house.catalog.folder(job.output).read_manifest()


def test_each_night_is_a_version_of_delta(house: House, delta: TableSpec, classifier: Path, texts: Path) -> None:
    nights = [house.run(spec_of(delta, classifier, texts, name)) for name in ("n1", "night 2=é%20")]
    assert [night.table_version for night in nights] == ["1", "2"]
    outputs = [f"{delta.location}n1", f"{delta.location}night 2=é%20"]
    assert rows_by("deltalake", delta, COLUMNS) == rows_of_parts(outputs, COLUMNS)
    assert rows_by("deltalake", delta, COLUMNS, version="1") == rows_of_parts(outputs[:1], COLUMNS)


def test_a_night_is_a_snapshot_of_iceberg(house: House, lake: Path, classifier: Path, texts: Path) -> None:
    table = TableSpec(format="iceberg", location=f"{lake}/réviews/", catalog="lake", name="nightly.reviews")
    night = house.run(spec_of(table, classifier, texts, "night 1=é%20"))
    assert night.table_version is not None
    found = rows_by("pyiceberg", table, COLUMNS, version=night.table_version)
    assert found == rows_of_parts([f"{table.location}night 1=é%20"], COLUMNS)


def test_a_commit_waits_for_its_table_though_redis_is_lost(
    house: House, delta: TableSpec, classifier: Path, texts: Path
) -> None:
    job = computed(house, spec_of(delta, classifier, texts, "n1"))
    log = Path(delta.location, "_delta_log")
    log.mkdir()
    (log / "00000000000000000000.json").write_text("no log\n")

    house.control.finish_job(job.id, job.output)
    assert told(house, job) is None  # it hasn't ended, though its manifest is there
    written = house.catalog.folder(job.output).written_manifest()
    assert written is not None
    assert written.status is JobStatus.SUCCEEDED
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert progress.error is not None
    assert (progress.status, progress.error.code) == (JobStatus.RUNNING, "table_waits")

    shutil.rmtree(log)
    house.state._redis.flushall()
    assert [seen.standing for seen in rebuild(house.state, house.broker, house.catalog)] == [Standing.ENTERED]
    house.plan(job)
    assert house.finish(job).table_version == "1"
    assert rows_by("deltalake", delta, COLUMNS) == rows_of_parts([job.output], COLUMNS)
    assert list(rebuild(house.state, house.broker, house.catalog)) == []


def test_a_table_that_moved_on_refuses_and_takes_the_parts_once_it_is_mended(
    house: House, delta: TableSpec, classifier: Path, texts: Path
) -> None:
    job = computed(house, spec_of(delta, classifier, texts, "n1"))
    make_other_table(delta)
    refused = house.finish(job)
    assert refused.status is JobStatus.FAILED
    assert refused.error is not None
    assert refused.error.code == "table_refused"
    for words in ("column 'id' is string, and the job's is int64", "it has no column 'review'", "nightshift resume"):
        assert words in refused.error.message
    assert house.state.jobs.status(job.id) is JobStatus.FAILED

    early = house.submit(spec_of(delta, classifier, texts, "n2"))
    house.control.plan_job(early.id, early.output)  # refused before anything is computed
    assert house.nothing_waits(early)
    failed = house.finish(early)
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.parts) == (JobStatus.FAILED, "table_mismatch", [])

    shutil.rmtree(Path(delta.location, "_delta_log"))
    again = house.submitter.accept(job.spec, lambda: pytest.fail("the job is there"))
    assert (again.job.id, again.ended) == (job.id, False)
    assert house.submit_again(job)
    house.plan(job)
    assert house.finish(job).table_version == "1"

"""Nights of a series in one process: what is annotated, what is left out, and what is said of it."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage.annotated import annotation_of
from jobs.storage.series import RunFile, Series
from jobs.submission.accept import Submitter, enqueue, new_job
from jobs.submission.retry import accept_retry
from jobs.submission.validate import validate
from schemas.errors import SpecError
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import JobStatus, Manifest
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.texts import sentences


class Nights:
    """Runs of a series over one folder of tables."""

    def __init__(self, house: House, classifier: Path, folder: Path, **spec: Any) -> None:
        self.house, self.classifier, self.folder, self.spec = house, classifier, folder, spec
        self.input = folder / "in"
        self.series = f"{folder}/series/"
        self.count = 0

    def job(self, **changes: Any) -> JobSpec:
        self.count += 1
        incremental = {"series": self.series} | self.spec.get("incremental", {})
        more = self.spec | {"incremental": incremental} | changes
        return spec_for(self.classifier, f"{self.input}/", f"{self.folder}/out-{self.count}", **more)

    def run(self, **changes: Any) -> Manifest:
        return self.house.run(self.job(**changes))

    def rows(self, night: int) -> list[tuple[str, int]]:
        """The places in the input that a night annotated."""
        rows = read_output(f"{self.folder}/out-{night}") if (self.folder / f"out-{night}").exists() else []
        return [(Path(row["source_uri"]).name, row["source_row"]) for row in rows]


@pytest.fixture
def nights(house: House, classifier: Path, tmp_path: Path) -> Nights:
    return Nights(house, classifier, tmp_path)


def whole(name: str, rows: int) -> list[tuple[str, int]]:
    return [(name, row) for row in range(rows)]


def test_each_version_of_a_file_is_annotated_once(nights: Nights) -> None:
    """Added, changed and deleted files; a night without anything new is a success that says so."""
    write_reviews(nights.input / "a.parquet", sentences(5))
    write_reviews(nights.input / "b.parquet", sentences(7))
    first = nights.run()
    assert nights.rows(1) == whole("a.parquet", 5) + whole("b.parquet", 7)
    assert first.series is not None
    assert (first.series.run, first.series.known, first.series.afresh, first.skipped) == (1, 0, None, {})

    write_reviews(nights.input / "c.parquet", sentences(3))
    write_reviews(nights.input / "b.parquet", sentences(6))
    (nights.input / "a.parquet").unlink()
    second = nights.run()
    assert nights.rows(2) == whole("b.parquet", 6) + whole("c.parquet", 3)
    assert second.series is not None
    assert (second.series.run, second.series.known) == (2, 2)

    third = nights.run()
    assert (third.status, third.rows, third.parts) == (JobStatus.SUCCEEDED, 0, [])
    assert third.skipped == {"files annotated before": 2}


def test_a_change_starts_afresh_and_says_what_changed(nights: Nights) -> None:
    """Back to what was before, the runs from then count again."""
    write_reviews(nights.input / "a.parquet", sentences(5))
    nights.run()
    changed = nights.run(params={"top_k": 2})
    assert nights.rows(2) == whole("a.parquet", 5)
    assert changed.series is not None
    assert changed.series.afresh is not None
    assert "top_k=1" in changed.series.afresh
    assert "top_k=2" in changed.series.afresh
    assert nights.run(params={"top_k": 2}).rows == 0
    back = nights.run()
    assert (back.rows, back.series and back.series.afresh) == (0, None)


def test_of_a_cancelled_run_the_committed_shards_count(nights: Nights, house: House) -> None:
    """The next night reads the rest of the file."""
    write_reviews(nights.input / "a.parquet", sentences(25), row_group=10)
    write_reviews(nights.input / "b.parquet", sentences(4))
    job = house.submit(nights.job(shard={"rows": 6}))
    assert house.plan(job) == 5
    house.attempt(job, 0)
    house.attempt(job, 2, id="a2")
    house.state.jobs.cancel(job.id)
    assert house.finish(job).status is JobStatus.CANCELLED
    done = nights.rows(1)
    assert done == [("a.parquet", row) for row in [*range(6), *range(12, 18)]]
    second = nights.run()
    assert sorted(done + nights.rows(2)) == whole("a.parquet", 25) + whole("b.parquet", 4)
    assert second.skipped == {"rows annotated before": 12}
    assert nights.run().skipped == {"files annotated before": 2}


def test_a_retry_counts_too(nights: Nights, house: House) -> None:
    """What a retry does of a cancelled run isn't taken by the next."""
    write_reviews(nights.input / "a.parquet", sentences(12))
    job = house.submit(nights.job(shard={"rows": 6}))
    house.plan(job)
    house.attempt(job, 0)
    house.state.jobs.cancel(job.id)
    house.finish(job)
    retry = accept_retry(job, None, house.submitter, house.settings).job
    enqueue(retry, house.state, house.broker)
    house.plan(retry)
    house.attempt(retry, 0)
    assert house.finish(retry).series is not None
    assert nights.run().rows == 0


def test_rows_are_told_apart_by_a_key(nights: Nights) -> None:
    """Files may be written anew: rows whose key was seen are left out, null and repeated keys are counted."""
    key: dict[str, Any] = {"incremental": {"key": "id"}}
    nights.spec |= key
    text = sentences(9)

    def write(name: str, ids: list[Any]) -> None:
        nights.input.mkdir(exist_ok=True)
        table = pa.table({"id": pa.array(ids, pa.string()), "review": text[: len(ids)]})
        pq.write_table(table, nights.input / name, row_group_size=4)

    write("a.parquet", ["p", "q", None, "r", "q", "s"])
    first = nights.run()
    assert nights.rows(1) == [("a.parquet", row) for row in (0, 1, 3, 5)]
    assert first.skipped == {"rows with a null key": 1, "rows with a repeated key": 1}

    write("a.parquet", ["new", "p", "q", "r", "s", "t"])
    write("b.parquet", ["t", "u"])
    second = nights.run()
    assert nights.rows(2) == [("a.parquet", 0), ("a.parquet", 5), ("b.parquet", 1)]
    assert second.skipped == {"rows annotated before": 4, "rows with a repeated key": 1}
    assert nights.run().skipped == {"rows annotated before": 8}


@pytest.mark.parametrize(
    ("incremental", "more", "field", "says"),
    [
        ({"key": "raw"}, {}, "incremental.key", "is not carried to the output"),
        ({"key": "nope"}, {}, "incremental.key", "the input has no column 'nope'; it has 'id'"),
        ({"key": "raw"}, {"input": {"keep": ["raw"]}}, "incremental.key", "is binary; a key is text"),
        ({"series": "in/x/"}, {}, "incremental.series", "lies inside the input"),
        ({"series": "out-1/x/"}, {}, "incremental.series", "lies inside the output"),
        ({"series": None}, {}, "incremental", "name one that all the runs share"),
    ],
)
def test_a_series_that_can_t_be_is_refused(
    nights: Nights, incremental: dict[str, Any], more: dict[str, Any], field: str, says: str
) -> None:
    write_reviews(nights.input / "a.parquet", sentences(2))
    if incremental.get("series"):
        incremental = {"series": f"{nights.folder}/{incremental['series']}"}
    nights.spec |= {"incremental": incremental} | more
    with pytest.raises(SpecError) as caught:
        nights.run()
    assert [problem.field for problem in caught.value.problems] == [field]
    assert says in caught.value.message


def test_an_input_without_files_is_by_policy(nights: Nights) -> None:
    with pytest.raises(SpecError, match="no parquet file matches"):
        nights.run()
    empty = nights.run(missing_input="empty")
    assert (empty.status, empty.rows) == (JobStatus.SUCCEEDED, 0)
    write_reviews(nights.input / "a.parquet", sentences(3))
    assert nights.run(missing_input="empty").rows == 3


def test_a_run_waits_for_the_one_before(nights: Nights, house: House) -> None:
    """What that one did is recorded before the second is planned, though its own process died before it did so."""
    write_reviews(nights.input / "a.parquet", sentences(5))
    first, second = (house.submit(nights.job()) for _ in range(2))
    house.plan(first)
    house.plan(second)
    assert house.state.jobs.status(second.id) is JobStatus.PLANNING
    house.attempt(first, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.control.finisher.record_run", lambda *known: None)
        house.finish(first)
    assert [number for number, _ in Series(nights.series, house.storage).unrecorded()] == [1, 2]
    house.plan(second)
    ended = house.finish(second)
    assert (ended.status, ended.rows, ended.skipped) == (JobStatus.SUCCEEDED, 0, {"files annotated before": 1})
    assert Series(nights.series, house.storage).unrecorded() == []


def test_a_run_that_was_stopped_is_named(nights: Nights, house: House) -> None:
    """An embedded job goes on only if someone says so. If its output is removed, it annotated nothing."""
    write_reviews(nights.input / "a.parquet", sentences(5))
    stopped = _embedded(house, nights.job())
    house.plan(stopped)
    failed = house.submit(nights.job())
    house.plan(failed)
    ended = house.finish(failed)
    assert ended.error is not None
    assert ended.error.code == "series_unfinished"
    assert f"nightshift resume {stopped.output}" in ended.error.message
    shutil.rmtree(stopped.output)
    house.state.jobs.finish(stopped.id, JobStatus.CANCELLED)
    assert nights.run().rows == 5


def _embedded(house: House, spec: JobSpec) -> AcceptedJob:
    checked = validate(spec, house.storage, house.settings)
    job = Submitter(house.catalog, embedded=True).create(new_job(checked.spec, checked.model)).job
    enqueue(job, house.state, house.broker)
    return job


def test_a_run_of_another_catalog_is_refused(nights: Nights, house: House) -> None:
    write_reviews(nights.input / "a.parquet", sentences(5))
    nights.run()
    job = house.submit(nights.job())
    series = Series(nights.series, house.storage)
    foreign = RunFile(job="20260101-000000-aaaaaa", output="x/", annotation=annotation_of(job.spec, job.model))
    assert series.begin(foreign) == 2
    house.plan(job)
    error = house.finish(job).error
    assert error is not None
    assert (error.code, foreign.job in error.message) == ("series_unknown", True)


def test_another_tenant_s_series_is_refused(nights: Nights, house: House) -> None:
    """Who may write to its folder could name any job there."""
    write_reviews(nights.input / "a.parquet", sentences(5))
    theirs = house.submit(nights.job(labels={"tenant": "theirs"}))
    house.plan(theirs)
    job = house.submit(nights.job(labels={"tenant": "mine"}))
    house.plan(job)
    error = house.finish(job).error
    assert error is not None
    assert error.code == "series_foreign"


def test_a_damaged_file_of_the_series_is_named(nights: Nights) -> None:
    write_reviews(nights.input / "a.parquet", sentences(5))
    nights.run()
    seen = next(Path(nights.series).glob("seen-*"))
    seen.write_bytes(seen.read_bytes()[:-10])
    error = nights.run().error
    assert error is not None
    assert error.code == "series_broken"
    assert str(seen) in error.message

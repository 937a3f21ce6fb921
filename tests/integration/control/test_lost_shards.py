"""A manifest names the rows that it lost: in bounded memory, and up to a limit."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.run_job import say_end
from jobs.submission.accept import Accepted
from jobs.submission.retry import accept_retry
from schemas.job import AcceptedJob
from schemas.layout import PLAN
from schemas.manifest import ErrorInfo, JobStatus, LostSlice, Manifest
from schemas.plan import NO_COLUMNS, NO_ROW_GROUP, OBJECT, plan_schema
from tests.integration.harness import House, spec_for

#: Bytes that Python may have allocated at once. A shard's slices as objects are ten times as many.
MOST_BYTES = 40 << 20


def write_plan(file: Path, shards: Sequence[pa.Table]) -> None:
    """A plan of shards with these slices."""
    schema = plan_schema(NO_COLUMNS)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for number, slices in enumerate(shards):
            listed = pa.ListArray.from_arrays([0, len(slices)], slices.to_struct_array().combine_chunks())
            columns = [pa.array([number]), listed, pa.array([sum(slices["rows"].to_pylist())]), pa.array([10])]
            writer.write_table(pa.table(columns, names=schema.names).cast(schema))


def slices(uris: Sequence[str], first: Sequence[int], rows: Sequence[int], row_group: int = OBJECT) -> pa.Table:
    count = len(uris)
    columns = {"uri": uris, "etag": ["e"] * count, "size": [10] * count, "row_group": [row_group] * count}
    columns |= {"start": [0] * count, "rows": rows, "source_row": first}
    return pa.table(columns)


def objects(count: int, start: int = 0) -> pa.Table:
    uris = [f"s3://bucket/prefix/of/many/objects/{number:012}.jpg" for number in range(start, start + count)]
    return slices(uris, [0] * count, [1] * count)


def without_shards(house: House, classifier: Path, texts: Path, shards: list[pa.Table]) -> AcceptedJob:
    """A job with this plan that gave up all of its shards."""
    job = house.accept(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    write_plan(Path(job.output, PLAN), shards)
    assert house.state.jobs.add(job.id, job.spec.task, job.output, 5, 1.0)
    house.plan(job)
    for number in range(len(shards)):
        order, attempt = house.take(job, number, f"a{number}")
        house.state.shards.fail(order, attempt, ErrorInfo(code="unreadable", message="gone"))
    return job


def ended_without(house: House, classifier: Path, texts: Path, shards: list[pa.Table]) -> Manifest:
    return house.finish(without_shards(house, classifier, texts, shards))


def test_a_shard_of_many_objects_takes_bounded_memory(house: House, classifier: Path, texts: Path) -> None:
    shards = [objects(10), objects(300_000, 10), objects(10, 300_010)]
    job = without_shards(house, classifier, texts, shards)
    tracemalloc.start()
    manifest = house.finish(job)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES
    first, second, third = manifest.lost
    assert (len(first.slices), first.slices_left_out, first.rows_left_out) == (10, 0, 0)
    assert (len(second.slices), second.slices_left_out, second.rows_left_out) == (1_000, 299_000, 299_000)
    assert second.slices[999].uri.endswith("000000001009.jpg")
    assert (len(third.slices), third.slices_left_out) == (10, 0)


def test_all_shards_together_list_so_many(house: House, classifier: Path, texts: Path) -> None:
    manifest = ended_without(house, classifier, texts, [objects(900, 900 * n) for n in range(13)])
    assert manifest.status is JobStatus.FAILED
    assert [len(lost.slices) for lost in manifest.lost] == [900] * 11 + [100, 0]
    assert [lost.slices_left_out for lost in manifest.lost] == [0] * 11 + [800, 900]
    assert [lost.rows_left_out for lost in manifest.lost] == [0] * 11 + [800, 900]


def test_consecutive_rows_of_a_file_are_one_slice(house: House, classifier: Path, texts: Path) -> None:
    tables = slices(["a", "a", "a", "b", "b", "a"], [0, 10, 30, 40, 45, 99], [10, 20, 5, 5, 5, 1], 0)
    broken = slices(["c"], [0], [0], NO_ROW_GROUP)
    first, second = ended_without(house, classifier, texts, [tables, broken]).lost
    assert first.slices == (
        LostSlice(uri="a", first_row=0, rows=35),
        LostSlice(uri="b", first_row=40, rows=10),
        LostSlice(uri="a", first_row=99, rows=1),
    )
    assert second.slices == (LostSlice(uri="c", first_row=0, rows=0),)


def test_a_long_list_is_told_in_short(
    house: House, classifier: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = ended_without(house, classifier, texts, [objects(1_500)])
    job = house.catalog.job(manifest.job)
    assert job is not None
    say_end(manifest, job, as_json=False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shard 0 failed")]
    assert line.count(".jpg") == 10
    assert "1,490 more" in line


def test_a_retry_runs_what_the_list_leaves_out(house: House, classifier: Path, texts: Path) -> None:
    """Its plan is cut from the job's plan and parts, and not from the manifest's list."""
    manifest = ended_without(house, classifier, texts, [objects(1_500)])
    job = house.catalog.job(manifest.job)
    assert job is not None
    accepted: Accepted = accept_retry(job, None, house.submitter, house.settings)
    house.state.jobs.add(accepted.job.id, job.spec.task, accepted.job.output, 5, 1.0)
    house.plan(accepted.job)
    progress = house.state.jobs.progress(accepted.job.id)
    assert progress is not None
    assert progress.rows == 1_500

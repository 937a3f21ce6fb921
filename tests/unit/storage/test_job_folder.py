"""A job's objects: the plan read from a shard on, damaged files, and writers that come second."""

from pathlib import Path

import pytest

from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import JobFolder, PlanSize
from schemas.errors import NotFound, Permanent
from schemas.plan import NO_COLUMNS, OBJECT, PLAN_ROW_GROUP, Planned, Shard, Slice


def shard(number: int) -> Shard:
    part = Slice(uri=f"s3://in/{number}", etag="e", size=10, row_group=OBJECT, start=0, rows=1, source_row=0)
    return Shard(shard=number, slices=(part,), rows=1, bytes=10)


def planned(count: int) -> Planned:
    return Planned(NO_COLUMNS, map(shard, range(count)), {"hidden files": 3})


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(f"{tmp_path}/out/", Storage())


def test_a_plan_is_read_from_any_shard_on(folder: JobFolder) -> None:
    count = 2 * PLAN_ROW_GROUP + 10
    assert folder.write_plan(planned(count), "me") == PlanSize(count, count, 10 * count)
    plan = folder.plan()
    assert (plan.columns(), plan.skipped()) == (NO_COLUMNS, {"hidden files": 3})
    for first in (0, 1, PLAN_ROW_GROUP - 1, PLAN_ROW_GROUP, count - 1, count, count + 1):
        assert [found.shard for found in plan.shards(first)] == list(range(first, count))
    for number in (0, PLAN_ROW_GROUP, count - 1):
        assert shard(number) in plan.row_group_of(number)
    for number in (-1, count):
        with pytest.raises(Permanent, match=f"has no shard {number}") as raised:
            plan.row_group_of(number)
        assert raised.value.code == "plan_broken"


def test_an_empty_plan(folder: JobFolder) -> None:
    assert folder.write_plan(planned(0), "me") == PlanSize(0, 0, 0)
    assert list(folder.plan().shards()) == []


def test_the_first_plan_stands(folder: JobFolder) -> None:
    folder.write_plan(planned(3), "me")
    assert folder.write_plan(planned(5), "another").shards == 3


def test_a_job_without_files(folder: JobFolder) -> None:
    assert folder.find_plan() is None
    assert folder.read_job() is None
    assert folder.read_manifest() is None
    assert folder.any_object() is None
    assert folder.written_manifest() is None
    with pytest.raises(NotFound):
        folder.plan()


@pytest.mark.parametrize("content", [b"", b"not Parquet", b"PAR1" * 10])
def test_damaged_files_say_so(folder: JobFolder, content: bytes) -> None:
    place = Path(folder.output)
    place.mkdir()
    for name in ("_job.json", "_manifest.json", "_plan.pq", "part-00000.parquet"):
        (place / name).write_bytes(content)
    plan = folder.plan()
    for read, code in (
        (folder.read_job, "bad_job_file"),
        (folder.read_manifest, "bad_manifest"),
        (lambda: folder.committed("job", 3), "foreign_part"),
        (plan.size, "plan_broken"),
        (plan.columns, "plan_broken"),
        (lambda: list(plan.shards()), "plan_broken"),
    ):
        with pytest.raises(Permanent) as raised:
            read()
        assert raised.value.code == code


def test_a_few_parts_are_read_ahead(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(folder.output).mkdir()
    for number in range(500):
        Path(folder.output, f"part-{number:05}.parquet").touch()
    read: list[str] = []

    def foreign(info: ObjectInfo, storage: Storage) -> None:
        read.append(info.uri)
        raise Permanent("no part")

    monkeypatch.setattr("jobs.storage.job_folder.read_report", foreign)
    reports = folder.reports("job", 500)
    assert next(reports)[1] is None
    assert len(read) <= 64
    assert len(list(reports)) == 499

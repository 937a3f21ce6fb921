"""A job's objects: the plan read from a shard on, damaged files, and writers that come second."""

from io import BytesIO
from pathlib import Path

import pytest

from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import JobFolder
from jobs.storage.plan_file import PlanSize
from schemas.errors import AccessDenied, NotFound, Permanent
from schemas.layout import Layout
from schemas.plan import NO_COLUMNS, OBJECT, PLAN_ROW_GROUP, Planned, Shard, Slice


def shard(number: int) -> Shard:
    part = Slice(uri=f"s3://in/{number}", etag="e", size=10, row_group=OBJECT, start=0, rows=1, source_row=0)
    return Shard(shard=number, slices=(part,), rows=1, bytes=10)


def planned(count: int) -> Planned:
    return Planned(NO_COLUMNS, map(shard, range(count)), {"hidden files": 3})


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(f"{tmp_path}/out/", Storage(), Layout.DATA)


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
    (place / "data").mkdir(parents=True)
    for name in ("_job.json", "_manifest.json", "_plan.pq", "data/part-00000.parquet"):
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


@pytest.mark.parametrize(("layout", "place"), [(Layout.DATA, "data/"), (Layout.FLAT, "")])
def test_where_the_parts_lie(tmp_path: Path, layout: Layout, place: str) -> None:
    folder = JobFolder(f"{tmp_path}/out/", Storage(), layout)
    folder.write_part("part-00001.parquet", BytesIO(b"x"), "me")
    assert folder.part("part-00001.parquet").uri == f"{tmp_path}/out/{place}part-00001.parquet"
    for foreign in ("data/part-00000.parquet", "part-00000.parquet", f"{place}part-x/part-00002.parquet"):
        file = tmp_path / "out" / foreign
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert [shard for shard, _ in folder.parts()] == [0, 1]
    other = JobFolder(f"{tmp_path}/out/", Storage(), Layout.FLAT if layout is Layout.DATA else Layout.DATA)
    assert [shard for shard, _ in other.parts()] == [0]


def test_parts_are_out_of_reach_without_a_layout(tmp_path: Path) -> None:
    """A default would be wrong for half of the jobs, and find no parts there."""
    folder = JobFolder(f"{tmp_path}/out/", Storage())
    assert folder.read_job() is None
    for use in (lambda: folder.part("part-00000.parquet"), lambda: list(folder.parts())):
        with pytest.raises(AssertionError, match=r"use JobFolder\.of"):
            use()


@pytest.mark.parametrize("target", ["elsewhere", "gone"])
def test_a_folder_of_parts_that_is_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "part-00000.parquet").write_bytes(b"theirs")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / target)
    folder = JobFolder(f"{tmp_path}/out/", Storage(), Layout.DATA)
    with pytest.raises(AccessDenied):
        folder.write_part("part-00001.parquet", BytesIO(b"ours"), "me")
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["part-00000.parquet"]
    if target == "elsewhere":
        for read in (lambda: list(folder.parts()), lambda: folder.storage.read(folder.part_uri("part-00000.parquet"))):
            with pytest.raises(AccessDenied, match="outside"):
                read()


def test_a_few_parts_are_read_ahead(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(folder.output, "data").mkdir(parents=True)
    for number in range(500):
        Path(folder.output, "data", f"part-{number:05}.parquet").touch()
    read: list[str] = []

    def foreign(info: ObjectInfo, storage: Storage) -> None:
        read.append(info.uri)
        raise Permanent("no part")

    monkeypatch.setattr("jobs.storage.job_folder.read_report", foreign)
    reports = folder.reports("job", 500)
    assert next(reports)[1] is None
    assert len(read) <= 64
    assert len(list(reports)) == 499

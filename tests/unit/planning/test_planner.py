"""Cutting shards: every row once, in order, within the limits."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.planning.parquet_footers import BrokenFile, RowGroup, read_footer
from jobs.planning.planner import Limits, plan_objects, plan_shards, shard_limits
from jobs.storage import ObjectInfo, Storage
from jobs.storage.plan_file import row_groups
from schemas.job import parse_spec
from schemas.plan import (
    NO_ROW_GROUP,
    OBJECT,
    PLAN_SLICES,
    Shard,
    find_row_group,
    from_batch,
    input_schema,
    plan_schema,
    to_batch,
)


@dataclass(frozen=True)
class File:
    """What planning asks of a footer."""

    info: ObjectInfo
    groups: tuple[tuple[int, int], ...]

    def row_groups(self, columns: set[str]) -> list[RowGroup]:
        found, first = [], 0
        for index, (rows, size) in enumerate(self.groups):
            found.append(RowGroup(index, first, rows, size))
            first += rows
        return found


def files(*groups: tuple[tuple[int, int], ...]) -> list[Any]:
    return [File(ObjectInfo(f"f{i}", 1, "e"), one) for i, one in enumerate(groups)]


def rows_of(shards: list[Any]) -> list[tuple[str, int]]:
    return [(s.uri, s.source_row + i) for shard in shards for s in shard.slices for i in range(s.rows)]


groups_strategy = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), max_size=4).map(tuple), max_size=5
)


@given(groups_strategy, st.integers(1, 40), st.integers(1, 3000))
def test_every_row_is_in_one_shard_in_order(groups: Any, rows: int, size: int) -> None:
    given_files = files(*groups)
    shards = list(plan_shards(given_files, set(), Limits(rows, size)))
    expected = [(f.info.uri, i) for f in given_files for i in range(sum(n for n, _ in f.groups))]
    assert rows_of(shards) == expected
    assert [shard.shard for shard in shards] == list(range(len(shards)))
    assert all(0 < shard.rows <= rows for shard in shards)
    assert all(shard.rows == sum(s.rows for s in shard.slices) for shard in shards)
    assert all(shard.bytes <= size or shard.rows == 1 for shard in shards)


def test_small_files_are_joined_and_large_row_groups_split() -> None:
    shards = list(plan_shards(files(((3, 30),), ((4, 40),), ((10, 100),)), set(), Limits(8, 10_000)))
    assert [[(s.uri, s.start, s.rows) for s in shard.slices] for shard in shards] == [
        [("f0", 0, 3), ("f1", 0, 4), ("f2", 0, 1)],
        [("f2", 1, 8)],
        [("f2", 9, 1)],
    ]


def test_a_broken_file_is_a_shard_of_its_own() -> None:
    broken = BrokenFile(ObjectInfo("broken", 9, "e"))
    shards = list(plan_shards([*files(((3, 30),)), broken, *files(((2, 20),))], set(), Limits(100, 10_000)))
    assert [shard.rows for shard in shards] == [3, 0, 2]
    assert shards[1].slices[0].row_group == NO_ROW_GROUP


@given(st.lists(st.integers(0, 100), max_size=60), st.integers(1, 7), st.integers(1, 200))
def test_every_object_is_in_one_shard_in_order(sizes: list[int], rows: int, size: int) -> None:
    objects = [ObjectInfo(f"o{i}", bytes, "e") for i, bytes in enumerate(sizes)]
    shards = list(plan_objects(objects, Limits(rows, size)))
    assert rows_of(shards) == [(info.uri, 0) for info in objects]
    assert [shard.shard for shard in shards] == list(range(len(shards)))
    assert all(0 < shard.rows == len(shard.slices) <= rows for shard in shards)
    assert all(shard.bytes == sum(s.size for s in shard.slices) for shard in shards)
    assert all(shard.bytes <= size or shard.rows == 1 for shard in shards)
    assert {s.row_group for shard in shards for s in shard.slices} <= {OBJECT}


def test_a_shard_is_found_in_its_row_group(tmp_path: Any) -> None:
    (slice,) = next(plan_objects([ObjectInfo("o", 1, "e")], Limits(1, 1))).slices
    shards = [Shard(shard=n, slices=(slice,) * (5000 if n % 3 else 1), rows=1, bytes=1) for n in range(20)]
    groups = list(row_groups(shards))
    assert [shard for group in groups for shard in group] == shards
    assert all(sum(len(shard.slices) for shard in group) <= PLAN_SLICES + 5000 for group in groups)
    schema = plan_schema(pa.schema([]))
    with pq.ParquetWriter(tmp_path / "plan", schema) as writer:
        for group in groups:
            writer.write_batch(to_batch(group, schema))
    file = pq.ParquetFile(tmp_path / "plan")
    for number in range(20):
        assert number in file.read_row_group(find_row_group(file.metadata, number))["shard"].to_pylist()
    assert find_row_group(file.metadata, 20) is None
    assert find_row_group(file.metadata, -1) is None


def test_the_plan_file_keeps_shards_and_the_input_schema() -> None:
    columns = pa.schema([("text", pa.string()), ("id", pa.int64())])
    schema = plan_schema(columns)
    shards = list(plan_shards(files(((10, 100),)), set(), Limits(4, 10_000)))
    assert list(from_batch(to_batch(shards, schema))) == shards
    assert input_schema(schema) == columns


@pytest.mark.parametrize(("rate", "expected"), [(None, 4096), (100.0, 6000), (1e6, 100_000), (0.1, 64)])
def test_a_shard_is_about_a_minute_of_work(rate: float | None, expected: int) -> None:
    spec = {"task": "text-classification", "model": "m", "input": {"uri": "a"}, "output": {"uri": "b"}}
    assert shard_limits(parse_spec(spec), rate).rows == expected
    assert shard_limits(parse_spec(spec | {"shard": {"rows": 7}}), rate).rows == 7


def test_row_groups_are_sized_by_the_columns_that_are_read(tmp_path: Any) -> None:
    file = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"text": ["x"] * 100, "a.b": [1] * 100, "big": [b"y" * 1000 + bytes([i]) for i in range(100)]}), file
    )
    storage = Storage()
    footer = read_footer(storage, storage.stat(str(file)), 1 << 20)
    assert footer.row_groups({"text"})[0].bytes < footer.row_groups({"big"})[0].bytes
    assert footer.row_groups({"big"})[0].bytes > 100_000
    assert footer.row_groups({"a.b"})[0].bytes > 0

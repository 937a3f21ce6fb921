"""Reading slices: exactly the planned rows, however they lie in row groups and batches, and after an interruption."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.planning.parquet_footers import read_footer
from jobs.planning.planner import Limits, plan_shards
from jobs.storage import Storage
from schemas.errors import InputChanged, RecordError
from schemas.plan import Shard
from workers.io.parquet_reader import ParquetReader
from workers.io.records import to_records, without_large_texts

COLUMNS = pa.schema([("id", pa.int64()), ("text", pa.string())])


def write(file: Path, rows: int, row_group: int) -> pa.Table:
    table = pa.table({"id": range(rows), "text": [f"text {i}" for i in range(rows)], "more": [b"x"] * rows})
    pq.write_table(table, file, row_group_size=row_group)
    return table


def shards_of(file: Path, rows: int) -> list[Shard]:
    storage = Storage()
    footer = read_footer(storage, storage.stat(str(file)), 1 << 20)
    return list(plan_shards([footer], {"id", "text"}, Limits(rows, 1 << 30)))


def read(reader: ParquetReader, shard: Shard) -> list[int]:
    ids: list[int] = []
    for block in reader.blocks(shard, {"text": "text"}):
        ids += block.table["id"].to_pylist()
        assert block.source_rows == block.table["id"].to_pylist()
        assert [r["text"] for r in block.records if isinstance(r, dict)] == block.table["text"].to_pylist()
    return ids


@pytest.mark.parametrize("row_group", [10_000, 1700, 999])
def test_shards_in_any_order_give_their_rows(tmp_path: Path, row_group: int) -> None:
    write(tmp_path / "in.parquet", 10_000, row_group)
    shards = shards_of(tmp_path / "in.parquet", 700)
    reader = ParquetReader(Storage(), COLUMNS, 1 << 20, {})
    order = list(shards)
    random.Random(1).shuffle(order)
    for shard in [*shards, *order]:
        assert read(reader, shard) == list(range(shard.slices[0].source_row, shard.slices[0].source_row + shard.rows))


def test_a_shard_given_up_half_way_does_not_spoil_the_next(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", 30_000, 30_000)
    shards = shards_of(tmp_path / "in.parquet", 9000)
    reader = ParquetReader(Storage(), COLUMNS, 1 << 20, {})
    for shard in shards:
        blocks = reader.blocks(shard, {"text": "text"})
        next(blocks)
        del blocks
        assert read(reader, shard) == list(range(shard.slices[0].start, shard.slices[0].start + shard.rows))


def test_an_input_that_changed_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    write(file, 3000, 1000)
    shards = shards_of(file, 500)
    write(file, 3001, 1000)
    with pytest.raises(InputChanged, match=r"in\.parquet was changed after the job was planned"):
        read(ParquetReader(Storage(), COLUMNS, 1 << 20, {}), shards[0])


@pytest.mark.parametrize(
    "arrow", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_every_kind_of_text_column(arrow: Any) -> None:
    table = pa.table({"t": pa.array(["a", None, "", "a"], pa.string()).cast(arrow)})
    a, null, empty, again = to_records(table, {"text": "t"}, {}, 100)
    assert (a, empty, again) == ({"text": "a"}, {"text": ""}, {"text": "a"})
    assert isinstance(null, RecordError)
    assert (null.code, null.message) == ("null_input", "text is null")


def test_text_that_is_not_utf8_spoils_only_its_own_row() -> None:
    data = pa.array([b"good", b"bad \xff", None], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    good, bad, null = to_records(pa.table({"t": column}), {"text": "t"}, {}, 100)
    assert good == {"text": "good"}
    assert isinstance(bad, RecordError)
    assert (bad.code, bad.message) == ("invalid_utf8", "text is not UTF-8: byte 4 of 5")
    assert isinstance(null, RecordError)


def test_an_oversized_cell_is_an_error_row() -> None:
    good, large = to_records(pa.table({"t": ["é" * 50, "é" * 51]}), {"text": "t"}, {}, 100)
    assert good == {"text": "é" * 50}
    assert isinstance(large, RecordError)
    assert large.code == "too_large"


@pytest.mark.parametrize("arrow", [pa.string(), pa.large_string()], ids=str)
def test_an_oversized_cell_is_not_carried_to_the_output(arrow: Any) -> None:
    large = "é" * 51
    texts = pa.array(["a", large, None, "b"], arrow)
    table = pa.table({"other": texts, "t": texts, "n": pa.array(range(4))})
    kept = without_large_texts(table, ["t", "t", "n"], 100)
    assert kept.schema == table.schema
    assert kept.to_pydict() == {"other": ["a", large, None, "b"], "t": ["a", None, None, "b"], "n": [0, 1, 2, 3]}

"""Pages of a Parquet file that can't be read cost their own rows; every other row is what was written."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.planning.parquet_footers import read_footer
from jobs.planning.planner import Limits, plan_shards
from jobs.storage import PinnedReader, Storage
from schemas.errors import RecordError, Transient, Unreadable
from schemas.plan import Shard
from workers.io import parquet_reader
from workers.io.pages import Page, pages_of
from workers.io.parquet_reader import ParquetReader

ROWS, ROW_GROUP = 6000, 2000
_random = random.Random(7)
TABLE = pa.table(
    {
        "id": pa.array(range(ROWS)),
        "text": [None if i % 97 == 0 else f"{_random.getrandbits(160):040x}" for i in range(ROWS)],
        "label": [f"label {i % 5}" for i in range(ROWS)],
        "tags": [[f"{i}"] * (i % 3) for i in range(ROWS)],
    }
)
SMALL_PAGES: dict[str, Any] = {"data_page_size": 4096, "write_batch_size": 50}
#: The bytes of a page that are overwritten, from its header or its content on.
FLIPPED = 40


@dataclass
class Damaged:
    """A table in a file, and the rows whose pages of a column were damaged."""

    file: Path
    table: pa.Table

    def pages(self, row_group: int, column: str) -> list[tuple[int, Page]]:
        """The data pages of a column, each with its first row in the file."""
        metadata = pq.read_metadata(self.file)
        index = [metadata.schema.column(i).path.split(".")[0] for i in range(metadata.num_columns)].index(column)
        storage = Storage()
        with storage.open(storage.stat(str(self.file))) as source:
            found = list(pages_of(source, metadata.row_group(row_group).column(index)))
        first, placed = row_group * ROW_GROUP, []
        for page in found:
            placed.append((first, page))
            first += page.values
        return placed

    def overwrite(self, offset: int, data: bytes) -> None:
        with self.file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(data)

    def damage(self, row_group: int, column: str, number: int, data: bytes = b"\xff" * FLIPPED) -> set[int]:
        """Damage the content of a page; return its rows."""
        first, page = self.pages(row_group, column)[number]
        self.overwrite(page.offset + page.header + 20, data)
        return set(range(first, first + page.values))

    def shards(self, rows: int) -> list[Shard]:
        storage = Storage()
        footer = read_footer(storage, storage.stat(str(self.file)), 1 << 20)
        return list(plan_shards([footer], set(self.table.schema.names), Limits(rows, 1 << 30)))

    def reader(self, storage: Storage | None = None) -> ParquetReader:
        return ParquetReader(storage or Storage(), self.table.schema, 1 << 20, {})

    def read(self, reader: ParquetReader, shard: Shard) -> dict[int, str]:
        """Check that each row that can be read is the one that was written. Return the others' errors."""
        errors: dict[int, str] = {}
        seen: list[int] = []
        for block in reader.blocks(shard, {"text": "text"}):
            for place, row, record in zip(block.source_rows, block.table.to_pylist(), block.records, strict=True):
                written = self.table.slice(place, 1).to_pylist()[0]
                seen.append(place)
                if isinstance(record, RecordError) and record.code == "unreadable":
                    assert all(value in (None, written[name]) for name, value in row.items())
                    errors[place] = record.message
                else:
                    assert row == written
                    assert isinstance(record, RecordError) == (written["text"] is None)
        assert seen == [n for s in shard.slices for n in range(s.source_row, s.source_row + s.rows)]
        return errors

    def errors(self, rows: int = ROWS) -> dict[int, str]:
        """The errors of all shards, of so many rows each, read by one reader."""
        reader = self.reader()
        found = {row: error for shard in self.shards(rows) for row, error in self.read(reader, shard).items()}
        reader.close()
        return found


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Damaged]:
    def written(table: pa.Table = TABLE, **options: Any) -> Damaged:
        usual = {"row_group_size": ROW_GROUP, "use_dictionary": ["label"]} | SMALL_PAGES
        pq.write_table(table, tmp_path / "in.parquet", **(usual | options))
        return Damaged(tmp_path / "in.parquet", table)

    return written


@pytest.mark.parametrize("rows", [ROWS, 700, 90])
@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "none"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_page_costs_its_rows(write: Callable[..., Damaged], compression: str, version: str, rows: int) -> None:
    """Of whichever column, the first page or a later one; however the shards lie.

    Numbers that are damaged are other numbers: only a checksum tells.
    """
    damaged = write(compression=compression, data_page_version=version, write_page_checksum=True)
    assert len(damaged.pages(1, "text")) > 5
    lost = damaged.damage(1, "text", 3) | damaged.damage(1, "id", 0) | damaged.damage(2, "text", 0)
    errors = damaged.errors(rows)
    assert errors.keys() == lost
    assert len(lost) < 1500
    assert all(f"{damaged.file}: rows " in message for message in errors.values())


def test_the_error_names_file_row_group_rows_and_column(write: Callable[..., Damaged]) -> None:
    damaged = write()
    lost = damaged.damage(1, "text", 3)
    first, last = min(lost) - ROW_GROUP, max(lost) - ROW_GROUP
    (message,) = set(damaged.errors().values())
    assert message.startswith(f"{damaged.file}: rows {first} to {last} of row group 1 can't be read: 'text': ")


def test_the_values_that_can_be_read_are_kept(write: Callable[..., Damaged]) -> None:
    damaged = write()
    lost = damaged.damage(0, "text", 2)
    (shard,) = damaged.shards(ROWS)
    rows = [row for block in damaged.reader().blocks(shard, {"text": "text"}) for row in block.table.to_pylist()]
    assert [row["id"] for row in rows] == list(range(ROWS))
    assert [row["label"] for row in rows] == TABLE["label"].to_pylist()
    assert all(rows[n]["text"] is None for n in lost)


def test_a_dictionary_costs_the_column_of_its_row_group(write: Callable[..., Damaged]) -> None:
    damaged = write()
    page = damaged.pages(1, "label")[0][1]
    assert page.is_dictionary
    damaged.overwrite(page.offset + page.header, b"\xff" * 20)
    assert damaged.errors(700).keys() == set(range(2000, 4000))


def test_the_header_of_a_page_costs_the_rows_from_there_on(write: Callable[..., Damaged]) -> None:
    damaged = write()
    first, page = damaged.pages(1, "text")[4]
    damaged.overwrite(page.offset, b"\xff" * page.header)
    assert damaged.errors(700).keys() == set(range(first, 4000))


def test_a_page_that_says_it_has_other_rows_is_not_believed(write: Callable[..., Damaged]) -> None:
    """Every page after it would stand beside the wrong rows."""
    damaged = write()
    page = damaged.pages(1, "text")[2][1]
    damaged.damage(1, "text", 5)
    head = damaged.file.read_bytes()[page.offset : page.offset + page.header]
    varint = bytes([(2 * page.values & 0x7F) | 0x80, 2 * page.values >> 7])
    assert head.count(varint) == 1
    less = page.values - 1
    damaged.overwrite(page.offset + head.index(varint), bytes([(2 * less & 0x7F) | 0x80, 2 * less >> 7]))
    assert damaged.errors().keys() == set(range(2000, 4000))


def test_lists_cost_their_row_group(write: Callable[..., Damaged]) -> None:
    """It isn't known which rows are in which of their pages."""
    damaged = write()
    damaged.damage(1, "tags", 1)
    errors = damaged.errors(700)
    assert errors.keys() == set(range(2000, 4000))
    assert all("'tags': " in message for message in errors.values())


def test_lists_are_kept_beside_a_damaged_text(write: Callable[..., Damaged]) -> None:
    damaged = write()
    lost = damaged.damage(1, "text", 3)
    (shard,) = damaged.shards(ROWS)
    rows = [row for block in damaged.reader().blocks(shard, {"text": "text"}) for row in block.table.to_pylist()]
    assert [rows[n]["tags"] for n in sorted(lost)] == [TABLE["tags"][n].as_py() for n in sorted(lost)]


def test_what_decodes_to_something_else_is_caught_by_its_checksum(write: Callable[..., Damaged]) -> None:
    """Once one page can't be read, no other of the row group is taken at its word."""
    damaged = write(compression="none", write_page_checksum=True)
    lost = damaged.damage(1, "text", 1) | damaged.damage(1, "text", 4, b"x")
    assert damaged.errors().keys() == lost


def test_rows_that_were_handed_out_before_their_page_failed_give_the_shard_up(
    write: Callable[..., Damaged], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that fails in its middle may have had other values before: these must not be committed."""
    monkeypatch.setattr(parquet_reader, "BLOCK_ROWS", 100)
    monkeypatch.setattr("workers.io.decoded_size.BATCH_ROWS", 50)
    damaged = write(compression="none", data_page_size=1 << 20, write_batch_size=5000)
    _, page = damaged.pages(1, "text")[0]
    damaged.overwrite(page.offset + page.size // 2, b"\xff" * FLIPPED)
    (shard,) = damaged.shards(ROWS)
    reader = damaged.reader()
    blocks = reader.blocks(shard, {"text": "text"})
    with pytest.raises(Unreadable, match=r"in\.parquet: row group 1 can't be read"):
        list(blocks)
    monkeypatch.setattr(parquet_reader, "BLOCK_ROWS", ROWS)
    assert damaged.read(reader, shard).keys() == set(range(2000, 4000))


def test_a_store_that_fails_meanwhile_is_no_damage(write: Callable[..., Damaged]) -> None:
    damaged = write()
    lost = damaged.damage(1, "text", 3)

    class Away(Storage):
        left = 10**6

        def open(self, info: Any) -> PinnedReader:
            source = super().open(info)
            read = source._read_at

            def counted(offset: int, length: int) -> bytes:
                Away.left -= 1
                if Away.left < 0:
                    raise Transient("the store is away")
                return read(offset, length)

            source._read_at = counted  # type: ignore[method-assign]
            return source

    (shard,) = damaged.shards(ROWS)
    reader = damaged.reader(Away())
    tries = 0
    for left in range(0, 200, 7):
        Away.left = left
        try:
            assert damaged.read(reader, shard).keys() == lost
        except Transient:
            tries += 1
    assert tries > 5
    Away.left = 10**6
    assert damaged.read(reader, shard).keys() == lost


@pytest.mark.parametrize("seed", range(30))
def test_damage_anywhere(write: Callable[..., Damaged], seed: int) -> None:
    """Of compressed pages, no row is another than was written, nor is there one too few."""
    draw = random.Random(seed)
    damaged = write(compression=draw.choice(["snappy", "gzip"]), write_page_checksum=True)
    chunks = [pq.read_metadata(damaged.file).row_group(g).column(c) for g in range(3) for c in range(3)]
    for chunk in draw.sample(chunks, 3):
        place = chunk.data_page_offset + draw.randrange(chunk.total_compressed_size - FLIPPED)
        damaged.overwrite(place, draw.randbytes(FLIPPED))
    reader = damaged.reader()
    for shard in draw.sample(damaged.shards(700), 9):
        damaged.read(reader, shard)

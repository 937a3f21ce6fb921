"""Read Parquet: a shard's rows, block by block, from the slices that the plan gives it.

A block is a few thousand rows. They are enough to sort by length, and few enough that three blocks (one read ahead, one
computed, one written) stay small.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from jobs.storage import ObjectInfo, PinnedReader, Storage
from jobs.storage.parquet import MAX_FOOTER_BYTES, open_parquet, read_metadata, translated
from schemas.errors import NightshiftError, RecordError, Unreadable
from schemas.plan import NO_ROW_GROUP, Shard, Slice
from schemas.task import Kind
from workers.io.block import ONCE, Block, Reading
from workers.io.decoded_size import batch_rows
from workers.io.records import to_records, without_large_texts

BLOCK_ROWS = 4096
BLOCK_BYTES = 16 << 20
#: The number of bytes that pyarrow requests from a store at once.
READ_BUFFER = 4 << 20


@dataclass
class _Cursor:
    """An open row group. The next shard of the same row group goes on reading where the last one stopped."""

    place: tuple[str, str, int]
    source: PinnedReader
    batches: Iterator[pa.RecordBatch]
    row: int
    rest: pa.RecordBatch | None = None


class ParquetReader:
    """Reads the slices of one job's shards, and keeps the last row group open. For one thread at a time."""

    def __init__(
        self,
        storage: Storage,
        columns: pa.Schema,
        max_cell: int,
        kinds: dict[str, Kind],
        max_footer: int = MAX_FOOTER_BYTES,
    ) -> None:
        """`columns` are the columns to read; `kinds` says what the task's columns hold; both limits are in bytes."""
        self._storage = storage
        self._columns = columns
        self._max_cell = max_cell
        self._max_footer = max_footer
        self._kinds = kinds
        self._cursor: _Cursor | None = None
        self._reading = ONCE

    def blocks(self, shard: Shard, task_columns: dict[str, str], reading: Reading = ONCE) -> Iterator[Block]:
        """Yield the shard's rows in order. `task_columns` maps the task's column names to the table's.

        Raise Unreadable, which names the file and the row group, if the input can't be read. Raise Transient if a store
        is away.
        """
        self._reading = reading
        tables: list[tuple[Slice, int, pa.RecordBatch]] = []
        rows = size = 0
        for part in shard.slices:
            for offset, batch in self._slice(part):
                tables.append((part, offset, batch))
                rows, size = rows + batch.num_rows, size + batch.nbytes
                if rows >= BLOCK_ROWS or size >= BLOCK_BYTES:
                    yield self._block(tables, task_columns)
                    tables, rows, size = [], 0, 0
        if tables:
            yield self._block(tables, task_columns)

    def _block(self, pieces: Sequence[tuple[Slice, int, pa.RecordBatch]], task_columns: dict[str, str]) -> Block:
        uris: list[str] = []
        places: list[int] = []
        for part, offset, batch in pieces:
            uris += [part.uri] * batch.num_rows
            places += range(part.source_row + offset, part.source_row + offset + batch.num_rows)
        table = pa.Table.from_batches([batch for _, _, batch in pieces], schema=self._columns)
        records = to_records(table, task_columns, self._kinds, self._max_cell)
        if any(isinstance(record, RecordError) and record.code == "too_large" for record in records):
            table = without_large_texts(table, task_columns.values(), self._max_cell)
        return Block(table, uris, places, records)

    def _slice(self, part: Slice) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the slice's rows as record batches, each with its first row's place in the slice."""
        cursor = self._at(part)
        done = 0
        while done < part.rows:
            batch = self._next(cursor, part)
            skipped = min(batch.num_rows, part.start + done - cursor.row)
            taken = min(batch.num_rows - skipped, part.rows - done)
            used = skipped + taken
            # The cursor moves on before the rows are handed out, since the caller may not resume this generator.
            cursor.rest = batch.slice(used) if used < batch.num_rows else None
            cursor.row += used
            if taken > 0:
                done += taken
                yield done - taken, batch.slice(skipped, taken)

    def _at(self, part: Slice) -> _Cursor:
        """Return the open cursor if it stands at or before the slice's first row, else open a new one."""
        place = (part.uri, part.etag, part.row_group)
        if self._cursor is not None and self._cursor.place == place and self._cursor.row <= part.start:
            self._cursor.source.on_read = self._reading.moved
            return self._cursor
        self.close()
        source = self._storage.open(ObjectInfo(part.uri, part.size, part.etag))
        source.on_read = self._reading.moved
        with ExitStack() as opened, translated(source, _refusal(part)):
            opened.enter_context(source)
            if part.row_group == NO_ROW_GROUP:
                read_metadata(source, self._max_footer)
                raise Unreadable(f"{part.uri} could not be read when the job was planned; submit a new job for it")
            file = open_parquet(source, self._max_footer, pre_buffer=False, buffer_size=READ_BUFFER)
            batches = file.iter_batches(
                batch_size=batch_rows(file.metadata, part.row_group, set(self._columns.names), source),
                row_groups=[part.row_group],
                columns=self._columns.names,
            )
            opened.pop_all()
        self._cursor = _Cursor(place, source, batches, 0)
        return self._cursor

    def _next(self, cursor: _Cursor, part: Slice) -> pa.RecordBatch:
        if cursor.rest is not None:
            return cursor.rest
        try:
            with translated(cursor.source, _refusal(part)):
                batch = next(cursor.batches, None)
                if batch is None:
                    raise Unreadable(f"{part.uri}: row group {part.row_group} ends before row {part.start + part.rows}")
                return batch.select(self._columns.names).cast(self._columns)
        except NightshiftError:
            self.close()
            raise

    def close(self) -> None:
        """Close the open row group, if there is one."""
        if self._cursor is not None:
            self._cursor.source.close()
            self._cursor = None


def _refusal(part: Slice) -> Callable[[Exception], NightshiftError]:
    where = "its footer" if part.row_group == NO_ROW_GROUP else f"row group {part.row_group}"
    return lambda error: Unreadable(f"{part.uri}: {where} can't be read: {error}")

"""Read Parquet: a shard's rows, block by block, from the slices that the plan gives it.

A block is a few thousand rows. They are enough to sort by length, and few enough that three blocks (one read ahead, one
computed, one written) stay small.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import ObjectInfo, PinnedReader, Storage
from jobs.storage.parquet import MAX_FOOTER_BYTES, READ_BUFFER, open_parquet, read_metadata, translated
from schemas.errors import NightshiftError, RecordError, Unreadable
from schemas.plan import NO_ROW_GROUP, Shard, Slice
from schemas.task import Kind
from workers.io.block import ONCE, Block, Reading
from workers.io.damaged_row_group import DamagedRowGroup
from workers.io.decoded_size import batch_rows
from workers.io.records import to_records, without_large_texts

BLOCK_ROWS = 4096
BLOCK_BYTES = 16 << 20


@dataclass
class _Cursor:
    """An open row group. The next shard of the same row group goes on reading where the last one stopped."""

    place: tuple[str, str, int]
    source: PinnedReader
    batches: Iterator[pa.RecordBatch]
    row: int
    rest: pa.RecordBatch | None = None


@dataclass(frozen=True)
class _Damaged:
    """The row group that was found damaged last."""

    place: tuple[str, str, int]
    source: PinnedReader
    group: DamagedRowGroup


class _Undecodable(Unreadable):
    """Some rows of a row group can't be decoded; others may be."""


@dataclass(frozen=True)
class _Piece:
    """Consecutive rows of a slice, the first of them at `offset` in it, or the reason why they can't be read."""

    part: Slice
    offset: int
    batch: pa.RecordBatch
    error: RecordError | None = None


class _Pending:
    """The pieces that are read and not handed out yet, their rows and bytes."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._handed: _Piece | None = None
        self.rows = self.size = 0

    def add(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self.rows += piece.batch.num_rows
        self.size += piece.batch.nbytes

    def take(self) -> list[_Piece]:
        """Return the pieces, which are handed out now."""
        taken = self._pieces
        self._handed = taken[-1]
        self._set([])
        return taken

    def drop(self, part: Slice) -> int:
        """Forget the slice's pieces. Return how many of its rows have been handed out."""
        self._set([piece for piece in self._pieces if piece.part is not part])
        handed = self._handed
        return handed.offset + handed.batch.num_rows if handed is not None and handed.part is part else 0

    def _set(self, pieces: list[_Piece]) -> None:
        self._pieces, self.rows, self.size = [], 0, 0
        for piece in pieces:
            self.add(piece)


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
        self._damaged: _Damaged | None = None
        self._reading = ONCE

    def blocks(self, shard: Shard, task_columns: dict[str, str], reading: Reading = ONCE) -> Iterator[Block]:
        """Yield the shard's rows in order. `task_columns` maps the task's column names to the table's.

        A row that can't be decoded is a RecordError (`unreadable`), with null for the values that can't be read. Raise
        Unreadable, which names the file and the row group, if the input can't be read at all. Raise Transient if a
        store is away.
        """
        self._reading = reading
        pending = _Pending()
        for part in shard.slices:
            for piece in self._pieces(part, pending):
                pending.add(piece)
                if pending.rows >= BLOCK_ROWS or pending.size >= BLOCK_BYTES:
                    yield self._block(pending.take(), task_columns)
        if pending.rows:
            yield self._block(pending.take(), task_columns)

    def _block(self, pieces: Sequence[_Piece], task_columns: dict[str, str]) -> Block:
        uris: list[str] = []
        places: list[int] = []
        for piece in pieces:
            first = piece.part.source_row + piece.offset
            uris += [piece.part.uri] * piece.batch.num_rows
            places += range(first, first + piece.batch.num_rows)
        table = pa.Table.from_batches([piece.batch for piece in pieces], schema=self._columns)
        records = to_records(table, task_columns, self._kinds, self._max_cell)
        if any(isinstance(record, RecordError) and record.code == "too_large" for record in records):
            table = without_large_texts(table, task_columns.values(), self._max_cell)
        row = 0
        for piece in pieces:
            if piece.error is not None:
                records[row : row + piece.batch.num_rows] = [piece.error] * piece.batch.num_rows
            row += piece.batch.num_rows
        return Block(table, uris, places, records)

    def _pieces(self, part: Slice, pending: _Pending) -> Iterator[_Piece]:
        """Yield the slice's rows. If some can't be decoded, read page by page what has not been handed out yet."""
        done, cause = 0, ""
        if self._damaged is None or self._damaged.place != _place(part):
            try:
                yield from self._slice(part)
                return
            except _Undecodable as error:
                done, cause = pending.drop(part), error.message
        try:
            damaged = self._open_damaged(part)
            if done and not damaged.group.is_whole(part.start, part.start + done):
                raise Unreadable(cause)  # some of these rows may have been decoded to what they never were
            yield from self._salvaged(damaged, part, done)
        except NightshiftError:
            self._close_damaged()
            raise

    def _salvaged(self, damaged: _Damaged, part: Slice, done: int) -> Iterator[_Piece]:
        """Yield the slice's rows but the first `done`, page by page."""
        row = part.start + done
        for run in damaged.group.rows(row, part.start + part.rows):
            last = row + len(run)
            error = None
            if run.fault:
                where = f"rows {row} to {last - 1} of row group {part.row_group}"
                error = RecordError("unreadable", f"{part.uri}: {where} can't be read: {run.fault}"[:500])
            yield _Piece(part, row - part.start, run.values, error)
            row = last

    def _slice(self, part: Slice) -> Iterator[_Piece]:
        """Yield the slice's rows. Raise _Undecodable if some can't be decoded."""
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
                yield _Piece(part, done - taken, batch.slice(skipped, taken))

    def _at(self, part: Slice) -> _Cursor:
        """Return the open cursor if it stands at or before the slice's first row, else open a new one."""
        place = _place(part)
        if self._cursor is not None and self._cursor.place == place and self._cursor.row <= part.start:
            self._cursor.source.on_read = self._reading.moved
            return self._cursor
        self._close_cursor()
        with self._opened(part) as (source, file):
            batches = file.iter_batches(
                batch_size=batch_rows(file.metadata, part.row_group, set(self._columns.names), source),
                row_groups=[part.row_group],
                columns=self._columns.names,
            )
        self._cursor = _Cursor(place, source, batches, 0)
        return self._cursor

    def _open_damaged(self, part: Slice) -> _Damaged:
        """Return the slice's row group, opened to be read page by page."""
        if self._damaged is None or self._damaged.place != _place(part):
            self._close_damaged()
            with self._opened(part) as (source, file):
                size = batch_rows(file.metadata, part.row_group, set(self._columns.names), source)
                group = DamagedRowGroup(source, file.metadata, part.row_group, self._columns, size)
            self._damaged = _Damaged(_place(part), source, group)
        self._damaged.source.on_read = self._reading.moved
        return self._damaged

    @contextmanager
    def _opened(self, part: Slice) -> Iterator[tuple[PinnedReader, pq.ParquetFile]]:
        """Open the slice's file. It stays open, unless an error is raised within."""
        source = self._storage.open(ObjectInfo(part.uri, part.size, part.etag))
        source.on_read = self._reading.moved
        with ExitStack() as opened, translated(source, _refusal(part)):
            opened.enter_context(source)
            if part.row_group == NO_ROW_GROUP:
                read_metadata(source, self._max_footer)
                raise Unreadable(f"{part.uri} could not be read when the job was planned; submit a new job for it")
            yield source, open_parquet(source, self._max_footer, pre_buffer=False, buffer_size=READ_BUFFER)
            opened.pop_all()

    def _next(self, cursor: _Cursor, part: Slice) -> pa.RecordBatch:
        if cursor.rest is not None:
            return cursor.rest
        try:
            with translated(cursor.source, partial(_undecodable, part)):
                batch = next(cursor.batches, None)
                if batch is None:
                    raise EOFError(f"it ends before row {part.start + part.rows}")
            with translated(cursor.source, _refusal(part)):
                return batch.select(self._columns.names).cast(self._columns)
        except NightshiftError:
            self._close_cursor()
            raise

    def close(self) -> None:
        """Close the open row groups, if there are any."""
        self._close_cursor()
        self._close_damaged()

    def _close_cursor(self) -> None:
        if self._cursor is not None:
            self._cursor.source.close()
            self._cursor = None

    def _close_damaged(self) -> None:
        if self._damaged is not None:
            self._damaged.source.close()
            self._damaged = None


def _place(part: Slice) -> tuple[str, str, int]:
    return (part.uri, part.etag, part.row_group)


def _undecodable(part: Slice, error: Exception) -> NightshiftError:
    return _Undecodable(_refusal(part)(error).message)


def _refusal(part: Slice) -> Callable[[Exception], NightshiftError]:
    where = "its footer" if part.row_group == NO_ROW_GROUP else f"row group {part.row_group}"
    return lambda error: Unreadable(f"{part.uri}: {where} can't be read: {error}")

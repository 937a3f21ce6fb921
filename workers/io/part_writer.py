"""Write a part: finished rows are gathered into row groups, and these go into its file.

The file is in memory up to a size, and beyond it on disk.
"""

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import RecordError
from schemas.output import ERROR, SOURCE_URI, OwnColumns
from schemas.report import ShardReport
from workers.handler import Prediction
from workers.io.block import Block

#: A part larger than this many bytes is in a temporary file until it is committed.
IN_MEMORY = 32 << 20
#: A row group ends with this many rows, or with the block that brings it to this many bytes of Arrow.
ROW_GROUP_ROWS = 100_000
ROW_GROUP_BYTES = 128 << 20


class PartWriter:
    """Writes one part. Use it as a context manager: its temporary file is deleted on exit, after an error too."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._kept = schema.names[: -len(OwnColumns().names)]
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="nightshift-part-")  # noqa: SIM115 (see __exit__)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._waiting = _Waiting()
        self.rows = 0

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()
        self._file.close()

    def write(self, block: Block, answers: Sequence[Prediction | RecordError]) -> None:
        """Append a block's rows with their answers, one per row."""
        if len(answers) != len(block):
            raise AssertionError(f"{len(answers)} answers for {len(block)} rows")
        columns = [block.table[name] for name in self._kept]
        columns += [
            pa.array(
                [None if isinstance(a, RecordError) else a for a in answers], self._schema.field(len(self._kept)).type
            ),
            pa.array(
                [{"code": a.code, "message": a.message} if isinstance(a, RecordError) else None for a in answers],
                ERROR,
            ),
            pa.array(block.source_uris, pa.string()).cast(SOURCE_URI),
            pa.array(block.source_rows, pa.int64()),
        ]
        rows = pa.Table.from_arrays(columns, schema=self._schema)
        while len(rows):
            room = ROW_GROUP_ROWS - self._waiting.rows
            self._waiting.add(rows.slice(0, room))
            rows = rows.slice(room)
            if self._waiting.rows >= ROW_GROUP_ROWS or self._waiting.size >= ROW_GROUP_BYTES:
                self._end_row_group()
        self.rows += len(block)

    def close(self, report: ShardReport, moved: Callable[[], None] = lambda: None) -> BinaryIO:
        """Finish the part, with the report in its footer, and return its file. Each read of it calls `moved`."""
        if self._waiting.rows:
            self._end_row_group()
        self._writer.add_key_value_metadata(report.to_metadata())
        self._writer.close()
        return cast(BinaryIO, _Followed(self._file, moved))

    def _end_row_group(self) -> None:
        rows = self._waiting.take()
        try:
            groups = [rows.unify_dictionaries()]
        except pa.ArrowInvalid:
            # A kept column numbers its values, and has too few numbers for those of all batches: each has its own.
            groups = [pa.Table.from_batches([batch]) for batch in rows.to_batches()]
        for group in groups:
            self._writer.write_table(group, row_group_size=ROW_GROUP_ROWS)


class _Waiting:
    """The rows of the next row group, and the bytes that they keep in memory."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self.rows = self.size = 0

    def add(self, table: pa.Table) -> None:
        """Add rows. What lies in pieces is copied: each may be a row of a whole batch that it would keep in memory."""
        with suppress(pa.ArrowInvalid):  # dictionaries that can't be one: see above
            table = table.combine_chunks()
        self._tables.append(table)
        self.rows += len(table)
        self.size += table.get_total_buffer_size()

    def take(self) -> pa.Table:
        """Return the rows, which wait no more. They stay in pieces: Parquet's writer needs memory by the piece."""
        taken = pa.concat_tables(self._tables)
        self._tables, self.rows, self.size = [], 0, 0
        return taken


@dataclass(frozen=True)
class _Followed:
    """A file that whoever uploads it reads from the beginning."""

    file: IO[bytes]
    moved: Callable[[], None]

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self.moved()
        return self.file.read(size)

"""Write a part: finished rows go into its Parquet file block by block, in memory up to a size and beyond it on disk."""

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage.checksum import RowChecksum
from schemas.errors import RecordError
from schemas.output import ERROR, SOURCE_URI
from schemas.report import ShardReport
from workers.handler import Prediction
from workers.io.block import Block

#: A part larger than this many bytes is in a temporary file until it is committed.
IN_MEMORY = 32 << 20


class PartWriter:
    """Writes one part. Use it as a context manager: its temporary file is deleted on exit, after an error too."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="nightshift-part-")  # noqa: SIM115 (see __exit__)
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._checksum = RowChecksum(schema)
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
        prediction = self._schema.field("prediction").type
        kept = self._schema.names[: self._schema.get_field_index("prediction")]
        columns = [block.table[name] for name in kept]
        columns += [
            pa.array([None if isinstance(a, RecordError) else a for a in answers], prediction),
            pa.array(
                [{"code": a.code, "message": a.message} if isinstance(a, RecordError) else None for a in answers],
                ERROR,
            ),
            pa.array(block.source_uris, pa.string()).cast(SOURCE_URI),
            pa.array(block.source_rows, pa.int64()),
        ]
        table = pa.Table.from_arrays(columns, schema=self._schema)
        self._checksum.add(table)
        self._writer.write_table(table)
        self.rows += len(block)

    @property
    def checksum(self) -> str:
        """The checksum of the rows that were written."""
        return str(self._checksum)

    def close(self, report: ShardReport, moved: Callable[[], None] = lambda: None) -> BinaryIO:
        """Finish the part, with the report in its footer, and return its file. Each read of it calls `moved`."""
        self._writer.add_key_value_metadata(report.to_metadata())
        self._writer.close()
        return cast(BinaryIO, _Followed(self._file, moved))


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

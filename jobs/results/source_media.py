"""Which picture or clip is an output row about? Its source media, read from the job's input.

The input is read as it is now: it isn't noticed if it was overwritten after the job.
"""

from collections.abc import Iterator
from typing import Any

from jobs.planning.input_files import input_format
from jobs.settings import Settings
from jobs.storage import PinnedReader, Storage
from jobs.storage.base import named_in_row
from jobs.storage.parquet import open_parquet, translated
from schemas.errors import NotFound, RecordError, SpecError, Unreadable
from schemas.job import AcceptedJob
from schemas.output import OwnColumns


class SourceMedia:
    """Called with an output row, returns the bytes of its source. Calls in the output's order are fastest."""

    def __init__(self, job: AcceptedJob, storage: Storage, settings: Settings) -> None:
        """Raise SpecError if the job's task is over text."""
        spec = job.spec
        media = spec.task_schema.media
        if media is None:
            raise SpecError.of("task", f"{spec.task} is over text: its rows have no picture or sound")
        self._column = spec.column(media.name)
        self._spec = spec
        self._own = OwnColumns.of(spec)
        self._settings = settings.narrowed(job.allowed_inputs)
        self._storage = storage.within(self._settings.allowed_inputs)
        self._format: str | None = None
        self._cell_reader: _CellReader | None = None

    def __call__(self, row: dict[str, Any]) -> bytes:
        """Return the bytes. Raise NightshiftError if the source is gone, isn't allowed, or is too large."""
        self._format = self._format or input_format(self._spec, self._storage)
        uri, number = row[self._own.source_uri], row[self._own.source_row]
        if self._format == "media":
            return self._read(uri)
        value = self._cell(uri, number)
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else value.get("path")
        if isinstance(value, bytes):
            return value
        if value is None:
            raise NotFound(f"row {number} of {uri} has nothing in {self._column!r}")
        return self._read(named_in_row(value, uri, self._settings))

    def _cell(self, uri: str, row: int) -> Any:
        reader = self._cell_reader
        if reader is None or reader.uri != uri or reader.row > row:
            if reader is not None:
                reader.source.close()
            reader = self._cell_reader = _CellReader(
                self._storage.open(self._storage.stat(uri)), self._column, self._settings.max_footer_mb << 20
            )
        return reader.cell(row)

    def _read(self, uri: str) -> bytes:
        info = self._storage.stat(uri)
        limit = self._settings.max_object_mb << 20
        if info.size > limit:
            raise RecordError("too_large", f"{uri} has {info.size:,} bytes; max_object_mb allows {limit:,}")
        with self._storage.open(info) as source:
            return source.read()


class _CellReader:
    """Reads one column of a table forward. Row groups before the wanted row are passed over."""

    def __init__(self, source: PinnedReader, column: str, max_footer: int) -> None:
        self.uri = source.info.uri
        self.source = source
        self.row = 0
        with translated(source, self._refusal):
            self._file = open_parquet(source, max_footer)
        self._column = column
        self._group = 0
        self._values: Iterator[Any] = iter(())
        self._end = 0

    def cell(self, row: int) -> Any:
        """Return the value in this row. Rows must be asked for in order. Raise Unreadable."""
        with translated(self.source, self._refusal):
            return self._cell(row)

    def _refusal(self, error: Exception) -> Unreadable:
        return Unreadable(f"{self.uri} can't be read: {error}")

    def _cell(self, row: int) -> Any:
        while row >= self._end:
            self.row = self._end
            if self._group == self._file.num_row_groups:
                raise NotFound(f"{self.uri} has no row {row} any more")
            self._end += self._file.metadata.row_group(self._group).num_rows
            batches = self._file.iter_batches(batch_size=16, row_groups=[self._group], columns=[self._column])
            self._values = (value.as_py() for batch in batches for value in batch.column(0))
            self._group += 1
        while True:
            value = next(self._values)
            self.row += 1
            if self.row > row:
                return value

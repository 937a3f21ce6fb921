"""Which rows of the input is an output row made of? They are read by file and row, in the version that was planned."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from jobs.settings import Settings
from jobs.storage import ObjectInfo, PinnedReader, Storage
from jobs.storage.parquet import open_parquet, translated
from schemas.errors import NotFound, Permanent, Unreadable
from schemas.input_uris import InputUris
from schemas.job import AcceptedJob
from schemas.plan import Slice

_BATCH = 4096


class InputRows:
    """Reads columns of a job's input tables. Rows that are asked for in the input's order are read once.

    A context manager, which closes the file that is open.
    """

    def __init__(self, job: AcceptedJob, slices: Iterable[Slice], storage: Storage, settings: Settings) -> None:
        """`slices` are those of the plan in which the rows lie."""
        self._settings = settings.narrowed(job.allowed_inputs)
        self._storage = storage.within(self._settings.allowed_inputs)
        self._inputs = InputUris(job.spec.input.uris)
        self._planned = {part.uri: ObjectInfo(part.uri, part.size, part.etag) for part in slices}
        self._file: _Table | None = None

    def __enter__(self) -> "InputRows":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def columns(self) -> pa.Schema:
        """Return the columns of the first table that can be read; none if there is no table."""
        for uri in self._planned:
            try:
                return self._opened(uri).schema
            except Unreadable:
                continue
        return pa.schema([])

    def read(self, uris: Sequence[str], rows: Sequence[int], schema: pa.Schema) -> pa.Table:
        """Return these rows, `rows[i]` of `uris[i]`, with the columns of the schema, as its types.

        Raise InputChanged if a file isn't the one that was planned, Permanent if the input doesn't cover it.
        """
        pieces = []
        for uri, found in groupby(zip(uris, rows, strict=True), key=lambda pair: pair[0]):
            pieces += self._opened(uri).read([row for _, row in found], schema.names)
        if not pieces:
            return schema.empty_table()
        return pa.concat_tables([_as(pa.Table.from_batches([piece]), schema) for piece in pieces])

    def _opened(self, uri: str) -> "_Table":
        if self._file is None or self._file.uri != uri:
            info = self._planned.get(uri)
            if info is None or not self._inputs.cover(uri):
                raise Permanent(f"{uri!r} isn't of the job's input", code="plan_broken")
            self._settings.check_allowed(uri, self._settings.allowed_inputs, "input.uri")
            if self._file is not None:
                self._file.close()
            self._file = _Table(self._storage.open(info), self._settings.max_footer_mb << 20)
        return self._file


class _Table:
    """A Parquet file that is read forward, batch by batch. Row groups before the wanted row are passed over."""

    def __init__(self, source: PinnedReader, max_footer: int) -> None:
        self.uri = source.info.uri
        self._source = source
        with translated(source, self._refusal):
            self._file = open_parquet(source, max_footer)
            self.schema = self._file.schema_arrow.remove_metadata()
        self._names: list[str] = []
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._start = 0
        self._batch: pa.RecordBatch | None = None

    def close(self) -> None:
        self._source.close()

    def read(self, rows: list[int], names: list[str]) -> list[pa.RecordBatch]:
        """Return these rows, in as many batches as it takes."""
        found = []
        with translated(self._source, self._refusal):
            at = 0
            while at < len(rows):
                batch = self._holding(rows[at], names)
                places = []
                while at < len(rows) and self._start <= rows[at] < self._start + batch.num_rows:
                    places.append(rows[at] - self._start)
                    at += 1
                found.append(batch.take(pa.array(places, pa.int64())))
        return found

    def _holding(self, row: int, names: list[str]) -> pa.RecordBatch:
        """Return the batch that holds the row, which `_start` is then the first row of."""
        batch = self._batch
        if batch is None or names != self._names or row < self._start:
            batch = self._from_group_of(row, names)
        while row >= self._start + batch.num_rows:
            self._start += batch.num_rows
            following = next(self._batches, None)
            if following is None:
                raise NotFound(f"{self.uri} has no row {row}")
            self._batch = batch = following
        return batch

    def _from_group_of(self, row: int, names: list[str]) -> pa.RecordBatch:
        metadata = self._file.metadata
        group = start = 0
        while group < metadata.num_row_groups - 1 and row >= start + metadata.row_group(group).num_rows:
            start += metadata.row_group(group).num_rows
            group += 1
        missing = [name for name in names if name not in self.schema.names]
        if missing:
            raise Unreadable(f"{self.uri} has no column {missing[0]!r}")
        self._names, self._start = names, start
        groups = range(group, metadata.num_row_groups)
        self._batches = self._file.iter_batches(_BATCH, list(groups), columns=names)
        self._batch = next(self._batches, None)
        if self._batch is None:
            raise NotFound(f"{self.uri} has no row {row}")
        return self._batch

    def _refusal(self, error: Exception) -> Unreadable:
        return Unreadable(f"{self.uri} can't be read: {error}")


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the table with the schema's columns and types: one file may have text, another a dictionary of it."""
    table = table.select(schema.names)
    return table if table.schema.equals(schema) else table.cast(schema)

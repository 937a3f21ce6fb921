"""Which rows of a row group can be read if some of its pages can't? Each page is read alone, so it costs only its rows.

Of a column of lists, or of structs with several fields, it isn't known which rows a page has: if one of its pages can't
be read, the column has no values in this row group.

A page that can't be read to its end has no rows that can be trusted: what is broken may be decoded, to other values.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import ObjectInfo, PinnedReader
from jobs.storage.parquet import BROKEN, READ_BUFFER
from workers.io.pages import Page, pages_of, start_of


@dataclass(frozen=True)
class Run:
    """Consecutive values of a column, or rows of a table: all nulls if they can't be read, for the reason `fault`."""

    values: pa.Array | pa.RecordBatch
    fault: str = ""

    def __len__(self) -> int:
        return len(self.values)


class _Column(Protocol):
    def runs(self, start: int, stop: int) -> Iterator[Run]:
        """Yield the values of the rows start…stop-1."""

    def is_whole(self, start: int, stop: int) -> bool:
        """Return whether no page of the rows start…stop-1 is damaged."""


class DamagedRowGroup:
    """A row group that can't be read as a whole. `batch` is how many rows may be decoded at once."""

    def __init__(
        self, source: PinnedReader, metadata: pq.FileMetaData, group: int, columns: pa.Schema, batch: int
    ) -> None:
        self._schema = columns
        self._columns = {field.name: _column(source, metadata, group, field, batch) for field in columns}

    def is_whole(self, start: int, stop: int) -> bool:
        """Return whether no page of the rows start…stop-1 is damaged."""
        return all(column.is_whole(start, stop) for column in self._columns.values())

    def rows(self, start: int, stop: int) -> Iterator[Run]:
        """Yield the rows start…stop-1, with null in place of each value that can't be read."""
        streams = [column.runs(start, stop) for column in self._columns.values()]
        heads = [next(stream) for stream in streams]
        while start < stop:
            count = min(map(len, heads))
            faults = [f"{name!r}: {head.fault}" for name, head in zip(self._columns, heads, strict=True) if head.fault]
            batch = pa.RecordBatch.from_arrays([head.values[:count] for head in heads], schema=self._schema)
            yield Run(batch, "; ".join(faults))
            start += count
            if start < stop:
                pairs = zip(heads, streams, strict=True)
                heads = [Run(h.values[count:], h.fault) if len(h) > count else next(s) for h, s in pairs]


def _column(source: PinnedReader, metadata: pq.FileMetaData, group: int, field: pa.Field, batch: int) -> _Column:
    paths = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    leaves = [i for i, path in enumerate(paths) if path == field.name or path.startswith(f"{field.name}.")]
    if len(leaves) == 1 and not metadata.schema.column(leaves[0]).max_repetition_level:
        return _PagedColumn(source, metadata, group, field, batch, leaves[0])
    return _WholeColumn(source, metadata, group, field, batch)


@dataclass
class _PagedColumn:
    """A column whose pages' rows are known."""

    source: PinnedReader
    metadata: pq.FileMetaData
    group: int
    field: pa.Field
    batch: int
    leaf: int

    def __post_init__(self) -> None:
        self._chunk = self.metadata.row_group(self.group).column(self.leaf)
        pages = list(pages_of(self.source, self._chunk))
        self._pages = [page for page in pages if page.values]
        self._dictionary = next((page for page in pages if page.is_dictionary), None)
        rows, found = self.metadata.row_group(self.group).num_rows, sum(page.values for page in self._pages)
        whole = bool(pages) and sum(page.size for page in pages) == self._chunk.total_compressed_size
        if found > rows or (whole and found != rows):  # then it isn't known which rows any page has
            self._pages = []
        self._faults: dict[int, str] = {}

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        for first, page in self._placed():
            last = min(first + page.values, stop)
            if start < last:
                yield from self._runs_of(page, start - first, last - first)
                start = last
        if start < stop:
            yield _unread(stop - start, self.field, "the page's header can't be read")

    def is_whole(self, start: int, stop: int) -> bool:
        return all(not run.fault for run in self.runs(start, stop))

    def _placed(self) -> Iterator[tuple[int, Page]]:
        """Yield each page with its first row."""
        first = 0
        for page in self._pages:
            yield first, page
            first += page.values

    def _runs_of(self, page: Page, start: int, stop: int) -> Iterator[Run]:
        fault = self._fault(page)
        if fault:
            yield _unread(stop - start, self.field, fault)
            return
        first = 0
        for values in self._decoded(page):
            last = first + len(values)
            if start < last and first < stop:
                yield Run(values[max(0, start - first) : stop - first])
            first = last

    def _fault(self, page: Page) -> str:
        """Return why the page can't be read; nothing if it can."""
        if page.offset not in self._faults:
            self._faults[page.offset] = self._look(page)
        return self._faults[page.offset]

    def _look(self, page: Page) -> str:
        try:
            read = sum(map(len, self._decoded(page)))
        except BROKEN as error:
            return _reason(error)
        return "" if read == page.values else f"the page has {read} rows of {page.values}"

    def _decoded(self, page: Page) -> Iterator[pa.Array]:
        """Yield the page's values, read from a file that has no other."""
        data = b"".join(self._stored(one) for one in (self._dictionary, page) if one is not None)
        view = _View(self.source.info, start_of(self._chunk), data)
        # The last batch ends with the page: nothing comes after it that could be read.
        step = next(size for size in range(min(self.batch, page.values), 0, -1) if page.values % size == 0)
        batches = _batches(view, self.metadata, self.group, self.field, step, len(data))
        return islice(batches, page.values // step)

    def _stored(self, page: Page) -> bytes:
        """Return the page as it is stored. Raise ValueError if its content isn't the one that was written."""
        self.source.seek(page.offset)
        data = self.source.read(page.size)
        if page.crc is not None and zlib.crc32(data[page.header :]) != page.crc & 0xFFFFFFFF:
            raise ValueError("the page's checksum is wrong")
        return data


@dataclass
class _WholeColumn:
    """A column that can be read from the beginning of the row group to its end, or not at all."""

    source: PinnedReader
    metadata: pq.FileMetaData
    group: int
    field: pa.Field
    batch: int

    def runs(self, start: int, stop: int) -> Iterator[Run]:
        if self._fault:
            yield _unread(stop - start, self.field, self._fault)
            return
        first = 0
        for values in self._decoded():
            last = first + len(values)
            if start < last:
                yield Run(values[max(0, start - first) : stop - first])
            first = last
            if first >= stop:
                return

    def is_whole(self, start: int, stop: int) -> bool:
        return not self._fault

    @cached_property
    def _fault(self) -> str:
        """Why the column can't be read; nothing if it can."""
        try:
            missing = self.metadata.row_group(self.group).num_rows - sum(map(len, self._decoded()))
        except BROKEN as error:
            if self.source.failure is not None:
                raise self.source.failure from None
            return _reason(error)
        return f"it ends {missing} rows too early" if missing else ""

    def _decoded(self) -> Iterator[pa.Array]:
        return _batches(self.source, self.metadata, self.group, self.field, self.batch, READ_BUFFER)


class _View(PinnedReader):
    """The file as if it had nothing but these bytes, from `start` on."""

    def __init__(self, info: ObjectInfo, start: int, data: bytes) -> None:
        super().__init__(info)
        self._start = start
        self._data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        first = max(0, offset - self._start)
        return self._data[first : first + length].ljust(length, b"\0")


def _batches(
    source: PinnedReader, metadata: pq.FileMetaData, group: int, field: pa.Field, rows: int, buffer: int
) -> Iterator[pa.Array]:
    """Yield a column's values, so many rows at once, as the field has them."""
    file = pq.ParquetFile(source, metadata=metadata, pre_buffer=False, buffer_size=buffer)
    for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[field.name]):
        yield batch[field.name].cast(field.type)


def _unread(rows: int, field: pa.Field, fault: str) -> Run:
    return Run(pa.nulls(rows, field.type), fault)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or repr(error)

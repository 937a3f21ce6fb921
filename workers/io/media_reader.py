"""Read media: fetch a job's pictures or sound ahead of the device, many at once and bounded in bytes.

A name in a table's row or a listing becomes the bytes of one object. Nothing is decoded here or written to disk.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from threading import Condition
from typing import Any

import pyarrow as pa

from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from jobs.storage.base import named_in_row
from schemas.errors import AccessDenied, InputChanged, NotFound, RecordError, ShuttingDown, SpecError, Transient
from schemas.job import AcceptedJob
from schemas.plan import NO_COLUMNS, Shard
from schemas.task import Kind
from workers.io.block import ONCE, Block, Reader, Reading, Reference
from workers.io.parquet_reader import ParquetReader
from workers.io.witnesses import Witnesses, is_denied, place_of

#: The number of objects that are fetched at once.
FETCHERS = 32
#: A block of media ends at this many bytes, as stored, or this many records.
BLOCK_BYTES = 32 << 20
BLOCK_RECORDS = 256
#: Bytes of an object that are requested at once: so a large one is seen to come.
PIECE = 64 << 20
#: How often an object is requested before its shard is put back.
TRIES = 3


class ObjectReader:
    """Reads a shard that was planned from a listing. Its records refer to the objects; there are no other columns."""

    def __init__(self, name: str) -> None:
        self._name = name

    def blocks(self, shard: Shard, task_columns: dict[str, str], reading: Reading = ONCE) -> Iterator[Block]:
        uris = [part.uri for part in shard.slices]
        records: list[Any] = [
            {self._name: Reference(part.uri, ObjectInfo(part.uri, part.size, part.etag))} for part in shard.slices
        ]
        yield Block(pa.table({}), uris, [0] * len(uris), records)

    def close(self) -> None: ...


class MediaReader:
    """A reader that replaces each media reference of `inner` by what `make` returns for the object's bytes."""

    def __init__(
        self,
        inner: Reader,
        name: str,
        make: Callable[[bytes], Any],
        storage: Storage,
        settings: Settings,
        witnesses: Witnesses | None = None,
    ) -> None:
        """`witnesses` are those of this process, for all its readers."""
        self._inner = inner
        self._name = name
        self._make = make
        self._storage = storage
        self._settings = settings
        self._witnesses = witnesses or Witnesses()

    def blocks(self, shard: Shard, task_columns: dict[str, str], reading: Reading = ONCE) -> Iterator[Block]:
        """Yield the shard's rows in order, in blocks that end when enough is fetched. Raise what `inner` raises.

        Raise AccessDenied for an object that is denied if the credentials may be at fault, unless the reading is the
        shard's last and nothing in the same place was ever read. Raise Transient if a store is away.
        """
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch") as pool:
            try:
                for block in self._inner.blocks(shard, task_columns, reading):
                    for fetched in self._fetched(block, pool, reading.moved):
                        yield self._settled(fetched, pool, reading)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _fetched(self, block: Block, pool: ThreadPoolExecutor, moved: Callable[[], None]) -> Iterator[Block]:
        with closing(_Room(BLOCK_BYTES)) as room:
            yield from self._in_order(block, pool, room, moved)

    def _in_order(
        self, block: Block, pool: ThreadPoolExecutor, room: "_Room", moved: Callable[[], None]
    ) -> Iterator[Block]:
        wanted = iter(range(len(block)))
        waiting: deque[Future[Any]] = deque()
        records: list[Any] = []
        start = size = 0
        for row in range(len(block)):
            for other in islice(wanted, FETCHERS - len(waiting)):
                take_room = partial(room.take, other)
                fetch = partial(self._fetch, block.records[other], block.source_uris[other], take_room, moved)
                waiting.append(pool.submit(fetch))
            record = waiting.popleft().result()
            room.leave(row)
            if isinstance(record, dict):
                size += len(record[self._name])
                record = record | {self._name: self._make(record[self._name])}
            records.append(record)
            if size >= BLOCK_BYTES or len(records) >= BLOCK_RECORDS or row + 1 == len(block):
                yield replace(block.slice(start, row + 1), records=records)
                start, size, records = row + 1, 0, []

    def _fetch(self, record: Any, table: str, take_room: Callable[[int], None], moved: Callable[[], None]) -> Any:
        """Return the record with the object's bytes in it, or its error, or _Denied.

        `take_room` is called with the object's size before it is read, `moved` whenever bytes have come. Raise
        Transient if the store is away.
        """
        if isinstance(record, RecordError) or isinstance(record[self._name], bytes):
            return record
        reference: Reference = record[self._name]
        limit = self._settings.max_object_mb << 20
        try:
            if reference.info is None:
                reference = Reference(self._allowed(reference.uri, table))
            info = self._info(reference)
            if info.size > limit:
                raise RecordError("too_large", f"{info.uri} has {info.size:,} bytes; max_object_mb allows {limit:,}")
            take_room(info.size)
            return record | {self._name: self._read(info, moved)}
        except RecordError as error:
            return error
        except AccessDenied as error:
            return _Denied(reference, error)
        except (NotFound, InputChanged) as error:
            return RecordError(error.code, error.message)

    def _info(self, reference: Reference) -> ObjectInfo:
        return reference.info or self._storage.stat(reference.uri)

    def _read(self, info: ObjectInfo, moved: Callable[[], None]) -> bytes:
        for tried in range(1, TRIES + 1):
            try:
                with self._storage.open(info) as source:
                    source.on_read = moved
                    data = b"".join(iter(partial(source.read, PIECE), b""))
                self._witnesses.note(info)
                return data
            except Transient:
                if tried == TRIES:
                    raise
        raise AssertionError("unreachable")

    def _settled(self, block: Block, pool: ThreadPoolExecutor, reading: Reading) -> Block:
        """Return the block with an error for each object that is denied while the credentials are seen to work.

        They must work both before and after a second look at these objects: credentials that expired meanwhile, or were
        renewed, are no fault of a record.
        """
        denied = [record for record in block.records if isinstance(record, _Denied)]
        if not denied:
            return block
        self._check_credentials(denied, reading)
        for found, still in zip(denied, pool.map(self._is_denied, denied), strict=True):
            if not still:
                raise Transient(f"{found.error.message}; a moment later it could be read")
        self._check_credentials(denied, reading)
        records = [r.as_record_error() if isinstance(r, _Denied) else r for r in block.records]
        return replace(block, records=records)

    def _check_credentials(self, denied: Sequence["_Denied"], reading: Reading) -> None:
        """Raise AccessDenied unless a witness can be read in each place where objects are denied.

        On the shard's last try, a place where nothing was ever read needs no witness.
        """
        for place, found in {place_of(one.reference.uri): one for one in denied}.items():
            readable = self._witnesses.readable(place, self._storage)
            if not readable and not (readable is None and reading.is_last()):
                raise found.error

    def _is_denied(self, found: "_Denied") -> bool:
        try:
            return is_denied(self._info(found.reference), self._storage)
        except AccessDenied:
            return True
        except NotFound:
            return False

    def _allowed(self, uri: str, table: str) -> str:
        try:
            return named_in_row(uri, table, self._settings)
        except SpecError as error:
            raise RecordError("uri_not_allowed", error.problems[0].message) from None

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class _Denied:
    """Stands for a record until it is known whether its object alone is denied. The reference has the whole URI."""

    reference: Reference
    error: AccessDenied

    def as_record_error(self) -> RecordError:
        return RecordError(self.error.code, self.error.message)


class _Room:
    """Bytes of objects that are fetched and not used yet. The next one to be used always has room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[int, int] = {}
        self._next = 0
        self._closed = False
        self._changed = Condition()

    def take(self, row: int, size: int) -> None:
        """Wait until there is room for the row's object. Raise ShuttingDown if the reader has been closed."""
        with self._changed:
            while not self._closed and row != self._next and sum(self._sizes.values()) + size > self._limit:
                self._changed.wait()
            if self._closed:
                raise ShuttingDown("the reader has been closed")
            self._sizes[row] = size

    def leave(self, row: int) -> None:
        """Note that the row's object is used, and that the row after it is the next."""
        with self._changed:
            self._sizes.pop(row, None)
            self._next = row + 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def reader_for(
    job: AcceptedJob, columns: pa.Schema, storage: Storage, settings: Settings, witnesses: Witnesses | None = None
) -> Reader:
    """Return the reader for a job's input, of which `columns` are to be read. `witnesses` are those of this process.

    URIs in the rows are allowed if the settings allow them, and if the submitter of the job may read them. Raise
    Permanent if a library that decodes the input is not installed.
    """
    settings = settings.narrowed(job.allowed_inputs)
    storage = storage.within(settings.allowed_inputs)
    task = job.spec.task_schema
    kinds = {column.name: column.kind for column in task.columns}
    if task.media is None:
        return ParquetReader(storage, columns, settings.max_cell_mb << 20, kinds, settings.max_footer_mb << 20)
    inner: Reader = (
        ObjectReader(task.media.name)
        if columns == NO_COLUMNS
        else ParquetReader(storage, columns, settings.max_object_mb << 20, kinds, settings.max_footer_mb << 20)
    )
    return MediaReader(inner, task.media.name, _maker(task.media.kind, settings), storage, settings, witnesses)


def _maker(kind: Kind, settings: Settings) -> Callable[[bytes], Any]:
    # Imported here, since a worker for text need not have the libraries that decode media.
    if kind is Kind.IMAGE:
        from workers.vision.picture import Picture

        return lambda data: Picture(data, settings.max_pixels)
    from workers.audio.clip import Clip

    return lambda data: Clip(data, settings.max_seconds)

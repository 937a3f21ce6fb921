"""Rows of a job's results from a place in them, read no further than they are asked for.

A place is a shard and a row of its part, so that it stays where it is while an unfinished job gets more parts.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.results.convert import NotFinished, to_json, to_rows
from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import list_parts, read_manifest
from schemas.errors import SpecError
from schemas.job import AcceptedJob
from schemas.layout import child, shard_of

#: Bytes of JSON after which a page ends.
PAGE_BYTES = 8 << 20
_BATCH = 256

CURSOR = r"^\d{1,9}\.\d{1,12}$"


@dataclass(frozen=True)
class Place:
    """A row of a shard's part, counted from its first."""

    shard: int = 0
    row: int = 0

    def __str__(self) -> str:
        return f"{self.shard}.{self.row}"

    @classmethod
    def parse(cls, text: str | None) -> "Place":
        """Raises SpecError for a cursor that no page gave."""
        if text is None:
            return cls()
        if not re.fullmatch(CURSOR, text):
            raise SpecError.of("cursor", f"{text!r} is no cursor; send `next` of a page")
        shard, _, row = text.partition(".")
        return cls(int(shard), int(row))


def batches_from(
    job: AcceptedJob, place: Place, storage: Storage, *, partial: bool, errors_only: bool
) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """The rows from a place on, with the place of each batch's first; those without an error are left out on request.

    Raises NotFinished where the job has not ended and `partial` isn't asked for.
    """
    for shard, info in _parts(job, place, storage, partial, errors_only):
        first = place.row if shard == place.shard else 0
        yield from _batches(shard, first, info, storage)


def _parts(
    job: AcceptedJob, place: Place, storage: Storage, partial: bool, errors_only: bool
) -> Iterator[tuple[int, ObjectInfo]]:
    manifest = read_manifest(job.output, storage)
    if manifest is not None:
        parts = sorted(manifest.parts, key=lambda part: part.shard)
        names = [part.name for part in parts if part.shard >= place.shard and (part.error_rows or not errors_only)]
        for name in names:
            shard = shard_of(name)
            assert shard is not None
            yield shard, storage.stat(child(job.output, name))
    elif partial:
        yield from ((shard, info) for shard, info in list_parts(job.output, storage) if shard >= place.shard)
    else:
        raise NotFinished(f"job {job.id} has not ended: wait for it, or read what is there with partial=true")


def _batches(shard: int, first: int, info: ObjectInfo, storage: Storage) -> Iterator[tuple[Place, pa.RecordBatch]]:
    with storage.open(info) as source:
        file = pq.ParquetFile(source)
        before = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > first:
                start = before
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    skipped = max(0, min(first - start, batch.num_rows))
                    if skipped < batch.num_rows:
                        yield Place(shard, start + skipped), batch.slice(skipped)
                    start += batch.num_rows
            before += rows


@dataclass
class Page:
    rows: list[dict[str, Any]]
    next: Place | None


def page(found: Iterable[tuple[Place, pa.RecordBatch]], limit: int, errors_only: bool) -> Page:
    """The first rows, up to the limit or so many bytes, and the place where the next page begins."""
    rows: list[dict[str, Any]] = []
    size = 0
    for place, batch in found:
        wanted = _with_error(batch) if errors_only else range(batch.num_rows)
        for row in wanted:
            if len(rows) == limit or size >= PAGE_BYTES:
                return Page(rows, Place(place.shard, place.row + row))
            made = to_json(to_rows(batch.slice(row, 1))[0])
            rows.append(made)
            size += len(json.dumps(made, ensure_ascii=False))
    return Page(rows, None)


def _with_error(batch: pa.RecordBatch) -> list[int]:
    found: list[int] = pc.indices_nonzero(pc.is_valid(batch["error"])).to_pylist()
    return found


def limited(batches: Iterable[pa.RecordBatch], limit: int | None) -> Iterator[pa.RecordBatch]:
    """The batches, cut to so many rows in all."""
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)


def only_errors(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        found = batch.filter(pc.is_valid(batch["error"]))
        if found.num_rows:
            yield found


def ipc_stream(batches: Iterator[pa.RecordBatch]) -> Iterator[bytes]:
    """The batches as an Arrow IPC stream, piece by piece; an empty one without columns where there is none."""
    first = next(batches, None)
    sink = _Sink()
    schema = pa.schema([]) if first is None else first.schema
    with pa.ipc.new_stream(sink, schema) as writer:
        if first is not None:
            writer.write_batch(first)
            yield sink.take()
            for batch in batches:
                writer.write_batch(batch if batch.schema.equals(schema) else batch.cast(schema))
                yield sink.take()
    yield sink.take()


class _Sink:
    """A file that only grows, and is emptied as it is sent."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def numbered(batches: Iterable[pa.RecordBatch], skip: int) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """Batches that have no shards, as if they were one part; the first rows left out."""
    start = 0
    for batch in batches:
        skipped = max(0, min(skip - start, batch.num_rows))
        if skipped < batch.num_rows:
            yield Place(0, start + skipped), batch.slice(skipped)
        start += batch.num_rows

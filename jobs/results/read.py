"""How are the rows of a job read? Batch by batch, all of them or from a place on, and no further than needed.

A place is a shard and a row of its part, so that it stays the same while an unfinished job gets more parts.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.convert import to_json, to_rows
from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import JobFolder, open_part
from schemas.errors import NotFinished, SpecError
from schemas.job import AcceptedJob
from schemas.output import OwnColumns, kept_columns, output_schema

#: Bytes of JSON after which a page ends.
PAGE_BYTES = 8 << 20
#: Rows that are decoded at once: of a page, and of whole results.
_PAGE_BATCH = 256
_BATCH = 1024
#: Seconds between two looks for new parts.
_FOLLOW_S = 2.0

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
        """Read a cursor. Raise SpecError if it isn't one of a page."""
        if text is None:
            return cls()
        if not re.fullmatch(CURSOR, text):
            raise SpecError.of("cursor", f"{text!r} is no cursor; send `next` of a page")
        shard, _, row = text.partition(".")
        return cls(int(shard), int(row))


def result_batches(
    job: AcceptedJob, storage: Storage, *, partial: bool = False, errors_only: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the job's rows in input order, batch by batch. `partial` reads the parts of a job that hasn't ended.

    Raise NotFinished if the job hasn't ended and `partial` is False.
    """
    folder = JobFolder.of(job, storage)
    manifest = folder.read_manifest()
    if manifest is not None:
        parts = (folder.part(part.name) for part in manifest.parts)
    elif partial:
        parts = (info for _, info in folder.parts())
    else:
        raise NotFinished(f"job {job.id} has not ended: wait for it, or read what is there with --partial")
    batches = _whole(parts, folder.storage)
    yield from only_errors(batches, OwnColumns.of(job.spec)) if errors_only else batches


def result_schema(job: AcceptedJob, storage: Storage) -> pa.Schema:
    """Return the schema of the job's rows: of its first part, or by its plan. Raise NotFinished if it has neither."""
    folder = JobFolder.of(job, storage)
    for _, info in folder.parts():
        with open_part(info, folder.storage) as part:
            return part.schema_arrow
    plan = folder.find_plan()
    if plan is None:
        raise NotFinished(f"job {job.id} has no plan yet: the columns of its rows aren't known")
    columns = plan.columns()
    kept = [columns.field(name) for name in kept_columns(job.spec, columns)]
    return output_schema(job.spec, pa.schema(kept))


def followed_batches(
    job: AcceptedJob, storage: Storage, *, errors_only: bool = False, wait: Callable[[float], None] = time.sleep
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of each part as it is committed, until the job has ended. Parts come in no certain order."""
    folder = JobFolder.of(job, storage)
    seen: set[int] = set()
    while True:
        has_ended = folder.has_ended(job)
        for shard, info in folder.parts():
            if shard not in seen:
                seen.add(shard)
                batches = _whole([info], folder.storage)
                yield from only_errors(batches, OwnColumns.of(job.spec)) if errors_only else batches
        if has_ended:
            return
        wait(_FOLLOW_S)


def _whole(parts: Iterable[ObjectInfo], storage: Storage) -> Iterator[pa.RecordBatch]:
    for info in parts:
        with open_part(info, storage) as part:
            yield from (batch for batch in part.iter_batches(batch_size=_BATCH) if batch.num_rows)


def batches_from(
    job: AcceptedJob, place: Place, storage: Storage, *, partial: bool, errors_only: bool
) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """Yield the rows from a place on, batch by batch, with the place of each batch's first row.

    `errors_only` leaves out the parts that have no error. Raise NotFinished if the job has not ended and `partial` is
    False.
    """
    folder = JobFolder.of(job, storage)
    for shard, info in _parts(job, place, folder, partial, errors_only):
        first = place.row if shard == place.shard else 0
        yield from _batches(shard, first, info, folder.storage)


def _parts(
    job: AcceptedJob, place: Place, folder: JobFolder, partial: bool, errors_only: bool
) -> Iterator[tuple[int, ObjectInfo]]:
    manifest = folder.read_manifest()
    if manifest is not None:
        for part in sorted(manifest.parts, key=lambda part: part.shard):
            if part.shard >= place.shard and (part.error_rows or not errors_only):
                yield part.shard, folder.part(part.name)
    elif partial:
        yield from ((shard, info) for shard, info in folder.parts() if shard >= place.shard)
    else:
        raise NotFinished(f"job {job.id} has not ended: wait for it, or read what is there with partial=true")


def _batches(shard: int, first: int, info: ObjectInfo, storage: Storage) -> Iterator[tuple[Place, pa.RecordBatch]]:
    with open_part(info, storage) as part:
        before = 0
        for group in range(part.num_row_groups):
            rows = part.metadata.row_group(group).num_rows
            if before + rows > first:
                start = before
                for batch in part.iter_batches(batch_size=_PAGE_BATCH, row_groups=[group]):
                    skipped = max(0, min(first - start, batch.num_rows))
                    if skipped < batch.num_rows:
                        yield Place(shard, start + skipped), batch.slice(skipped)
                    start += batch.num_rows
            before += rows


@dataclass
class Page:
    rows: list[dict[str, Any]]
    next: Place | None


def page(found: Iterable[tuple[Place, pa.RecordBatch]], limit: int, errors_of: OwnColumns | None = None) -> Page:
    """Return the first rows, up to the limit or PAGE_BYTES, and the place where the next page begins.

    With `errors_of`, these are the rows that have an error.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    for place, batch in found:
        wanted = range(batch.num_rows) if errors_of is None else _with_error(batch, errors_of)
        for row in wanted:
            if len(rows) == limit or size >= PAGE_BYTES:
                return Page(rows, Place(place.shard, place.row + row))
            made = to_json(to_rows(batch.slice(row, 1))[0])
            rows.append(made)
            size += len(json.dumps(made, ensure_ascii=False))
    return Page(rows, None)


def _with_error(batch: pa.RecordBatch, own: OwnColumns) -> list[int]:
    found: list[int] = pc.indices_nonzero(pc.is_valid(batch[own.error])).to_pylist()
    return found


def only_errors(batches: Iterable[pa.RecordBatch], own: OwnColumns) -> Iterator[pa.RecordBatch]:
    """Yield the rows that have an error."""
    for batch in batches:
        found = batch.filter(pc.is_valid(batch[own.error]))
        if found.num_rows:
            yield found


def numbered(batches: Iterable[pa.RecordBatch], skip: int) -> Iterator[tuple[Place, pa.RecordBatch]]:
    """Yield batches that belong to no shard as if they were one part. The first `skip` rows are left out."""
    start = 0
    for batch in batches:
        skipped = max(0, min(skip - start, batch.num_rows))
        if skipped < batch.num_rows:
            yield Place(0, start + skipped), batch.slice(skipped)
        start += batch.num_rows

"""Retry: a job of what another one could not do. Its plan is cut from the other's: the rows that have an error, and the
shards that have no part.

Nothing of the job that is retried changes. The slices keep the etags that it was planned with, so that an input that
has changed since is reported, and old and new answers are never of two versions of a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.parallel_map import ahead
from jobs.planning.planner import Limits, Planned
from jobs.results.convert import NotFinished
from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from jobs.storage.base import normalized
from jobs.storage.job_folder import read_job, read_manifest
from jobs.submission.accept import Accepted, Found, check_output, found_job, new_job, write_accepted
from jobs.submission.validate import check_locations
from schemas.errors import NotFound, Permanent, SpecError
from schemas.job import AcceptedJob, OutputSpec, Parent
from schemas.layout import PLAN, child
from schemas.manifest import JobStatus, Manifest
from schemas.plan import OBJECT, Shard, Slice, from_batch, input_schema

#: Slices a shard at most: rows with an error that stand apart are a slice each.
MOST_SLICES = 5000
#: Parts that are read ahead.
_READERS = 8


def nothing_to_retry(manifest: Manifest) -> bool:
    """Whether every record of the job has an answer."""
    complete = manifest.status is JobStatus.SUCCEEDED or 0 < manifest.shards == len(manifest.parts)
    return complete and not manifest.error_rows


def accept_retry(parent: AcceptedJob, output: str | None, storage: Storage, settings: Settings) -> Accepted:
    """A job of what the parent could not do, at `output`, or beside the parent's; one that was begun there is gone on
    with. The parent's spec but for `max_errors`, which is about all of its records.

    Raises NotFinished where the parent has not ended, SpecError where the output can't be used.
    """
    if read_manifest(parent.output, storage) is None:
        raise NotFinished(f"job {parent.id} has not ended: its errors can be retried when it has")
    found: Accepted | None = None
    if output is None:
        output, found = _free_output(parent, storage)
    else:
        output = normalized(output, "output").rstrip("/") + "/"
        there = read_job(output, storage)
        if there is not None and _is_retry_of(there, parent):
            found = found_job(there, storage)
    if found is not None:
        return found
    spec = parent.spec.model_copy(update={"output": OutputSpec(uri=output), "max_errors": None})
    check_locations(spec, settings)
    if check_output(spec, storage) is not None:
        raise SpecError.of("output", f"{output!r} holds the job that is to be retried; name another location")
    job = new_job(spec, parent.model, Parent(job=parent.id, output=parent.output), parent.allowed_inputs)
    there = write_accepted(job, storage, settings)
    if there.id == job.id:
        return Accepted(job, Found.NOTHING, None)
    if not _is_retry_of(there, parent):
        raise SpecError.of("output", f"{output!r} belongs to job {there.id}; name another location")
    return found_job(there, storage)


def _is_retry_of(job: AcceptedJob, parent: AcceptedJob) -> bool:
    return job.parent is not None and job.parent.job == parent.id


def _free_output(parent: AcceptedJob, storage: Storage) -> tuple[str, Accepted | None]:
    """The first location beside the parent's that is empty, or has a retry of it that has not ended."""
    for number in count(1):
        output = f"{parent.output.rstrip('/')}-retry-{number}/"
        there = read_job(output, storage)
        if there is not None and _is_retry_of(there, parent):
            found = found_job(there, storage)
            if found.found is Found.UNFINISHED:
                return output, found
        elif there is None and next(iter(storage.list(output)), None) is None:
            return output, None
    raise AssertionError("unreachable")


def planned_retry(parent: Parent, storage: Storage, limits: Limits) -> Planned | None:
    """The plan of a retry; None where the parent ended before it had one of its own."""
    manifest = read_manifest(parent.output, storage)
    if manifest is None:
        raise Permanent(f"the manifest is gone from {parent.output}", code="job_gone")
    try:
        plan = storage.stat(child(parent.output, PLAN))
    except NotFound:
        return None
    with storage.open(plan) as source:
        columns = input_schema(pq.read_schema(source))
    whole = {part.shard for part in manifest.parts if not part.error_rows}
    parts = {part.shard: child(parent.output, part.name) for part in manifest.parts if part.error_rows}
    shards = (shard for shard in read_shards(plan, storage) if shard.shard not in whole)
    pieces = chain.from_iterable(ahead(partial(_undone, parts, storage), shards, _READERS))
    return Planned(columns, cut(pieces, limits), {})


def read_shards(plan: ObjectInfo, storage: Storage) -> Iterator[Shard]:
    """The shards of a plan, in order."""
    with storage.open(plan) as source:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=256):
            yield from from_batch(batch)


@dataclass(frozen=True)
class Piece:
    """A slice that is to be done again, and about how many bytes of input it is."""

    slice: Slice
    bytes: int


def _undone(parts: dict[int, str], storage: Storage, shard: Shard) -> list[Piece]:
    """Of a shard the rows with an error; all of it where it has no part."""
    uri = parts.get(shard.shard)
    if uri is None:
        return [_piece(part, shard) for part in shard.slices]
    with storage.open(storage.stat(uri)) as source:
        table = pq.ParquetFile(source).read(columns=["error.code"])
    if table.num_rows != shard.rows:
        raise Permanent(f"{uri} has {table.num_rows} rows, its plan {shard.rows}", code="plan_broken")
    return [_piece(part, shard) for part in rows_of(shard, _indices(pc.is_valid(table["error"])))]


def _indices(mask: pa.ChunkedArray) -> list[int]:
    found: list[int] = pc.indices_nonzero(mask).to_pylist()
    return found


def rows_of(shard: Shard, rows: Iterable[int]) -> Iterator[Slice]:
    """These rows of a shard, counted from its first and in order; consecutive ones of a slice are one slice."""
    slices = iter(shard.slices)
    current: Slice | None = None
    part, first = next(slices), 0
    for row in rows:
        while row >= first + part.rows:
            first += part.rows
            part = next(slices)
        start = part.start + row - first
        same = current is not None and (current.uri, current.row_group) == (part.uri, part.row_group)
        if current is not None and same and part.row_group != OBJECT and current.start + current.rows == start:
            current = current.model_copy(update={"rows": current.rows + 1})
            continue
        if current is not None:
            yield current
        current = part.model_copy(update={"start": start, "rows": 1, "source_row": part.source_row + row - first})
    if current is not None:
        yield current


def _piece(part: Slice, shard: Shard) -> Piece:
    if part.row_group == OBJECT:
        return Piece(part, part.size)
    return Piece(part, shard.bytes * part.rows // max(1, shard.rows))


def cut(pieces: Iterable[Piece], limits: Limits) -> Iterator[Shard]:
    """Shards of these slices, in order and within the limits, as far as single slices are."""
    current = Shard(shard=0, slices=(), rows=0, bytes=0)
    taken: list[Slice] = []
    for piece in pieces:
        too_many = current.rows + piece.slice.rows > limits.rows or current.bytes + piece.bytes > limits.bytes
        if taken and (too_many or len(taken) >= MOST_SLICES or not piece.slice.rows or not current.rows):
            yield current.model_copy(update={"slices": tuple(taken)})
            current, taken = Shard(shard=current.shard + 1, slices=(), rows=0, bytes=0), []
        taken.append(piece.slice)
        current = current.model_copy(
            update={"rows": current.rows + piece.slice.rows, "bytes": current.bytes + piece.bytes}
        )
    if taken:
        yield current.model_copy(update={"slices": tuple(taken)})

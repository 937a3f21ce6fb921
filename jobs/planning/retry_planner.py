"""What is run again in a retry? The rows that have an error, and the shards that have no part.

The slices keep the etags that their job was planned with. So an input that has changed since is reported, and old and
new answers are never of two versions of a row.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from jobs.parallel_map import parallel_map
from jobs.planning.planner import Limits, checked
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder, open_part
from schemas.errors import Permanent
from schemas.job import AcceptedJob
from schemas.output import OwnColumns
from schemas.plan import OBJECT, Planned, Shard, Slice

#: Slices of a shard at most: rows with an error that stand apart are one slice each.
MOST_SLICES = 5000
#: Parts that are read ahead.
_READERS = 8


def planned_retry(
    parent: AcceptedJob, storage: Storage, limits: Limits, check: Callable[[], None] = lambda: None
) -> Planned | None:
    """Return the plan of a retry; None if the parent ended before it had a plan of its own.

    `check` is called for each shard, and may raise to end this.
    """
    folder = JobFolder.of(parent, storage)
    manifest = folder.read_manifest()
    if manifest is None:
        raise Permanent(f"the manifest is gone from {parent.output}", code="job_gone")
    plan = folder.find_plan()
    if plan is None:
        return None
    whole = {part.shard for part in manifest.parts if not part.error_rows}
    names = {part.shard: part.name for part in manifest.parts if part.error_rows}
    shards = (shard for shard in plan.shards() if shard.shard not in whole)
    look = partial(_undone, names, folder, OwnColumns.of(parent.spec))
    undone = chain.from_iterable(parallel_map(look, shards, _READERS))
    return Planned(plan.columns(), checked(cut(undone, limits), check), {})


@dataclass(frozen=True)
class UndoneSlice:
    """A slice that is to be run again, and about how many bytes of input it is."""

    slice: Slice
    bytes: int


def _undone(names: dict[int, str], folder: JobFolder, own: OwnColumns, shard: Shard) -> list[UndoneSlice]:
    """Return the rows of a shard that have an error; the whole shard if it has no part."""
    name = names.get(shard.shard)
    if name is None:
        return [_sized(part, shard) for part in shard.slices]
    info = folder.part(name)
    with open_part(info, folder.storage) as part:
        table = part.read(columns=[f"{own.error}.code"])
    if table.num_rows != shard.rows:
        raise Permanent(f"{info.uri} has {table.num_rows} rows, its plan {shard.rows}", code="plan_broken")
    return [_sized(part, shard) for part in rows_of(shard, _indices(pc.is_valid(table[own.error])))]


def _indices(mask: pa.ChunkedArray) -> list[int]:
    found: list[int] = pc.indices_nonzero(mask).to_pylist()
    return found


def rows_of(shard: Shard, rows: Iterable[int]) -> Iterator[Slice]:
    """Return these rows of a shard as slices. They are in order, and counted from the shard's first row.

    Consecutive rows of a slice become one slice.
    """
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


def _sized(part: Slice, shard: Shard) -> UndoneSlice:
    if part.row_group == OBJECT:
        return UndoneSlice(part, part.size)
    return UndoneSlice(part, shard.bytes * part.rows // max(1, shard.rows))


def cut(undone: Iterable[UndoneSlice], limits: Limits) -> Iterator[Shard]:
    """Join slices into shards, in order. A shard is within the limits unless a single slice is not."""
    current = Shard(shard=0, slices=(), rows=0, bytes=0)
    taken: list[Slice] = []
    for one in undone:
        too_many = current.rows + one.slice.rows > limits.rows or current.bytes + one.bytes > limits.bytes
        if taken and (too_many or len(taken) >= MOST_SLICES or not one.slice.rows or not current.rows):
            yield current.model_copy(update={"slices": tuple(taken)})
            current, taken = Shard(shard=current.shard + 1, slices=(), rows=0, bytes=0), []
        taken.append(one.slice)
        current = current.model_copy(update={"rows": current.rows + one.slice.rows, "bytes": current.bytes + one.bytes})
    if taken:
        yield current.model_copy(update={"slices": tuple(taken)})

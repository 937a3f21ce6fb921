"""Which rows of the input has no part? Read from the plan by column, as a shard may have millions of slices."""

import pyarrow as pa
import pyarrow.compute as pc

from jobs.storage.plan_file import Plan
from schemas.manifest import ErrorInfo, LostShard, LostSlice

#: Slices that a manifest lists of one shard, and in all.
MOST_SLICES = 1_000
MOST_SLICES_IN_ALL = 10_000


def lost_shards(failed: dict[int, ErrorInfo], plan: Plan | None) -> list[LostShard]:
    """Return the failed shards, with the input rows that they stand for in the plan, as far as a manifest lists them.

    Without a plan no rows are known.
    """
    found = {number: LostShard(shard=number, error=error, slices=()) for number, error in failed.items()}
    left = MOST_SLICES_IN_ALL
    for number, slices in plan.slices_of(failed.keys()) if plan is not None and failed else ():
        found[number] = _lost(number, failed[number], slices, min(MOST_SLICES, left))
        left -= len(found[number].slices)
    return [found[number] for number in sorted(found)]


def _lost(number: int, error: ErrorInfo, slices: pa.StructArray, most: int) -> LostShard:
    uris, rows, first = slices.flatten()
    starts = _starts_of_runs(uris, first, rows)
    stops = [*starts[1 : most + 1].to_pylist(), len(slices)]
    runs = list(zip(starts[:most].to_pylist(), stops, strict=False))
    listed = runs[-1][1] if runs else 0
    return LostShard(
        shard=number,
        error=error,
        slices=tuple(
            LostSlice(uri=uris[start].as_py(), first_row=first[start].as_py(), rows=_sum(rows[start:stop]))
            for start, stop in runs
        ),
        slices_left_out=len(starts) - len(runs),
        rows_left_out=_sum(rows[listed:]),
    )


def _starts_of_runs(uris: pa.Array, first: pa.Array, rows: pa.Array) -> pa.Array:
    """Return where each run of slices begins that are consecutive rows of one file."""
    if not len(uris):
        return pa.array([], pa.uint64())
    goes_on = pc.and_(pc.equal(uris[1:], uris[:-1]), pc.equal(first[1:], pc.add(first[:-1], rows[:-1])))
    begins = pa.concat_arrays([pa.array([True]), pc.invert(goes_on)])
    return pc.indices_nonzero(begins)


def _sum(rows: pa.Array) -> int:
    total: int = pc.sum(rows, min_count=0).as_py()
    return total

"""How are a job and its retries read as one? Each input row once, in the job's order, with the newest answer.

A retry's rows are those that its parent has no answer to, in the parent's order. So the two are read side by side, with
a batch of each in memory. If a row has no answer, its newest error stands. A row without either is left out, as it is
when the job is read alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import pyarrow as pa
import pyarrow.compute as pc

from jobs.storage import ObjectInfo, Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder, open_part
from schemas.errors import NotFinished, Permanent
from schemas.job import AcceptedJob
from schemas.manifest import Manifest
from schemas.output import OwnColumns

_ROWS = 1024


class _Has(IntEnum):
    """What there is for a row of the plan, from worst to best."""

    NOTHING = 0
    ERROR = 1
    ANSWER = 2


@dataclass
class _Rows:
    """Consecutive rows of a plan: what each has, and its place in the table, which means nothing if it has nothing."""

    table: pa.Table | None
    has: list[_Has]
    at: list[int]

    def __len__(self) -> int:
        return len(self.has)


def batches_with_retries(job: AcceptedJob, catalog: Catalog, *, errors_only: bool = False) -> Iterator[pa.RecordBatch]:
    """Yield the job's rows with its retries' answers, batch by batch. A retry that has not ended is left out.

    Raise NotFinished if the job has not ended.
    """
    manifest = catalog.folder_of(job).read_manifest()
    if manifest is None:
        raise NotFinished(f"job {job.id} has not ended: wait for it")
    source = _Source(job, manifest, catalog)
    while rows := source.take(_ROWS):
        if rows.table is None:
            continue
        kept = [at for has, at in zip(rows.has, rows.at, strict=True) if has]
        table = rows.table.take(pa.array(kept, pa.int64()))
        if errors_only:
            table = table.filter(pc.is_valid(table[OwnColumns.of(job.spec).error]))
        yield from table.combine_chunks().to_batches()
    source.check_read_out()


class _Source:
    """The rows of a job, with its retries' rows laid over them."""

    def __init__(self, job: AcceptedJob, manifest: Manifest, catalog: Catalog) -> None:
        self._job = job
        self._version = manifest.prediction_version
        self._retries = list(_ended_retries(job, catalog))
        self._overlays = [_Source(retry, found, catalog) for retry, found in self._retries]
        for retry, found in self._retries:
            if found.prediction_version != self._version:
                raise Permanent(
                    f"{retry.output} has predictions of version {found.prediction_version}, {job.output} of version "
                    f"{self._version}: read them apart",
                    code="other_version",
                )
        pieces = _own_rows(catalog.folder_of(job), manifest, OwnColumns.of(job.spec))
        if pieces is None:
            # It ended before it had a plan: each retry planned the whole input anew, and the last one stands for it.
            pieces = self._overlays[-1]._all() if self._overlays else iter(())
            self._overlays = []
        self._pieces = pieces
        self._rest = _NONE

    def take(self, count: int) -> _Rows:
        """Return the next rows of the plan: so many, or fewer at its end."""
        own = self._own(count)
        open_rows = [row for row, has in enumerate(own.has) if has is not _Has.ANSWER]
        if open_rows:
            for overlay in self._overlays:
                self._lay_over(own, open_rows, overlay.take(len(open_rows)))
        return own

    def _all(self) -> Iterator[_Rows]:
        while rows := self.take(_ROWS):
            yield rows

    def _own(self, count: int) -> _Rows:
        taken = _NONE
        while len(taken) < count:
            if not self._rest:
                self._rest = next(self._pieces, _NONE)
                if not self._rest:
                    break
            wanted = count - len(taken)
            taken, self._rest = _joined(taken, _cut(self._rest, 0, wanted)), _cut(self._rest, wanted, None)
        return taken

    def _lay_over(self, own: _Rows, open_rows: list[int], newer: _Rows) -> None:
        if len(newer) != len(open_rows):
            raise self._out_of_step()
        offset = own.table.num_rows if own.table is not None else 0
        if newer.table is not None:
            own.table = newer.table if own.table is None else _concat(own.table, newer.table)
        for row, has, at in zip(open_rows, newer.has, newer.at, strict=True):
            if has and has >= own.has[row]:
                own.has[row], own.at[row] = has, offset + at

    def check_read_out(self) -> None:
        """Raise Permanent if a retry has rows that its parent doesn't."""
        for overlay in self._overlays:
            if overlay.take(1):
                raise self._out_of_step()
            overlay.check_read_out()

    def _out_of_step(self) -> Permanent:
        names = ", ".join(retry.output for retry, _ in self._retries)
        return Permanent(
            f"what {self._job.output} has no answer to is not what its retries ran: read them apart ({names})",
            code="not_a_retry",
        )


_NONE = _Rows(None, [], [])


def _ended_retries(job: AcceptedJob, catalog: Catalog) -> Iterator[tuple[AcceptedJob, Manifest]]:
    for pointer in catalog.retries_of(job.id):
        retry = catalog.job(pointer.id)
        manifest = None if retry is None else catalog.folder_of(retry).read_manifest()
        if retry is not None and manifest is not None and manifest.job == retry.id:
            yield retry, manifest


def _own_rows(folder: JobFolder, manifest: Manifest, own: OwnColumns) -> Iterator[_Rows] | None:
    """Return the rows of a job's plan, with nothing for a shard that has no part; None if the job has no plan."""
    plan = folder.find_plan()
    if plan is None:
        return None
    names = {part.shard: part.name for part in manifest.parts}

    def pieces() -> Iterator[_Rows]:
        for shard in plan.shards():
            name = names.get(shard.shard)
            if name is not None:
                yield from _of_part(folder.part(name), folder.storage, own)
            elif shard.rows:
                yield _Rows(None, [_Has.NOTHING] * shard.rows, [0] * shard.rows)

    return pieces()


def _of_part(info: ObjectInfo, storage: Storage, own: OwnColumns) -> Iterator[_Rows]:
    with open_part(info, storage) as part:
        for batch in part.iter_batches(batch_size=_ROWS):
            if batch.num_rows:
                has = [_Has.ERROR if error else _Has.ANSWER for error in pc.is_valid(batch[own.error]).to_pylist()]
                yield _Rows(pa.Table.from_batches([batch]), has, list(range(batch.num_rows)))


def _cut(rows: _Rows, start: int, stop: int | None) -> _Rows:
    return _Rows(rows.table, rows.has[start:stop], rows.at[start:stop]) if rows.has[start:stop] else _NONE


def _joined(one: _Rows, other: _Rows) -> _Rows:
    if one.table is None or other.table is None:
        return _Rows(one.table if one.table is not None else other.table, one.has + other.has, one.at + other.at)
    offset = one.table.num_rows
    return _Rows(_concat(one.table, other.table), one.has + other.has, one.at + [offset + place for place in other.at])


def _concat(one: pa.Table, other: pa.Table) -> pa.Table:
    return pa.concat_tables([one, other]).unify_dictionaries()

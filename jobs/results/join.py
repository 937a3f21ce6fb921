"""How do output rows get the input's other columns? By the file and row that each is of, in the version planned."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.input_rows import InputRows
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from schemas.errors import NotFound, SpecError
from schemas.job import AcceptedJob
from schemas.output import OwnColumns, holds_binary
from schemas.plan import NO_COLUMNS


def joined(
    batches: Iterable[pa.RecordBatch], job: AcceptedJob, storage: Storage, settings: Settings
) -> Iterator[pa.RecordBatch]:
    """Yield the rows with the columns of the input that they lack, but for binary ones, in front of ours.

    A column that has the name of one of ours is called `input_…`. Raise SpecError if the input isn't tables,
    InputChanged if one of them isn't what was planned.
    """
    own = OwnColumns.of(job.spec)
    plan = JobFolder.of(job, storage).find_plan()
    if plan is None:
        raise NotFound(f"the plan is gone from {job.output}: which files the rows are of can't be told")
    if plan.columns() == NO_COLUMNS:
        raise SpecError.of("join", "the input is pictures or sound: there are no columns to join")
    slices = (part for shard in plan.shards() for part in shard.slices)
    with InputRows(job, slices, storage, settings) as source:
        wanted: pa.Schema | None = None
        for batch in batches:
            if wanted is None:
                kept = set(batch.schema.names) - set(own.names)
                columns = source.columns()
                wanted = pa.schema([f for f in columns if f.name not in kept and not holds_binary(f.type)])
            uris = pc.cast(batch[own.source_uri], pa.string()).to_pylist()
            table = source.read(uris, batch[own.source_row].to_pylist(), wanted).combine_chunks()
            yield _beside(batch, table, own)


def _beside(batch: pa.RecordBatch, table: pa.Table, own: OwnColumns) -> pa.RecordBatch:
    names = [name for name in batch.schema.names if name not in own.names]
    columns = {name: batch[name] for name in names}
    for name in table.schema.names:
        values = table[name].combine_chunks()
        columns[f"input_{name}" if name in own.names else name] = values
    return pa.RecordBatch.from_pydict(columns | {name: batch[name] for name in own.names})

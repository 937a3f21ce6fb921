"""The plan: a job's shards in input order, and `_plan.pq`, which holds one row a shard."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

#: Shards a row group of `_plan.pq`: what a worker reads to find one of them.
PLAN_ROW_GROUP = 1000
#: The row group of a slice that stands for a whole file whose footer could not be read.
NO_ROW_GROUP = -1


class Slice(BaseModel):
    """Consecutive rows of one Parquet row group.

    `etag` is the object's as planned, `start` counts from the row group's first row, `source_row` from the file's.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    etag: str
    size: int
    row_group: int
    start: int
    rows: int
    source_row: int


class Shard(BaseModel):
    """A slice of the input small enough to lose: the unit of queueing, retry and commit."""

    model_config = ConfigDict(frozen=True)

    shard: int
    slices: tuple[Slice, ...]
    rows: int
    bytes: int


_SLICE = pa.struct(
    [
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("row_group", pa.int32()),
        ("start", pa.int64()),
        ("rows", pa.int64()),
        ("source_row", pa.int64()),
    ]
)

PLAN_SCHEMA = pa.schema(
    [("shard", pa.int32()), ("slices", pa.list_(_SLICE)), ("rows", pa.int64()), ("bytes", pa.int64())]
)

_INPUT_SCHEMA_KEY = b"nightshift.input_schema"


def plan_schema(columns: pa.Schema) -> pa.Schema:
    """PLAN_SCHEMA, with the Arrow schema of the input columns that the job reads in its metadata."""
    return PLAN_SCHEMA.with_metadata({_INPUT_SCHEMA_KEY: columns.remove_metadata().serialize().to_pybytes()})


def input_schema(plan: pa.Schema) -> pa.Schema:
    """The Arrow schema of the input columns that the job reads: the inverse of `plan_schema`."""
    return pa.ipc.read_schema(pa.py_buffer((plan.metadata or {})[_INPUT_SCHEMA_KEY]))


def to_batch(shards: Iterable[Shard], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([shard.model_dump() for shard in shards], schema=schema)


def from_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[Shard]:
    for row in batch.to_pylist():
        yield Shard.model_validate(row)

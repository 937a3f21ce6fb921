"""The plan: a job's shards in input order, and `_plan.pq`, which holds one row a shard."""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from schemas.incremental import SeriesRun

#: Shards, or slices of them, a row group of `_plan.pq`: what a worker reads to find one shard.
PLAN_ROW_GROUP = 1000
PLAN_SLICES = 20_000
#: The row group of a slice that stands for a whole file whose footer could not be read.
NO_ROW_GROUP = -1
#: The row group of a slice that is a picture or a sound, an object of its own.
OBJECT = -2
#: The schema of an input of such objects: there are no columns to read.
NO_COLUMNS = pa.schema([])


class Slice(BaseModel):
    """Consecutive rows of one Parquet row group, or an object.

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


def shard_fingerprint(spec: str, revision: str, shard: Shard) -> str:
    """Return a hash of all that determines a shard's part: the spec's fingerprint, the model's revision, the slices."""
    return hashlib.sha256(f"{spec}{revision}{shard.model_dump_json()}".encode()).hexdigest()[:32]


class ShardOrder(BaseModel):
    """The order to run one shard, as a worker takes it from Redis: with it and storage it needs nothing else.

    The files of the job lie under `output`; its plan has `shards` shards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    task: str
    output: str
    shard: int
    shards: int


@dataclass(frozen=True)
class Planned:
    """A plan that is not written yet: the columns to read (NO_COLUMNS of objects), and the shards.

    `skipped` counts the files that are no records, and what an incremental job leaves out, by reason. It is complete
    once the shards have been read. `series` is the job's place in its series.
    """

    columns: pa.Schema
    shards: Iterator[Shard]
    skipped: dict[str, int]
    series: SeriesRun | None = None


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


_SKIPPED_KEY = b"nightshift.skipped"
_SERIES_KEY = b"nightshift.series"


def plan_metadata(planned: Planned) -> dict[bytes, bytes]:
    """Return what of the input was no record, by reason, and the job's place in its series, as metadata of the plan."""
    series = {} if planned.series is None else {_SERIES_KEY: planned.series.model_dump_json().encode()}
    return {_SKIPPED_KEY: json.dumps(planned.skipped).encode()} | series


def skipped_files(plan: dict[bytes, bytes]) -> dict[str, int]:
    """Return what of the input was no record, by reason, from all the metadata that a plan has."""
    found: dict[str, int] = json.loads(plan.get(_SKIPPED_KEY, b"{}"))
    return found


def series_run(plan: dict[bytes, bytes]) -> SeriesRun | None:
    """Return the job's place in its series, from all the metadata that a plan has; None of a job that has no series."""
    data = plan.get(_SERIES_KEY)
    return None if data is None else SeriesRun.model_validate_json(data)


def to_batch(shards: Iterable[Shard], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([shard.model_dump() for shard in shards], schema=schema)


def find_row_group(plan: pq.FileMetaData, shard: int) -> int | None:
    """The row group of a plan that holds this shard; shards stand in order."""

    def last(group: int) -> int:
        found: int = plan.row_group(group).column(0).statistics.max
        return found

    group = bisect_left(range(plan.num_row_groups), shard, key=last)
    return group if group < plan.num_row_groups and shard >= 0 else None


def from_batch(batch: pa.RecordBatch | pa.Table) -> Iterator[Shard]:
    for row in batch.to_pylist():
        yield Shard.model_validate(row)

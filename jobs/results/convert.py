"""Results: the rows of a job, from the parts that its manifest names."""

import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.storage import Storage
from jobs.storage.job_folder import list_parts, read_manifest
from schemas.errors import NightshiftError
from schemas.job import AcceptedJob
from schemas.layout import child


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows as Python values, for showing: text that isn't UTF-8 with replacement characters, and what Python has no
    type for (nanoseconds, say) as text."""
    columns = {name: _to_values(batch.column(index)) for index, name in enumerate(batch.schema.names)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _to_values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        data = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="replace") for value in data]
    except ValueError:
        values = column.cast(pa.string()).to_pylist()
    return values


def to_json(value: Any) -> Any:
    """A row's value as JSON has it: NaN and infinity as null, bytes in hexadecimal, times and the like as text."""
    if isinstance(value, dict):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str | int) else str(value)


class NotFinished(NightshiftError):
    """The job has no manifest yet: its results aren't final."""

    code = "not_finished"


def result_batches(
    job: AcceptedJob, storage: Storage, *, partial: bool = False, errors_only: bool = False
) -> Iterator[pa.RecordBatch]:
    """The job's rows in input order, batch by batch. `partial` reads what is there of a job that hasn't ended.

    Raises NotFinished where the job hasn't ended and `partial` isn't asked for.
    """
    manifest = read_manifest(job.output, storage)
    if manifest is not None:
        uris = [child(job.output, part.name) for part in manifest.parts]
    elif partial:
        uris = [info.uri for _, info in list_parts(job.output, storage)]
    else:
        raise NotFinished(f"job {job.id} has not ended: wait for it, or read what is there with --partial")
    for uri in uris:
        with storage.open(storage.stat(uri)) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=1024):
                rows = batch.filter(pc.is_valid(batch["error"])) if errors_only else batch
                if rows.num_rows:
                    yield rows

"""Results: the rows of a job, from the parts that its manifest names."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.files import list_parts, read_manifest
from jobs.storage import Storage
from schemas.errors import NightshiftError
from schemas.job import AcceptedJob
from schemas.layout import child


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

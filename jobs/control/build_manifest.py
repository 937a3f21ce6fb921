"""The end of a job: its manifest, made from the footers of its parts."""

from collections import Counter
from datetime import UTC, datetime

import pyarrow.parquet as pq

from jobs.recover import read_reports
from jobs.state import Progress
from jobs.storage import Storage
from schemas.errors import NotFound
from schemas.job import AcceptedJob
from schemas.layout import PLAN, child
from schemas.manifest import ErrorInfo, JobStatus, LostShard, LostSlice, Manifest, Part
from schemas.plan import from_batch, skipped_files


def make_manifest(job: AcceptedJob, progress: Progress, failed: dict[int, ErrorInfo], storage: Storage) -> Manifest:
    """The manifest of a job that runs no more shards."""
    parts: list[Part] = []
    errors: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    versions: dict[str, set[str]] = {}
    for info, report in read_reports(job.output, storage):
        if report is None:
            continue
        parts.append(
            Part(
                name=info.uri.rsplit("/", 1)[-1],
                shard=report.shard,
                rows=report.rows,
                bytes=info.size,
                etag=info.etag,
                error_rows=report.error_rows,
            )
        )
        errors.update(report.errors)
        seconds.update(report.seconds)
        for name, version in report.versions.items():
            versions.setdefault(name, set()).add(version)
    done = {part.shard for part in parts}
    lost = _lost_shards(job.output, {n: e for n, e in failed.items() if n not in done}, storage)
    return Manifest(
        job=job.id,
        status=_final_status(progress, len(done)),
        error=progress.error,
        task=job.spec.task,
        prediction_version=job.spec.task_schema.version,
        model=job.model,
        accepted_at=job.accepted_at,
        ended_at=datetime.now(UTC),
        shards=progress.shards,
        rows=sum(part.rows for part in parts),
        error_rows=sum(errors.values()),
        errors=dict(errors),
        skipped=_skipped(job.output, storage),
        parts=parts,
        lost=lost,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        versions={name: sorted(found) for name, found in versions.items()},
        parent=job.parent,
    )


def _final_status(progress: Progress, done: int) -> JobStatus:
    if progress.status is JobStatus.CANCELLING:
        return JobStatus.CANCELLED
    complete = progress.status in (JobStatus.RUNNING, JobStatus.PAUSED) and done == progress.shards
    return JobStatus.SUCCEEDED if complete else JobStatus.FAILED


def _skipped(output: str, storage: Storage) -> dict[str, int]:
    """What the plan left out; nothing where a job ended before it had one."""
    try:
        with storage.open(storage.stat(child(output, PLAN))) as source:
            return skipped_files(pq.read_metadata(source).metadata or {})
    except NotFound:
        return {}


def _lost_shards(output: str, failed: dict[int, ErrorInfo], storage: Storage) -> list[LostShard]:
    """The failed shards with the input rows that they stand for, from the plan."""
    if not failed:
        return []
    found = []
    with storage.open(storage.stat(child(output, PLAN))) as source:
        for batch in pq.ParquetFile(source).iter_batches():
            for shard in from_batch(batch):
                if shard.shard in failed:
                    slices = tuple(LostSlice(uri=s.uri, first_row=s.source_row, rows=s.rows) for s in shard.slices)
                    found.append(LostShard(shard=shard.shard, error=failed[shard.shard], slices=slices))
    return found

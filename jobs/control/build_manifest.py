"""How did a job end? Its manifest says so, made from the footers of its parts."""

from collections import Counter
from datetime import UTC, datetime

from jobs.state import Progress
from jobs.storage.job_folder import JobFolder
from schemas.job import AcceptedJob
from schemas.manifest import ErrorInfo, JobStatus, LostShard, LostSlice, Manifest, Part


def build_manifest(job: AcceptedJob, progress: Progress, failed: dict[int, ErrorInfo], folder: JobFolder) -> Manifest:
    """Return the manifest of a job that runs no more shards."""
    parts: list[Part] = []
    errors: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    versions: dict[str, set[str]] = {}
    for info, report in folder.reports():
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
    lost = _lost_shards(folder, {n: e for n, e in failed.items() if n not in done})
    plan = folder.find_plan()
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
        skipped={} if plan is None else plan.skipped(),
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


def _lost_shards(folder: JobFolder, failed: dict[int, ErrorInfo]) -> list[LostShard]:
    """Return the failed shards, with the input rows that they stand for in the plan."""
    if not failed:
        return []
    found = []
    for shard in folder.plan().shards(min(failed)):
        if shard.shard in failed:
            slices = tuple(LostSlice(uri=s.uri, first_row=s.source_row, rows=s.rows) for s in shard.slices)
            found.append(LostShard(shard=shard.shard, error=failed[shard.shard], slices=slices))
    return found

"""How did a job end? Its manifest says so, made from the footers of its parts."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from jobs.control.lost_shards import lost_shards
from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.state import Progress
from jobs.storage import ObjectInfo
from jobs.storage.job_folder import JobFolder
from jobs.storage.parts_tally import PartsTally
from schemas import __version__
from schemas.errors import Damaged, NotFound, Permanent, Transient
from schemas.job import AcceptedJob
from schemas.layout import PLAN, Layout, part_name
from schemas.manifest import ErrorInfo, JobStatus, LostShard, Manifest
from schemas.report import ShardReport

_log = logging.getLogger(__name__)
#: Parts that are looked for at once.
_READERS = 32


def build_manifest(
    job: AcceptedJob,
    progress: Progress,
    failed: dict[int, ErrorInfo],
    folder: JobFolder,
    give_up: Callable[[], bool] = lambda: True,
) -> Manifest:
    """Return the manifest of a job that runs no more shards.

    `give_up` is asked if parts can't be found that were written. Raise Transient if it says to look again later.
    """
    parts = PartsTally()
    for info, report in folder.reports(job.id, progress.shards):
        if report is not None:
            parts.add(info, report)
    error = progress.error
    gone = _look_by_name(parts, progress, failed, folder)
    if gone:
        if not give_up():
            raise Transient(f"{len(gone)} parts aren't found: {gone[min(gone)].message}")
        error = error or _gone_error(gone, folder, progress)
    lost = {number: why for number, why in (failed | gone).items() if number not in parts.found}
    skipped, listed, plan_error = _of_plan(folder, lost, progress)
    return Manifest(
        job=job.id,
        status=_final_status(progress, len(parts.found)),
        error=error or plan_error,
        task=job.spec.task,
        prediction_version=job.spec.task_schema.version,
        model=job.model,
        accepted_at=job.accepted_at,
        ended_at=datetime.now(UTC),
        shards=progress.shards,
        **parts.totals(),
        skipped=skipped,
        lost=listed,
        parent=job.parent,
        version=__version__,
        layout=job.layout,
    )


def _final_status(progress: Progress, done: int) -> JobStatus:
    if progress.status is JobStatus.CANCELLING:
        return JobStatus.CANCELLED
    complete = progress.status in (JobStatus.RUNNING, JobStatus.PAUSED) and done == progress.shards
    return JobStatus.SUCCEEDED if complete else JobStatus.FAILED


def _look_by_name(
    parts: PartsTally, progress: Progress, failed: dict[int, ErrorInfo], folder: JobFolder
) -> dict[int, ErrorInfo]:
    """Look for each part that was written and that the listing lacks. Return the shards whose part isn't there."""
    if progress.status not in (JobStatus.RUNNING, JobStatus.PAUSED):
        return {}

    def look(shard: int) -> tuple[ObjectInfo, ShardReport] | ErrorInfo:
        name = part_name(shard, progress.shards)
        gone = ErrorInfo(code="part_missing", message=f"{folder.part_uri(name)} was written, and is gone")
        try:
            return folder.find_part(name, progress.job) or gone
        except Permanent as error:
            return ErrorInfo(code=error.code, message=error.message)

    absent = [shard for shard in range(progress.shards) if shard not in parts.found and shard not in failed]
    gone: dict[int, ErrorInfo] = {}
    for shard, seen in zip(absent, parallel_map(look, absent, _READERS), strict=True):
        if isinstance(seen, ErrorInfo):
            gone[shard] = seen
        else:
            parts.add(*seen)
    return gone


def _gone_error(gone: dict[int, ErrorInfo], folder: JobFolder, progress: Progress) -> ErrorInfo:
    first = gone[min(gone)]
    elsewhere = _of_earlier_version(part_name(min(gone), progress.shards), folder)
    return ErrorInfo(
        code=first.code,
        message=f"{len(gone):,} of the parts that were written can't be found, the first of them: {first.message}. "
        f"{elsewhere}Run their records again with: nightshift retry {folder.output}",
    )


def _of_earlier_version(name: str, folder: JobFolder) -> str:
    """Return a sentence on the part that a worker wrote which knows one layout, if it lies where such a worker does."""
    flat = JobFolder(folder.output, folder.storage, Layout.FLAT)
    try:
        there = flat.part(name) if folder.layout is Layout.DATA else None
    except NotFound:
        there = None
    if there is None:
        return ""
    return (
        f"{there.uri} seems to be of a worker of an earlier version: while such workers run, set "
        "NIGHTSHIFT_FLAT_OUTPUT=true for whatever accepts jobs. "
    )


def _of_plan(
    folder: JobFolder, lost: dict[int, ErrorInfo], progress: Progress
) -> tuple[dict[str, int], list[LostShard], ErrorInfo | None]:
    """Return what the plan skipped, and the lost shards with their rows. A plan that can't be read knows of neither.

    Then return an error too, if shards were lost.
    """
    try:
        plan = folder.plan()
        return plan.skipped(), lost_shards(lost, plan), None
    except (NotFound, Damaged) as error:
        if progress.shards:  # else the job ended before it had a plan
            event(_log, "plan_unreadable", logging.WARNING, error=error.message)
        why = ErrorInfo(
            code="plan_broken",
            message=f"{error.message}: the rows of the lost shards can't be named. If {folder.uri(PLAN)} is there, "
            f"move it away; nightshift retry {folder.output} then runs the whole input again",
        )
        return {}, lost_shards(lost, None), why if lost else None

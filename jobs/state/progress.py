"""How far a job is, as Redis tells it, and how fast it goes."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.loss import Loss
from schemas.manifest import ErrorInfo, JobStatus
from schemas.task import Group
from schemas.tasks import all_tasks


@dataclass(frozen=True)
class Progress:
    """A job as Redis sees it now. `rows_done` counts committed rows, `rows_live` those done in uncommitted shards.

    Times are Unix seconds by Redis's clock; None if that hasn't happened yet.
    """

    job: str
    task: str
    output: str
    status: JobStatus
    shards: int
    shards_done: int
    shards_failed: int
    shards_running: int
    rows: int
    rows_done: int
    rows_live: int
    #: Rows that were committed before Redis was told of the job, by an earlier run of it.
    rows_before: int
    errors: dict[str, int]
    #: Worker processes that were lost over its shards so far, and why the last one was.
    workers_lost: int
    last_loss: Loss | None
    error: ErrorInfo | None
    accepted: float
    started: float | None
    ended: float | None
    now: float
    #: Until then attempts of before Redis was lost may commit: the job ends only with all of its parts.
    settles: float
    #: The group of workers that the job waits for, if no worker serves it.
    waits_for: str | None

    @property
    def finishable(self) -> bool:
        """Whether all that is left of the job is its manifest. `finishable` in `lua/prelude.lua` says the same."""
        if self.now < self.settles and (self.shards == 0 or self.shards_done < self.shards):
            return False
        if self.status in (JobStatus.RUNNING, JobStatus.PAUSED):
            return self.shards_done + self.shards_failed >= self.shards
        return self.status in (JobStatus.CANCELLING, JobStatus.FAILING) and not self.shards_running


def progress_from(job: str, told: Sequence[Any], now: float, groups: Callable[[], Collection[str]]) -> Progress | None:
    """Return a job's progress from what Redis told, or None if Redis doesn't know the job.

    `groups` returns the groups that workers serve.
    """
    fields, live, errors, held, failed = told
    if "status" not in fields:
        return None
    status = JobStatus(fields["status"])
    # None for a task that this process doesn't have: one of another version, or of a user's own workers.
    known = all_tasks().get(fields["task"])
    needed = Group.CONTROL if status is JobStatus.PLANNING else known.group if known else None
    idle = not status.final and status is not JobStatus.PAUSED and not held

    def seconds_of(name: str) -> float | None:
        return float(fields[name]) if fields.get(name) else None

    return Progress(
        job=job,
        task=fields["task"],
        output=fields["output"],
        status=status,
        shards=int(fields.get("shards", 0)),
        shards_done=int(fields.get("done", 0)),
        shards_failed=failed,
        shards_running=held,
        rows=int(fields.get("rows", 0)),
        rows_done=int(fields.get("rows_done", 0)),
        rows_live=sum(map(int, live)),
        errors={code: int(count) for code, count in errors.items()},
        workers_lost=int(fields.get("workers_lost", 0)),
        last_loss=Loss(fields["last_loss"]) if "last_loss" in fields else None,
        error=ErrorInfo.model_validate_json(fields["error"]) if fields.get("error") else None,
        accepted=float(fields["accepted"]),
        started=seconds_of("started"),
        ended=seconds_of("ended"),
        now=now,
        settles=float(fields.get("settles", 0.0)),
        waits_for=needed.value if idle and needed is not None and needed not in groups() else None,
        rows_before=int(fields.get("rows_before", 0)),
    )


@dataclass(frozen=True)
class Rate:
    """Records a second since the first shard began, and the seconds left at that rate; None if not known yet."""

    rows_per_s: float | None
    left_s: float | None


def rate_of(progress: Progress) -> Rate:
    """Return how fast the job has gone so far."""
    rows = progress.rows_done + progress.rows_live - progress.rows_before
    elapsed = (progress.ended or progress.now) - progress.started if progress.started else 0.0
    if not rows or elapsed <= 0:
        return Rate(None, None)
    speed = rows / elapsed
    return Rate(speed, (progress.rows - progress.rows_before - rows) / speed)

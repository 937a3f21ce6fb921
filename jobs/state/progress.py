"""What Redis tells of a job and of the workers, as values."""

from dataclasses import dataclass, field
from typing import Any

from schemas.manifest import ErrorInfo, JobStatus


@dataclass(frozen=True)
class Progress:
    """A job as Redis sees it now. `rows_done` counts committed rows, `rows_live` those done in uncommitted shards.

    Times are Unix seconds by Redis's clock; None where that hasn't happened yet.
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
    #: Rows that were committed before Redis was told of the job: by an earlier run of it.
    rows_before: int
    errors: dict[str, int]
    error: ErrorInfo | None
    accepted: float
    started: float | None
    ended: float | None
    now: float
    #: The group of workers that the job waits for, where none serves it.
    waits_for: str | None

    @property
    def finishable(self) -> bool:
        """Whether all that is left of the job is its manifest."""
        if self.status in (JobStatus.RUNNING, JobStatus.PAUSED):
            return self.shards_done + self.shards_failed >= self.shards
        return self.status in (JobStatus.CANCELLING, JobStatus.FAILING) and not self.shards_running


@dataclass(frozen=True)
class WorkerInfo:
    """A supervisor that has reported within the last minute, and how many shards it can run at once.

    `work` are the orders of the shards that its processes have in hand.
    """

    name: str
    groups: list[str]
    processes: int
    devices: list[str] = field(default_factory=list)
    work: list[dict[str, Any]] = field(default_factory=list)

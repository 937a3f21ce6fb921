"""What does the API answer? Jobs, their shards, tasks and workers, as JSON."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from jobs.state import Progress, rate_of
from schemas.incremental import SeriesRun
from schemas.job import AcceptedJob, Parent, ResolvedModel
from schemas.loss import Loss
from schemas.manifest import TABLE_REFUSED, ErrorInfo, JobStatus, Manifest


class ProgressView(BaseModel):
    """How far a job is, as Redis knows it. `records_done` counts those in uncommitted shards too."""

    shards: int
    shards_done: int
    shards_failed: int
    shards_running: int
    records: int
    records_done: int
    errors: dict[str, int] = Field(description="Error rows by code.")
    workers_lost: int = Field(description="Worker processes that were lost over its shards so far.")
    last_loss: Loss | None = Field(description="Why the last of them was.")
    records_per_s: float | None
    seconds_left: float | None
    waits_for: str | None = Field(description="The group of workers that the job waits for, if no worker serves it.")

    @classmethod
    def of(cls, progress: Progress) -> "ProgressView":
        rate = rate_of(progress)
        return cls(
            shards=progress.shards,
            shards_done=progress.shards_done,
            shards_failed=progress.shards_failed,
            shards_running=progress.shards_running,
            records=progress.rows,
            records_done=progress.rows_done + progress.rows_live,
            errors=progress.errors,
            workers_lost=progress.workers_lost,
            last_loss=progress.last_loss,
            records_per_s=rate.rows_per_s,
            seconds_left=rate.left_s,
            waits_for=progress.waits_for,
        )


class EndView(BaseModel):
    """How a job ended, by its manifest; by Redis if it has none that can be read."""

    status: JobStatus
    ended_at: datetime
    shards: int
    parts: int
    lost: int = Field(description="Shards without a part.")
    records: int
    error_rows: int
    errors: dict[str, int]
    skipped: dict[str, int]
    error: ErrorInfo | None
    table_version: str | None = Field(
        description="What the parts became in the job's table: Delta's version, or the id of Iceberg's snapshot."
    )

    @property
    def is_refused(self) -> bool:
        """Whether the job's table did not take its parts."""
        return self.error is not None and self.error.code == TABLE_REFUSED

    @classmethod
    def of(cls, manifest: Manifest) -> "EndView":
        return cls(
            status=manifest.status,
            ended_at=manifest.ended_at,
            shards=manifest.shards,
            parts=len(manifest.parts),
            lost=len(manifest.lost),
            records=manifest.rows,
            error_rows=manifest.error_rows,
            errors=manifest.errors,
            skipped=manifest.skipped,
            error=manifest.error,
            table_version=manifest.table_version,
        )

    @classmethod
    def of_progress(cls, progress: Progress) -> "EndView":
        return cls(
            status=progress.status,
            ended_at=datetime.fromtimestamp(progress.ended or progress.now, UTC),
            shards=progress.shards,
            parts=progress.shards_done,
            lost=progress.shards - progress.shards_done,
            records=progress.rows_done,
            error_rows=sum(progress.errors.values()),
            errors=progress.errors,
            skipped={},
            error=progress.error,
            table_version=None,
        )


#: Beside a job's own: `stopped` is one that has not ended and that Redis doesn't know, `unknown` one that has not ended
#: while Redis is away.
Status = Literal[
    "planning",
    "running",
    "paused",
    "cancelling",
    "failing",
    "succeeded",
    "failed",
    "cancelled",
    "stopped",
    "unknown",
]


class JobView(BaseModel):
    """A job, and how far it is. `progress` is there until it has ended, `end` from then on."""

    id: str
    status: Status
    task: str
    model: ResolvedModel
    output: str
    labels: dict[str, str]
    priority: int
    accepted_at: datetime
    parent: Parent | None
    error: ErrorInfo | None = Field(description="Why the job fails, or failed.")
    progress: ProgressView | None
    end: EndView | None

    @classmethod
    def of(cls, job: AcceptedJob, progress: Progress | None, end: EndView | None, answered: bool) -> "JobView":
        status = end.status if end else progress.status if progress else "stopped" if answered else "unknown"
        error = end.error if end else progress.error if progress else None
        return cls(
            id=job.id,
            status=status.value if isinstance(status, JobStatus) else status,
            task=job.spec.task,
            model=job.model,
            output=job.output,
            labels=job.spec.labels,
            priority=job.spec.priority,
            accepted_at=job.accepted_at.astimezone(UTC),
            parent=job.parent,
            error=error,
            progress=ProgressView.of(progress) if progress and not end else None,
            end=end,
        )


class JobDetail(JobView):
    """A job with its spec, everything in it resolved; keys in the URL of `notify` are masked."""

    spec: dict[str, Any]

    @classmethod
    def with_spec(cls, view: JobView, job: AcceptedJob) -> "JobDetail":
        # Who may read a job need not be one who may call its webhook.
        return cls(**dict(view), spec=job.shown().spec.model_dump(mode="json"))


class Submitted(JobDetail):
    """The job of a submission. `found` says what was at its output: nothing, or the same job already."""

    found: Literal["nothing", "unfinished", "ended"]


class JobPage(BaseModel):
    """Jobs, newest first. A page may have fewer than asked for, even none: the last one has no `next`."""

    jobs: list[JobView]
    next: str | None = Field(description="The `cursor` of the next page.")


class PlanView(BaseModel):
    """A dry run: what the job would be. `seconds` is null if the model's speed was never measured here."""

    shards: int
    records: int
    bytes: int
    skipped: dict[str, int]
    series: SeriesRun | None = Field(None, description="The job's place in its series, if it began now.")
    complete: bool = Field(description="False if the input is too large to be counted in time: at least so much.")
    records_per_s: float | None
    seconds: float | None
    found: Literal["nothing", "unfinished", "ended"]


class SliceView(BaseModel):
    uri: str
    first_row: int
    rows: int


class ShardView(BaseModel):
    """A shard of a job's plan. `unknown` is one without a part while Redis is away."""

    shard: int
    status: Literal["waiting", "running", "done", "failed", "unknown"]
    records: int
    bytes: int
    slices: list[SliceView] = Field(description="The first hundred.")
    error: ErrorInfo | None


class ShardPage(BaseModel):
    shards: list[ShardView]
    next: str | None


class RowPage(BaseModel):
    """Rows of a job's results, in input order: kept columns, `prediction`, `error`, `source_uri`, `source_row`.

    NaN and infinity are null, bytes hexadecimal, times text; Arrow has them as they are.
    """

    rows: list[dict[str, Any]]
    next: str | None


class LostView(BaseModel):
    shard: int
    error: ErrorInfo
    slices: list[SliceView]


class ErrorPage(BaseModel):
    """What went wrong: counts by code, the shards without a part, and a page of the rows with an error."""

    errors: dict[str, int]
    lost: list[LostView] = Field(description="The first hundred.")
    rows: list[dict[str, Any]]
    next: str | None


class ColumnView(BaseModel):
    name: str
    required: bool
    kind: str
    description: str


class TaskView(BaseModel):
    """A task: what it reads, and JSON Schemas of its parameters and its prediction."""

    id: str
    aliases: list[str]
    group: str
    summary: str
    columns: list[ColumnView]
    params: dict[str, Any]
    prediction: dict[str, Any]
    prediction_version: int


class TaskList(BaseModel):
    tasks: list[TaskView]


class WorkView(BaseModel):
    """A shard that a process runs, with the model that it has loaded for it."""

    job: str
    task: str
    model: ResolvedModel
    shard: int
    shards: int


class WorkerView(BaseModel):
    """A worker that has reported within the last minute."""

    name: str
    groups: list[str]
    devices: list[str] = Field(description="`cpu`, or `cuda:0` and so on.")
    processes: int
    suspended: int = Field(description="Processes that take no shards for now: so many failed on them, not elsewhere.")
    work: list[WorkView] = Field(description="The shards in hand of the jobs that you may see.")


class WorkerList(BaseModel):
    workers: list[WorkerView]


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether the server answers from storage, and whether Redis does: without it nothing can be submitted."""

    status: Literal["ready"]
    redis: Literal["up", "away"]

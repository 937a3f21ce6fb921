"""How are schedules and runs shown? The same by `--json` and by the API."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from jobs.schedules.due_times import DueTimes
from jobs.schedules.history import Next, Run
from schemas.redaction import masked
from schemas.schedule import RunStatus, ScheduleVersion, Standing


class ScheduleView(BaseModel):
    """A schedule as it stands. Keys in the URLs of `notify` are masked."""

    name: str
    tenant: str
    standing: Standing
    number: int = Field(description="Of its versions: each change, pause and removal is one.")
    next: datetime | None = Field(description="When it is due next, by its time zone's clock; null unless active.")
    made_at: datetime
    made_by: str
    schedule: dict[str, Any]

    @classmethod
    def of(cls, version: ScheduleVersion, now: datetime) -> "ScheduleView":
        schedule = version.schedule.model_dump(mode="json")
        for place in (schedule, schedule["spec"]):
            if isinstance(place.get("notify"), str):
                place["notify"] = masked(place["notify"])
        times = DueTimes(version.schedule.cron, version.schedule.time_zone)
        due = next(times.after(max(now, version.counts_from)), None)
        return cls(
            name=version.name,
            tenant=version.tenant,
            standing=version.standing,
            number=version.number,
            next=due.astimezone(times.zone) if due is not None and version.standing is Standing.ACTIVE else None,
            made_at=version.made_at,
            made_by=version.made_by,
            schedule=schedule,
        )


class SchedulePage(BaseModel):
    """Schedules, by tenant and name. The last page has no `next`."""

    schedules: list[ScheduleView]
    next: str | None = Field(description="The `cursor` of the next page.")


class RunView(BaseModel):
    """A run of a schedule. One that waits has a due time that has come, and nothing was decided of it yet."""

    run: str
    due: datetime
    status: RunStatus
    why: str = Field(description="Why there is no job, or why it failed.")
    jobs: list[str] = Field(description="Its job, and the retries of that.")
    left_out: list[str] = Field(description="URIs of the input at which there was nothing.")
    by_hand: bool
    decided_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, run: Run) -> "RunView":
        record, end = run.record, run.end
        return cls(
            run=run.run,
            due=run.due,
            status=run.status,
            why=run.why,
            jobs=list(run.jobs),
            left_out=[] if record is None else list(record.left_out),
            by_hand=record is not None and record.by_hand,
            decided_at=None if record is None else record.decided_at,
            ended_at=None if end is None else end.ended_at,
        )


class RunPage(BaseModel):
    """Runs, newest first. The last page has no `next`."""

    runs: list[RunView]
    next: str | None = Field(description="The `cursor` of the next page.")


class NextView(BaseModel):
    """A due time to come, with what its run reads and writes; `error` says why it would be refused."""

    due: datetime
    inputs: list[str]
    output: str | None
    error: str | None

    @classmethod
    def of(cls, found: Next) -> "NextView":
        return cls(due=found.due, inputs=list(found.inputs), output=found.output, error=found.error)


class NextList(BaseModel):
    runs: list[NextView]

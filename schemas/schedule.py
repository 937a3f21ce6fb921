"""A schedule, its versions, and its runs, in one form for the file, the command line, the API and the catalog."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, HttpUrl, StrictInt, ValidationError

from schemas.errors import SpecError
from schemas.job import Strict, spec_problems
from schemas.manifest import ErrorInfo

#: Due times that are caught up, or wait, at most; and how far back missed ones are looked for.
MAX_CATCH_UP = 100
#: Seconds within which a run that starts counts as on time. What is later was missed, and `catch_up` decides.
ON_TIME_S = 300
#: What a run's job gets as labels, and what a template leaves out.
RUN_LABELS = ("schedule", "due")
#: A schedule's name: it is a part of URIs.
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"

Seconds = Annotated[StrictInt, Field(ge=0, le=31 * 86400)]


class Schedule(Strict):
    """A job spec with holes, and the times at which it runs."""

    name: str = Field(pattern=NAME, description="Small letters, digits, `-` and `_`.", examples=["nightly-reviews"])
    cron: str = Field(
        min_length=9,
        max_length=200,
        description="Minute, hour, day of the month, month, day of the week.",
        examples=["15 3 * * *"],
    )
    time_zone: str = Field("UTC", max_length=64, description="A name of the IANA database, such as `Europe/Berlin`.")
    spec: dict[str, Any] = Field(
        description="A job spec; URIs and labels may have holes: `{date}`, `{date-1d:%Y/%m/%d}`, `{name}`, `{run}`."
    )
    overlap: Literal["skip", "queue", "cancel_older"] = Field(
        "skip", description="What a run does that is due while an earlier one is under way."
    )
    catch_up: Literal["none", "latest", "all"] = Field(
        "latest", description="Which of the due times that were missed are run."
    )
    catch_up_limit: StrictInt = Field(
        7, ge=1, le=MAX_CATCH_UP, description="Due times at most that `all` catches up, or `queue` keeps waiting."
    )
    start_deadline_s: Annotated[Seconds, Field(ge=1)] | None = Field(
        None, description="Seconds after its due time until which a run may start; null is no deadline."
    )
    jitter_s: Annotated[Seconds, Field(le=86400)] = Field(
        0, description="Seconds at most by which a run starts later; by a hash, so that schedules don't start at once."
    )
    retry_failed: StrictInt = Field(
        0, ge=0, le=10, description="How often what a failed run could not do is run again."
    )
    notify: HttpUrl | None = Field(
        None, description="A URL that gets a signed POST when a run fails, is refused or is missed."
    )


class Rights(Strict):
    """What the token allowed that a schedule was made with. They are kept with the schedule, which needs no token."""

    token: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_running_jobs: int | None = None
    max_priority: int | None = None
    allow_files: bool = False


class Standing(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"
    REMOVED = "removed"

    @property
    def is_removed(self) -> bool:
        return self is Standing.REMOVED


class ScheduleVersion(Strict):
    """A version of a schedule, as the catalog has it. A change, a pause and a removal each are a version.

    Due times count after `counts_from`. `rights` is None if a user of the machine made it, whom the settings alone
    confine.
    """

    number: int
    tenant: str
    schedule: Schedule
    standing: Standing
    counts_from: AwareDatetime
    made_at: AwareDatetime
    made_by: str
    version: str
    rights: Rights | None = None

    @property
    def name(self) -> str:
        return self.schedule.name


class Outcome(StrEnum):
    """What was decided of a due time: a job was started; or else why there is none.

    `empty` is a run without input, which counts as a success.
    """

    STARTED = "started"
    EMPTY = "empty"
    SKIPPED = "skipped"
    MISSED = "missed"
    REFUSED = "refused"


class RunRecord(Strict):
    """The decision on one due time, created once. `run` is its name within the schedule; `number` that of the version.

    `left_out` are URIs of the input at which there was nothing.
    """

    schedule: str
    tenant: str
    run: str
    due: AwareDatetime
    number: int
    outcome: Outcome
    why: str = ""
    job: str | None = None
    by_hand: bool = False
    left_out: tuple[str, ...] = ()
    decided_at: AwareDatetime
    decided_by: str
    version: str


class RunStatus(StrEnum):
    """How a run ended; `waiting` and `running` have not."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EMPTY = "empty"
    SKIPPED = "skipped"
    MISSED = "missed"
    REFUSED = "refused"

    @property
    def is_told(self) -> bool:
        """Return whether `notify` is told of it."""
        return self in (RunStatus.FAILED, RunStatus.MISSED, RunStatus.REFUSED)


class RunEnd(Strict):
    """How a run ended, created once. `jobs` are its job and the retries of that; the last one decided."""

    status: RunStatus
    jobs: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    ended_at: AwareDatetime


def run_name(due: datetime) -> str:
    """Return the name of the run of a due time: `20261120T021500Z`."""
    return f"{due.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def parse_schedule(data: object) -> Schedule:
    """Return a Schedule from parsed YAML or JSON. The template is judged when it is filled.

    Raise SpecError with every problem found.
    """
    if not isinstance(data, Mapping):
        raise SpecError.of("", f"a schedule is a mapping of keys to values, not {type(data).__name__}")
    try:
        return Schedule.model_validate(data)
    except ValidationError as error:
        raise SpecError(spec_problems(error, Schedule)) from None

"""The manifest: the file whose existence makes a job's results final."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from schemas.incremental import SeriesRun
from schemas.job import Parent, ResolvedModel
from schemas.layout import Layout, shard_of
from schemas.redaction import masked
from schemas.table import TableSpec

#: The code of a job whose parts are not in its table.
TABLE_REFUSED = "table_refused"


class JobStatus(StrEnum):
    """The status of a job. `paused`, `cancelling` and `failing` hand out no shards; the last three are final."""

    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FAILING = "failing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class ErrorInfo(BaseModel):
    """An error as it is stored: a stable code, and a message for people."""

    model_config = ConfigDict(frozen=True)

    code: str
    #: Masked, since it may come from a foreign error.
    message: Annotated[str, AfterValidator(masked)]


class Part(BaseModel):
    """A part as it was when the job ended. `checksum` is of its rows; None if an earlier version wrote the part."""

    model_config = ConfigDict(frozen=True)

    name: str
    shard: int
    rows: int
    bytes: int
    etag: str
    error_rows: int
    checksum: str | None = None

    @model_validator(mode="after")
    def _is_a_part(self) -> "Part":
        """Refuse a name that leads elsewhere: who may write to a job's output can write its manifest."""
        if shard_of(self.name) != self.shard:
            raise ValueError(f"{self.name!r} is not the name of a part of shard {self.shard}")
        return self


class Latest(BaseModel):
    """A pointer to the newest results of several jobs, at the place that their `output.latest` names.

    It is written anew when one of them has succeeded. `accepted` and `ended` are that job's.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    output: str
    accepted: datetime
    ended: datetime

    def is_newer(self, other: "Latest") -> bool:
        """Return whether this job began after the other. Ids, which sort by time, decide between two of one moment."""
        return (self.accepted, self.job) > (other.accepted, other.job)


class LostSlice(BaseModel):
    """Rows `first_row` … `first_row + rows - 1` of an input file that no part holds."""

    model_config = ConfigDict(frozen=True)

    uri: str
    first_row: int
    rows: int


class LostShard(BaseModel):
    """A shard without a part, and the reason.

    A long list of slices is cut: `slices_left_out` more have `rows_left_out` rows. The plan has them all.
    """

    model_config = ConfigDict(frozen=True)

    shard: int
    error: ErrorInfo
    slices: tuple[LostSlice, ...]
    slices_left_out: int = 0
    rows_left_out: int = 0


class TableRefusal(BaseModel):
    """`_table_refused-….json`: why the parts of a job that succeeded could not be committed to its table."""

    model_config = ConfigDict(frozen=True)

    job: str
    error: ErrorInfo
    refused_at: datetime


class Manifest(BaseModel):
    """The end of a job, and its results. It is written once, and last but for the notes of a commit to a table.

    `skipped` counts the objects under the input's prefix that were not records, and what an incremental job left out,
    by reason. `series` is the job's place in its series. `reused` counts the rows whose answers were copied. `parent`
    is the job that this one retried. `version` is that of the Nightshift that wrote it. `layout` says where the parts
    lie, for other programs: Nightshift itself goes by the job's. `table_version` is what the parts became in the
    `table`: it is filled in when the manifest is read, since the commit comes after it.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    status: JobStatus
    error: ErrorInfo | None
    task: str
    prediction_version: int
    model: ResolvedModel
    accepted_at: datetime
    ended_at: datetime
    shards: int
    rows: int
    error_rows: int
    errors: dict[str, int]
    skipped: dict[str, int] = {}
    parts: list[Part]
    lost: list[LostShard]
    seconds: dict[str, float]
    versions: dict[str, list[str]]
    parent: Parent | None = None
    version: str | None = None
    series: SeriesRun | None = None
    reused: int = 0
    layout: Layout = Layout.FLAT
    table: TableSpec | None = None
    table_version: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the job did all of its work, and its table did not take it."""
        return self.error is not None and self.error.code == TABLE_REFUSED

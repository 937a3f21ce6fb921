"""The manifest: the file whose existence makes a job's results final."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from schemas.job import Parent, ResolvedModel
from schemas.redaction import masked


class JobStatus(StrEnum):
    """Where a job stands. `paused`, `cancelling` and `failing` hand out no shards; the last three are final."""

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
    """An error as it is kept: a stable code, and a message for people."""

    model_config = ConfigDict(frozen=True)

    code: str
    #: Masked, since it may be that of an error that isn't ours.
    message: Annotated[str, AfterValidator(masked)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    shard: int
    rows: int
    bytes: int
    etag: str
    error_rows: int


class LostSlice(BaseModel):
    """Rows `first_row` … `first_row + rows - 1` of an input file that no part holds."""

    model_config = ConfigDict(frozen=True)

    uri: str
    first_row: int
    rows: int


class LostShard(BaseModel):
    """A shard without a part, and why."""

    model_config = ConfigDict(frozen=True)

    shard: int
    error: ErrorInfo
    slices: tuple[LostSlice, ...]


class Manifest(BaseModel):
    """How a job ended, and what its results are: written once, last.

    `skipped` counts what lay under the input's prefix and was no record, by why; `parent` is the job that this one
    retried.
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

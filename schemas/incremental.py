"""What does a job with `incremental` take of its input? What no earlier run of its series has annotated."""

import hashlib
import json
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import SpecError
from schemas.task import is_text

#: Reasons in `skipped` for what an incremental job leaves out.
OBJECTS_BEFORE = "objects annotated before"
FILES_BEFORE = "files annotated before"
ROWS_BEFORE = "rows annotated before"
NULL_KEYS = "rows with a null key"
REPEATED_KEYS = "rows with a repeated key"


class Incremental(BaseModel):
    """The series that a job belongs to, and what tells its records apart.

    A schedule fills in a folder of its own if `series` is null (`JobSpec.in_series`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    series: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="The folder where the series keeps what its runs annotated; null is a schedule's own."
    )
    key: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A column whose value tells a row from all others; null takes whole files and objects."
    )


class Annotation(BaseModel):
    """All that decides what a record's annotation is, beside the record. `model` is the pinned revision."""

    model_config = ConfigDict(frozen=True)

    task: str
    prediction_version: int
    model: str
    params: str
    dtype: str
    seed: int
    columns: str
    key: str | None

    def fingerprint(self) -> str:
        """Return a hash of it. Runs of one fingerprint count what the others annotated as done."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, before: "Annotation") -> str:
        """Return in words what has changed since `before`."""
        old, new = before.model_dump(), self.model_dump()
        return "; ".join(f"{name} was {old[name]}, is {new[name]}" for name in new if old[name] != new[name])


class SeriesRun(BaseModel):
    """The place of a job in its series.

    `known` counts the objects, files or keys that earlier runs with the same annotation had recorded. `afresh` says
    what has changed since the run before, if there was none with this annotation: everything is annotated again.
    """

    model_config = ConfigDict(frozen=True)

    series: str
    run: int
    fingerprint: str
    known: int
    afresh: str | None = None


def check_key(key: str, table: pa.Schema, kept: list[str]) -> None:
    """Raise SpecError if a column can't be the key of a series: it must be there, be carried, and have plain values."""
    if key not in table.names:
        raise SpecError.of(
            "incremental.key",
            f"the input has no column {key!r}; it has {', '.join(map(repr, table.names)) or 'none'}",
        )
    if key not in kept:
        raise SpecError.of(
            "incremental.key",
            f"column {key!r} is not carried to the output, from which the keys are recorded: add it to input.keep",
        )
    arrow = table.field(key).type
    if not is_key(arrow):
        raise SpecError.of(
            "incremental.key", f"column {key!r} is {arrow}; a key is text, a whole number, a decimal, a date or a time"
        )


def is_key(arrow: pa.DataType) -> bool:
    """Return whether values of this type can be keys: equal ones are written alike."""
    plain = (pa.types.is_integer, pa.types.is_decimal, pa.types.is_date, pa.types.is_time, pa.types.is_timestamp)
    return is_text(arrow) or any(is_kind(arrow) for is_kind in plain)

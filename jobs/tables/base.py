"""What is a table to a job, and which columns fit it? What the two formats have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from schemas.errors import Permanent

#: How often a commit is tried at once, if other writers of the table come first each time.
TRIES = 10
#: The code of a table that can't take a job's parts as they are.
MISMATCH = "table_mismatch"
#: Where a commit names its job, in the table's own history.
JOB_KEY = "nightshift.job"


@dataclass(frozen=True)
class File:
    """A part, as a table lists it: a file that is there, with its size in bytes and its rows."""

    uri: str
    size: int
    rows: int


class Table(Protocol):
    """A table that a job's parts are committed to. Both methods raise Permanent (`table_mismatch`), AccessDenied or
    Transient."""

    def check(self, columns: pa.Schema) -> None:
        """Refuse columns that the table, or its format if there is no table yet, can't take."""

    def commit(self, job: str, files: Sequence[File], columns: pa.Schema, ended_ms: int) -> str | None:
        """Add the files of a job that has ended at `ended_ms`, unless they were added before. Return the version.

        The table is made if there is none. The version is None if the table has forgotten which one the job became.
        """


def refused(message: str) -> Permanent:
    """Return the error of a table that doesn't take a job's parts. Nothing was changed."""
    return Permanent(message, code=MISMATCH)


def table_columns(columns: pa.Schema) -> pa.Schema:
    """Return the columns of parts as a table has them: without dictionaries, names of their own, units of time.

    Raise Permanent (`table_mismatch`) for a type that the formats don't have.
    """
    return pa.schema([pa.field(field.name, _plain(field.type, field.name)) for field in columns])


_AS_THEY_ARE = (
    pa.types.is_boolean, pa.types.is_int8, pa.types.is_int16, pa.types.is_int32, pa.types.is_int64,
    pa.types.is_float32, pa.types.is_float64, pa.types.is_date32, pa.types.is_decimal128,
)  # fmt: skip
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BINARIES = (
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary,
)  # fmt: skip
_LISTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
    pa.types.is_large_list_view,
)  # fmt: skip
#: Names of the one time zone that both formats have. An Arrow type of another one holds the same moments.
_UTC = ("UTC", "+00:00", "Etc/UTC", "Z")


def _plain(arrow: pa.DataType, name: str) -> pa.DataType:
    if pa.types.is_dictionary(arrow):
        return _plain(arrow.value_type, name)
    if any(fits(arrow) for fits in _AS_THEY_ARE):
        return arrow
    if any(fits(arrow) for fits in _STRINGS):
        return pa.string()
    if any(fits(arrow) for fits in _BINARIES):
        return pa.binary()
    if any(fits(arrow) for fits in _LISTS):
        return pa.list_(_plain(arrow.value_type, f"{name}[]"))
    if pa.types.is_struct(arrow):
        return pa.struct([pa.field(one.name, _plain(one.type, f"{name}.{one.name}")) for one in arrow.fields])
    if pa.types.is_map(arrow):
        return pa.map_(_plain(arrow.key_type, f"{name}.key"), _plain(arrow.item_type, f"{name}.value"))
    if pa.types.is_timestamp(arrow) and arrow.unit != "ns" and (arrow.tz is None or arrow.tz in _UTC):
        return pa.timestamp("us", arrow.tz and "UTC")
    raise refused(
        f"column {name!r} is {arrow}, which tables don't have; leave it out of input.keep, or cast it in the input"
    )


def check_columns(job: pa.Schema, table: pa.Schema, where: str) -> None:
    """Raise Permanent (`table_mismatch`) unless the table has each of the job's columns, with the same type.

    A column that the job lacks must be one that may be null. The order of columns is the table's own.
    """
    there = {field.name: field for field in table}
    problems = [f"it has no column {name!r}" for name in job.names if name not in there]
    for field in job:
        known = there.get(field.name)
        if known is not None and not _plain_or_none(known.type).equals(field.type):
            problems.append(f"its column {field.name!r} is {known.type}, and the job's is {field.type}")
    required = [field.name for field in table if field.name not in job.names and not field.nullable]
    problems += [f"its column {name!r} may not be null, and the job has none" for name in required]
    if problems:
        raise refused(
            f"{where} has another schema: {'; '.join(problems)}. Change the table (ALTER TABLE … ADD COLUMN), and then "
            "commit the parts with nightshift resume; or submit the job with another table or another input.keep"
        )


def _plain_or_none(arrow: pa.DataType) -> pa.DataType:
    try:
        return _plain(arrow, "")
    except Permanent:  # the table has a type that no part can have
        return pa.null()

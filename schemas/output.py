"""The schema of an output row: kept input columns, `prediction`, `error`, `source_uri`, `source_row`."""

from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import SpecError
from schemas.job import JobSpec
from schemas.plan import NO_COLUMNS
from schemas.task import BINARY, Column

ERROR = pa.struct([("code", pa.string()), ("message", pa.string())])
SOURCE_URI = pa.dictionary(pa.int32(), pa.string())

#: Prefixes that are proposed if the input has a column with the name of one of ours.
_PREFIXES = ("ns_", "nightshift_", "ours_")


@dataclass(frozen=True)
class OwnColumns:
    """What our columns are called in a job's output. They are the last of a row, in this order."""

    prefix: str = ""

    @classmethod
    def of(cls, spec: JobSpec) -> "OwnColumns":
        return cls(spec.output.prefix)

    @property
    def prediction(self) -> str:
        return self.prefix + "prediction"

    @property
    def error(self) -> str:
        return self.prefix + "error"

    @property
    def source_uri(self) -> str:
        return self.prefix + "source_uri"

    @property
    def source_row(self) -> str:
        return self.prefix + "source_row"

    @property
    def names(self) -> tuple[str, str, str, str]:
        return self.prediction, self.error, self.source_uri, self.source_row


def read_schema(spec: JobSpec, table: pa.Schema) -> pa.Schema:
    """Return the columns that a job reads of a table with this schema: the task's and the kept ones, in table order.

    Each may be null, since a text too large to be read is null in the output.

    Raise SpecError if a column is missing, has a type that the task can't read, or collides with an output column.
    """
    twice = sorted({name for name in table.names if table.names.count(name) > 1})
    if twice:
        raise SpecError.of(
            "input.uri", f"the input has several columns named {', '.join(map(repr, twice))}: rename them"
        )
    names = set(task_columns(spec, table).values()) | set(kept_columns(spec, table))
    return pa.schema([field.with_nullable(True) for field in table if field.name in names])


def task_columns(spec: JobSpec, table: pa.Schema) -> dict[str, str]:
    """Return the table's name for each of the task's columns that the job uses. An input of objects has no columns."""
    found: dict[str, str] = {}
    if table == NO_COLUMNS:
        return found
    for column in _used_columns(spec, table):
        name = spec.column(column.name)
        if name not in table.names:
            if not column.required and column.name not in spec.input.columns:
                continue
            raise SpecError.of(
                f"input.columns.{column.name}",
                f"the input has no column {name!r}; it has {', '.join(map(repr, table.names)) or 'none'}: "
                f"name the right one with {column.name}: COLUMN",
            )
        arrow = table.field(name).type
        if not column.fits(arrow):
            raise SpecError.of(f"input.columns.{column.name}", f"column {name!r} is {arrow}, not {column.accepts}")
        found[column.name] = name
    return found


def _used_columns(spec: JobSpec, table: pa.Schema) -> tuple[Column, ...]:
    """Return the task's columns. If all are optional, return the one that the spec names, else the one in the table."""
    columns = spec.task_schema.columns
    if any(column.required for column in columns):
        return columns
    used = tuple(c for c in columns if c.name in spec.input.columns) or tuple(
        c for c in columns if c.name in table.names
    )
    if len(used) == 1:
        return used
    names = " or ".join(column.name for column in columns)
    problem = "has several of them" if used else f"has only {', '.join(map(repr, table.names)) or 'none'}"
    raise SpecError.of(
        "input.columns", f"{spec.task} reads {names}, and the input {problem}: name one with NAME: COLUMN"
    )


def kept_columns(spec: JobSpec, table: pa.Schema) -> list[str]:
    """Return the input columns that the output carries, in table order."""
    if spec.input.keep is None:
        kept = [field.name for field in table if not _holds_binary(field.type)]
        other = "list the columns to carry in input.keep"
    else:
        kept = spec.input.keep
        other = "leave them out of input.keep"
        missing = [name for name in kept if name not in table.names]
        if missing:
            raise SpecError.of("input.keep", f"the input has no column {', '.join(map(repr, missing))}")
    taken = [name for name in kept if name in OwnColumns.of(spec).names]
    if taken:
        free = next((prefix for prefix in _PREFIXES if not set(kept) & set(OwnColumns(prefix).names)), None)
        way_out = "give ours another prefix by output.prefix" + (f", such as {free!r}" if free else "")
        raise SpecError.of(
            "input.keep",
            f"input columns {', '.join(map(repr, taken))} collide with output columns; {way_out}, or {other}",
        )
    return [name for name in table.names if name in kept]


def _holds_binary(arrow: pa.DataType) -> bool:
    if pa.types.is_dictionary(arrow):
        return _holds_binary(arrow.value_type)
    if arrow.num_fields:
        return any(_holds_binary(arrow.field(i).type) for i in range(arrow.num_fields))
    return str(arrow) in BINARY


def output_schema(spec: JobSpec, kept: pa.Schema) -> pa.Schema:
    """Return the schema of a part. `kept` is the schema of the kept input columns."""
    task = spec.task_schema
    types = (task.prediction, ERROR, SOURCE_URI, pa.int64())
    return pa.schema(
        [
            *(field.remove_metadata() for field in kept),
            *(pa.field(name, arrow) for name, arrow in zip(OwnColumns.of(spec).names, types, strict=True)),
        ],
        metadata={"nightshift.task": task.id, "nightshift.prediction_version": str(task.version)},
    )

"""What a task declares of itself: its columns, parameters and Arrow output. The code that runs it is in `workers`."""

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
from pydantic import BaseModel, ConfigDict


class Group(StrEnum):
    """The kinds of worker. Each serves the tasks of its group; `control` plans and finishes jobs."""

    TEXT = "text"
    GENERATION = "generation"
    AUDIO = "audio"
    VISION = "vision"
    CONTROL = "control"


class TaskParams(BaseModel):
    """Base of each task's parameters: unknown names are refused, and values of another type (true for 2)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


@dataclass(frozen=True)
class Column:
    """An input column by the name that the task calls it."""

    name: str
    description: str
    required: bool = True
    accepts: tuple[str, ...] = ("string", "large_string", "string_view")

    def fits(self, arrow: pa.DataType) -> bool:
        """Whether a table's column of this Arrow type can be read as this column."""
        value = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
        return str(value) in self.accepts


@dataclass(frozen=True)
class Task:
    """One row of the task catalogue.

    `prediction` is the Arrow type of the output column of that name; `version` counts its changes.
    `heads` are the endings of the Transformers classes whose checkpoints can do the task.
    `shard_rows` is how many records are about a minute of work where nothing has been measured yet.
    """

    id: str
    group: Group
    summary: str
    columns: tuple[Column, ...]
    params: type[TaskParams]
    prediction: pa.StructType
    version: int
    heads: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    shard_rows: int = 4096


def field(name: str, arrow: pa.DataType, description: str, *, unit: str = "", range: str = "") -> pa.Field:
    """A field of a prediction, with what a reader has to know of it in the Arrow metadata."""
    metadata = {"description": description, "unit": unit, "range": range}
    return pa.field(name, arrow, metadata={k: v for k, v in metadata.items() if v})

"""The declaration of a task: its columns, parameters and Arrow output. The code that runs it is in `workers`."""

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
    """Base class of each task's parameters. It refuses unknown names, and values of another type (true for 2)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


TEXT = ("string", "large_string", "string_view")
BINARY = ("binary", "large_binary", "binary_view")


class Kind(StrEnum):
    """The content of a column. `_HOW` says in which types a table may hold it."""

    TEXT = "text"
    MESSAGES = "messages"
    IMAGE = "image"
    AUDIO = "audio"

    @property
    def is_media(self) -> bool:
        return self in (Kind.IMAGE, Kind.AUDIO)


_MEDIA = "URIs as text, bytes as binary, or a struct of bytes and path"
_HOW = {
    Kind.TEXT: "text",
    Kind.MESSAGES: "a list of structs of role and content",
    Kind.IMAGE: _MEDIA,
    Kind.AUDIO: _MEDIA,
}


@dataclass(frozen=True)
class Column:
    """An input column, under the task's name for it."""

    name: str
    description: str
    required: bool = True
    kind: Kind = Kind.TEXT

    @property
    def accepts(self) -> str:
        """The Arrow types that can be read as this column, in words."""
        return _HOW[self.kind]

    def fits(self, arrow: pa.DataType) -> bool:
        """Return whether a table's column of this Arrow type can be read as this column."""
        if is_text(arrow):
            return self.kind is not Kind.MESSAGES
        if self.kind is Kind.MESSAGES:
            return _is_list(arrow) and _has_fields(arrow.value_type, role=TEXT, content=TEXT)
        return self.kind.is_media and (str(arrow) in BINARY or _has_fields(arrow, bytes=BINARY))


def is_text(arrow: pa.DataType) -> bool:
    """Return whether the type is text, however stored. One file may have strings, another a dictionary of them."""
    value = arrow.value_type if pa.types.is_dictionary(arrow) else arrow
    return str(value) in TEXT


def _is_list(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_list(arrow) or pa.types.is_large_list(arrow))


def _has_fields(arrow: pa.DataType, **wanted: tuple[str, ...]) -> bool:
    """Return whether the type is a struct that has these fields with these types, and maybe others."""
    if not pa.types.is_struct(arrow):
        return False
    found = {arrow.field(i).name: str(arrow.field(i).type) for i in range(arrow.num_fields)}
    return all(found.get(name) in types for name, types in wanted.items())


@dataclass(frozen=True)
class Task:
    """The declaration of one task.

    If all columns are optional, a job uses exactly one of them.
    `prediction` is the Arrow type of the output column of that name; `version` counts its changes.
    `heads` are the endings of the Transformers classes whose checkpoints can do the task.
    `shard_rows` is how many records are about a minute of work, if nothing has been measured yet.
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

    @property
    def media(self) -> Column | None:
        """The column that holds pictures or sound, or None if the task reads neither."""
        return next((column for column in self.columns if column.kind.is_media), None)


def field(name: str, arrow: pa.DataType, description: str, *, unit: str = "", range: str = "") -> pa.Field:
    """Return a field of a prediction. Its Arrow metadata has the description, the unit and the range."""
    metadata = {"description": description, "unit": unit, "range": range}
    return pa.field(name, arrow, metadata={k: v for k, v in metadata.items() if v})

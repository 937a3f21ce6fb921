"""Turn a table's rows into records, with the task's columns. Each value is checked by itself."""

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import RecordError
from schemas.task import TEXT, Kind, is_text
from workers.handler import Record
from workers.io.block import Reference

#: The most bytes of a URI in a table's row. S3's keys have at most 1,024.
LONGEST_URI = 4096


def to_records(
    table: pa.Table, task_columns: dict[str, str], kinds: dict[str, Kind], max_cell: int
) -> list[Record | RecordError]:
    """Return a table's rows as records: text as str, messages as a list of dicts, media as bytes or a Reference.

    A row with a null, text that isn't UTF-8, a cell beyond `max_cell` bytes or the like is a RecordError.
    """
    columns = {
        name: _READERS[kinds.get(name, Kind.TEXT)](table[column], name, max_cell)
        for name, column in task_columns.items()
    }
    records: list[Record | RecordError] = []
    for row in zip(*columns.values(), strict=True):
        error = next((value for value in row if isinstance(value, RecordError)), None)
        records.append(error or dict(zip(columns, row, strict=True)))
    return records


def without_large_texts(table: pa.Table, names: Iterable[str], max_cell: int) -> pa.Table:
    """Return the table with null for each text beyond `max_cell` bytes in the columns of these names.

    To carry a text of 2 GB to the output takes five times its size in memory, and as much to read the part.
    """
    for name in set(names):
        place = table.schema.get_field_index(name)
        if str(table.schema.field(place).type) in TEXT[:2]:
            large = pc.greater(pc.binary_length(table[name]), max_cell)
            kept = pc.if_else(pc.fill_null(large, False), pa.scalar(None, table[name].type), table[name])
            table = table.set_column(place, table.schema.field(place), kept)
    return table


def _texts(column: pa.ChunkedArray, name: str, max_cell: int) -> list[Any]:
    if str(column.type) not in TEXT[:2]:
        column = column.cast(pa.large_string())
    too_large = pc.greater(pc.binary_length(column), max_cell)
    some_too_large = pc.any(too_large).as_py()
    if some_too_large:
        column = pc.if_else(pc.fill_null(too_large, False), pa.scalar("", column.type), column)
    values: list[Any]
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(value, name) for value in column.cast(pa.large_binary()).to_pylist()]
    if some_too_large:
        error = _too_large(name, max_cell)
        values = [error if large else value for value, large in zip(values, too_large.to_pylist(), strict=True)]
    return _without_nulls(values, name)


def _decoded(value: bytes | None, name: str) -> str | RecordError | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return RecordError("invalid_utf8", f"{name} is not UTF-8: byte {error.start} of {len(value or b'')}")


def _messages(column: pa.ChunkedArray, name: str, max_cell: int) -> list[Any]:
    """Return each row's messages, with the fields role and content; other fields of the structs are dropped."""
    return _without_nulls([_conversation(cell, name, max_cell) for cell in column], name)


def _conversation(cell: pa.Scalar, name: str, max_cell: int) -> Any:
    try:
        messages = cell.as_py()
    except UnicodeDecodeError:
        return RecordError("invalid_utf8", f"{name} has a message that is not UTF-8")
    if messages is None:
        return None
    for number, message in enumerate(messages, 1):
        if message is None or message["role"] is None or message["content"] is None:
            return RecordError("bad_messages", f"message {number} of {len(messages)} in {name} has a null in it")
    if sum(len(message["content"]) for message in messages) > max_cell:
        return _too_large(name, max_cell)
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _media(column: pa.ChunkedArray, name: str, max_cell: int) -> list[Any]:
    if is_text(column.type):
        return [_referred(value) for value in _texts(column, name, LONGEST_URI)]
    if pa.types.is_struct(column.type):
        data = pc.struct_field(column, "bytes")
        has_path = any(field.name == "path" and is_text(field.type) for field in column.type)
        paths = _texts(pc.struct_field(column, "path"), name, LONGEST_URI) if has_path else [None] * len(column)
    else:
        data, paths = column, [None] * len(column)
    sizes = pc.binary_length(data).to_pylist()
    values: list[Any] = []
    for cell, size, path in zip(data, sizes, paths, strict=True):
        if size is not None:
            values.append(_too_large(name, max_cell) if size > max_cell else cell.as_py())
        else:
            values.append(_referred(path))
    return _without_nulls(values, name)


def _referred(path: Any) -> Any:
    return Reference(path) if isinstance(path, str) else path


def _without_nulls(values: list[Any], name: str) -> list[Any]:
    null = RecordError("null_input", f"{name} is null")
    return [null if value is None else value for value in values]


def _too_large(name: str, max_cell: int) -> RecordError:
    return RecordError("too_large", f"{name} is larger than {max_cell:,} bytes")


_READERS: dict[Kind, Callable[[pa.ChunkedArray, str, int], list[Any]]] = {
    Kind.TEXT: _texts,
    Kind.MESSAGES: _messages,
    Kind.IMAGE: _media,
    Kind.AUDIO: _media,
}

"""How is a row of results shown? As Python values, or as JSON."""

import math
from typing import Any

import pyarrow as pa


def to_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows as Python values, for showing.

    Text that isn't UTF-8 gets replacement characters. A value that Python has no type for, such as nanoseconds, becomes
    text.
    """
    columns = {name: _to_values(batch.column(index)) for index, name in enumerate(batch.schema.names)}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _to_values(column: pa.Array) -> list[Any]:
    if getattr(column.type, "unit", "") == "ns":  # pandas, where it is installed, has a type for these
        return list(column.cast(pa.string()).to_pylist())
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        data = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="replace") for value in data]
    except ValueError:
        values = column.cast(pa.string()).to_pylist()
    return values


def to_json(value: Any) -> Any:
    """Return a row's value as JSON: NaN and infinity as null, bytes in hexadecimal, times and other types as text."""
    if isinstance(value, dict):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str | int) else str(value)

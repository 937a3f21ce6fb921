"""How are rows written for other programs? As CSV, as JSON lines, or as one Parquet file, in bounded memory."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.results.convert import to_json, to_rows
from schemas.errors import AccessDenied

FORMATS = ("csv", "jsonl", "parquet")
#: Rows and bytes of a row group.
GROUP_ROWS, GROUP_BYTES = 100_000, 128 << 20


def export(batches: Iterable[pa.RecordBatch], schema: pa.Schema, kind: str, target: str) -> int:
    """Write the rows to a local file, or to standard output for `-`. Return how many there were.

    A file appears when it is complete. `schema` is that of a file without rows. In CSV, fields of a struct are columns
    such as `prediction.label`, and lists are JSON.
    """
    write = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[kind]
    with _opened(target) as file:
        return write(batches, schema, file)


@contextmanager
def _opened(target: str) -> Iterator[BinaryIO]:
    if target == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    aside = Path(f"{target}.partial")
    try:
        with aside.open("wb") as file:
            yield file
        aside.replace(target)
    except OSError as error:
        raise AccessDenied(f"can't write {target}: {error.strerror or error}") from None
    finally:
        aside.unlink(missing_ok=True)


def _jsonl(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    count = 0
    for batch in batches:
        for row in to_rows(batch):
            file.write(json.dumps(to_json(row), ensure_ascii=False).encode() + b"\n")
        count += batch.num_rows
    return count


def _csv(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    count = 0
    text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    names: list[str] | None = None
    for batch in batches:
        if names is None:
            names = _paths(batch.schema)
            writer.writerow(names)
        for row in to_rows(batch):
            flat = _flat(row)
            writer.writerow([_cell(flat.get(name)) for name in names])
        count += batch.num_rows
    if names is None:
        writer.writerow(_paths(schema))
    text.detach()
    return count


def _paths(fields: Any, prefix: str = "") -> list[str]:
    """Return the columns of a CSV file: a struct's fields stand for it."""
    found: list[str] = []
    for field in fields:
        inner = field.type
        if pa.types.is_struct(inner):
            found += _paths([inner.field(i) for i in range(inner.num_fields)], f"{prefix}{field.name}.")
        else:
            found.append(prefix + field.name)
    return found


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(to_json(value), ensure_ascii=False)
    return to_json(value)


def _parquet(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: BinaryIO) -> int:
    count = 0
    writer: pq.ParquetWriter | None = None
    try:
        for group in grouped(batches):
            if writer is None:
                writer = pq.ParquetWriter(file, group.schema, compression="zstd")
            writer.write_table(group.cast(writer.schema), row_group_size=group.num_rows)
            count += group.num_rows
        if writer is None:
            writer = pq.ParquetWriter(file, schema, compression="zstd")
    finally:
        if writer is not None:
            writer.close()
    return count


def grouped(batches: Iterable[pa.RecordBatch], rows: int = GROUP_ROWS, size: int = GROUP_BYTES) -> Iterator[pa.Table]:
    """Yield the rows in tables of so many rows or bytes, whichever is reached first."""
    held: list[pa.RecordBatch] = []
    held_rows = held_bytes = 0
    for batch in batches:
        held.append(batch)
        held_rows, held_bytes = held_rows + batch.num_rows, held_bytes + batch.nbytes
        if held_rows >= rows or held_bytes >= size:
            yield pa.Table.from_batches(held).unify_dictionaries()
            held, held_rows, held_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held).unify_dictionaries()

"""What every task promises, as tests that each task's own test file takes over with a case of its own.

A task's test file defines `case`, a fixture of type Case, and imports these tests by name:

    from tests.tasks.conformance import *  # noqa: F403

What such files need besides, a handler for a model say, is in tests/tasks/handlers.py.
"""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jobs.settings import Settings
from schemas.job import parse_spec
from schemas.manifest import JobStatus
from schemas.task import Kind, Task
from tests.checkpoints import MAX_LENGTH
from tests.integration.harness import House, read_output

__all__ = [
    "Case",
    "run_case",
    "test_an_output_schema_changes_only_with_its_version",
    "test_one_row_out_for_each_row_in",
    "test_same_answer_as_the_reference_whatever_the_batch",
    "test_same_answer_in_any_order",
]


@dataclass(frozen=True)
class Case:
    """A task with a tiny checkpoint, records, and the reference's prediction for one record.

    The records of a media column have the encoded bytes.

    `schema` is the version and digest of the output schema that its readers know.
    """

    task: Task
    model: Path
    records: list[dict[str, Any]]
    params: dict[str, Any]
    reference: Callable[[dict[str, Any]], dict[str, Any]]
    schema: str


def described(arrow: pa.DataType) -> object:
    """A type as JSON, with the metadata of its fields."""
    if not arrow.num_fields:
        return str(arrow)
    fields = [arrow.field(i) for i in range(arrow.num_fields)]
    return {
        f.name: [described(f.type), {k.decode(): v.decode() for k, v in (f.metadata or {}).items()}] for f in fields
    }


#: How a table holds what a column of this kind has.
STORED = {
    Kind.TEXT: pa.string(),
    Kind.MESSAGES: pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    Kind.IMAGE: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    Kind.AUDIO: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
}


def stored_type(task: Task, name: str) -> pa.DataType:
    return next((STORED[column.kind] for column in task.columns if column.name == name), pa.string())


def stored(value: Any) -> Any:
    """A record's value as a table has it: encoded media as Hugging Face datasets have them."""
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value


def run_case(case: Case, settings: Settings, folder: Path, records: list[dict[str, Any]], **changes: Any) -> list[Any]:
    """The output rows of a job over these records."""
    source = folder / "in.parquet"
    names = list(records[0])
    types = pa.schema([(name, stored_type(case.task, name)) for name in names])
    rows = [{name: stored(value) for name, value in record.items()} for record in records]
    pq.write_table(pa.Table.from_pylist(rows, types), source, row_group_size=50)
    spec = {
        "task": case.task.id,
        "model": str(case.model),
        "input": {"uri": str(source)},
        "output": {"uri": f"{folder}/out"},
        "params": case.params,
    }
    manifest = House(settings).run(parse_spec(spec | changes))
    assert manifest.status is JobStatus.SUCCEEDED
    return read_output(f"{folder}/out")


def close(one: Any, other: Any) -> bool:
    """Equal, but for float scores within 1e-4."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-4
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(close(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


#: Any text that UTF-8 can hold, up to three times what the tiny models read; and so many examples of a property.
any_text = st.text(st.characters(codec="utf-8"), max_size=3 * MAX_LENGTH)
a_few = hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("batch_size", [1, 3, 32, "auto"])
def test_same_answer_as_the_reference_whatever_the_batch(
    case: Case, settings: Settings, tmp_path: Path, batch_size: Any
) -> None:
    rows = run_case(case, settings, tmp_path, case.records, batch_size=batch_size, shard={"rows": 70})
    for record, row in zip(case.records, rows, strict=True):
        assert row["error"] is None, (record, row)
        assert close(row["prediction"], case.reference(record)), (record, row)


def test_same_answer_in_any_order(case: Case, settings: Settings, tmp_path: Path) -> None:
    order = list(case.records)
    random.Random(3).shuffle(order)
    for record, row in zip(order, run_case(case, settings, tmp_path, order), strict=True):
        assert close(row["prediction"], case.reference(record)), (record, row)


def test_one_row_out_for_each_row_in(case: Case, settings: Settings, tmp_path: Path) -> None:
    """Nulls among the records are error rows in their places, and change nothing for their neighbours."""
    first = next(iter(case.records[0]))
    records = [record | {first: None} if i % 7 == 3 else record for i, record in enumerate(case.records)]
    rows = run_case(case, settings, tmp_path, records)
    assert [row["source_row"] for row in rows] == list(range(len(records)))
    for record, row in zip(records, rows, strict=True):
        if record[first] is None:
            assert (row["prediction"], row["error"]["code"]) == (None, "null_input")
        else:
            assert close(row["prediction"], case.reference(record))


def test_an_output_schema_changes_only_with_its_version(case: Case) -> None:
    digest = hashlib.sha256(json.dumps(described(case.task.prediction)).encode()).hexdigest()[:12]
    current = f"{case.task.version}:{digest}"
    rule = "the output schema changed: count the task's version up, then write this into its test"
    assert current == case.schema, f"{rule}: {current!r}"

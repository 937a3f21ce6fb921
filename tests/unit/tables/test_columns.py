"""Which columns can a table have, and which table can take a job's?"""

import pyarrow as pa
import pytest

from jobs.tables.base import check_columns, table_columns
from schemas.errors import Permanent
from schemas.job import parse_spec
from schemas.output import output_schema
from schemas.tasks import all_tasks

PLAIN = pa.schema([("id", pa.int64()), ("text", pa.string()), ("one", pa.struct([("label", pa.string())]))])


@pytest.mark.parametrize("task", list(all_tasks()))
def test_every_task_s_output_can_be_in_a_table(task: str) -> None:
    params = {"labels": ["a"]} if task == "zero-shot-classification" else {}
    places = {"input": {"uri": "in/"}, "output": {"uri": "out/"}}
    spec = parse_spec({"task": task, "model": "m", "params": params} | places)
    columns = table_columns(output_schema(spec, pa.schema([("id", pa.int64())])))
    assert columns.names == ["id", "prediction", "error", "source_uri", "source_row"]
    assert columns.field("source_uri").type == pa.string()
    assert table_columns(columns) == columns


@pytest.mark.parametrize(
    ("arrow", "plain"),
    [
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.list_(pa.float32(), 3), pa.list_(pa.float32())),
        (pa.large_list(pa.field("element", pa.large_binary(), nullable=False)), pa.list_(pa.binary())),
        (pa.timestamp("ms"), pa.timestamp("us")),
        (pa.timestamp("s", "+00:00"), pa.timestamp("us", "UTC")),
        (pa.map_(pa.large_string(), pa.int8()), pa.map_(pa.string(), pa.int8())),
        (pa.decimal128(9, 2), pa.decimal128(9, 2)),
    ],
)
def test_types_that_hold_the_same_are_one(arrow: pa.DataType, plain: pa.DataType) -> None:
    assert table_columns(pa.schema([("x", arrow)])).field("x").type == plain


@pytest.mark.parametrize(
    "arrow",
    [
        pa.uint8(),
        pa.uint64(),
        pa.timestamp("ns"),
        pa.timestamp("us", "Europe/Berlin"),
        pa.time64("us"),
        pa.duration("s"),
    ],
)
def test_a_type_that_tables_lack_is_named_with_a_way_out(arrow: pa.DataType) -> None:
    with pytest.raises(Permanent, match=r"column 'when.at' is .*, which tables don't have; leave"):
        table_columns(pa.schema([("when", pa.struct([("at", arrow)]))]))


@pytest.mark.parametrize(
    "table",
    [
        PLAIN,
        pa.schema(list(reversed(list(PLAIN)))),
        pa.schema([*PLAIN, ("added", pa.uint8())]),
        pa.schema([pa.field("id", pa.int64(), metadata={"PARQUET:field_id": "1"}), *list(PLAIN)[1:]]),
    ],
)
def test_tables_that_take_a_job(table: pa.Schema) -> None:
    check_columns(PLAIN, table, "the table")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pa.schema(list(PLAIN)[:2]), "it has no column 'one'"),
        (pa.schema([("id", pa.int32()), *list(PLAIN)[1:]]), "its column 'id' is int32, and the job's is int64"),
        (pa.schema([("id", pa.uint64()), *list(PLAIN)[1:]]), "its column 'id' is uint64, and the job's is int64"),
        (
            pa.schema([*list(PLAIN)[:2], ("one", pa.struct([("label", pa.string()), ("score", pa.float32())]))]),
            "its column 'one' is struct<label: string, score: float>, and the job's is struct<label: string>",
        ),
        (pa.schema([*PLAIN, pa.field("night", pa.date32(), nullable=False)]), "its column 'night' may not be null"),
    ],
)
def test_tables_that_moved_on(table: pa.Schema, problem: str) -> None:
    with pytest.raises(Permanent) as refused:
        check_columns(PLAIN, table, "the table")
    assert refused.value.code == "table_mismatch"
    assert refused.value.message.startswith(f"the table has another schema: {problem}")
    assert "ALTER TABLE … ADD COLUMN" in refused.value.message

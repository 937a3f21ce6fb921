"""The output schema: which columns are read and kept, and what collides."""

from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import SpecError
from schemas.job import parse_spec
from schemas.layout import part_name, shard_of
from schemas.output import kept_columns, output_schema, read_schema

TABLE = pa.schema(
    [("id", pa.int64()), ("body", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
     ("raw", pa.large_binary()), ("tags", pa.list_(pa.string()))]
)  # fmt: skip


def spec(**table: Any) -> Any:
    data = {"task": "text-classification", "model": "m", "output": {"uri": "b"}}
    return parse_spec(data | {"input": {"uri": "a", "columns": {"text": "body"}} | table})


def test_all_but_binary_columns_are_kept() -> None:
    assert kept_columns(spec(), TABLE) == ["id", "body", "tags"]
    assert kept_columns(spec(keep=["raw", "id"]), TABLE) == ["id", "raw"]
    assert kept_columns(spec(keep=[]), TABLE) == []


def test_only_what_is_needed_is_read() -> None:
    assert read_schema(spec(keep=["id"]), TABLE).names == ["id", "body"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"columns": {}}, r"input\.columns\.text: the input has no column 'text'; it has 'id', 'body'"),
        ({"columns": {"text": "id"}}, "column 'id' is int64, not text"),
        ({"columns": {"text": "body", "text_pair": "other"}}, r"input\.columns\.text_pair: .*no column 'other'"),
        ({"keep": ["nope"]}, "no column 'nope'"),
    ],
)
def test_columns_that_do_not_fit(table: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        read_schema(spec(**table), TABLE)


def test_a_collision_names_the_way_out() -> None:
    table = TABLE.append(pa.field("prediction", pa.int8()))
    with pytest.raises(SpecError, match=r"'prediction' collide with output columns; list the columns to carry"):
        read_schema(spec(), table)
    assert "prediction" not in read_schema(spec(keep=["id"]), table).names


def test_the_output_has_the_kept_columns_first() -> None:
    one = spec()
    schema = output_schema(one, read_schema(one, TABLE))
    assert schema.names == ["id", "body", "tags", "prediction", "error", "source_uri", "source_row"]
    assert schema.field("prediction").type == one.task_schema.prediction


@pytest.mark.parametrize(
    ("shard", "shards", "name"),
    [(0, 1, "part-00000.parquet"), (42, 100_000, "part-00042.parquet"), (99_999, 100_001, "part-099999.parquet")],
)
def test_part_names_sort_in_input_order(shard: int, shards: int, name: str) -> None:
    assert part_name(shard, shards) == name
    assert shard_of(name) == shard


def test_other_names_are_no_parts() -> None:
    assert [shard_of(n) for n in ("_job.json", "part-x.parquet", "part-00001.parquet.tmp", "part-.parquet")] == [
        None
    ] * 4

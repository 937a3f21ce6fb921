"""The output schema: which columns are read and kept, and what collides."""

from typing import Any

import pyarrow as pa
import pytest

from schemas.errors import SpecError
from schemas.job import OutputSpec, parse_spec
from schemas.layout import part_name, shard_of
from schemas.output import OwnColumns, kept_columns, output_schema, read_schema

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
    ways_out = r"such as 'ns_', or list the columns to carry in input\.keep"
    with pytest.raises(SpecError, match=rf"'prediction' collide with output columns; .*output\.prefix, {ways_out}"):
        read_schema(spec(), table)
    assert "prediction" not in read_schema(spec(keep=["id"]), table).names


def test_a_prefix_for_our_columns() -> None:
    table = TABLE.append(pa.field("prediction", pa.int8())).append(pa.field("ns_error", pa.int8()))
    with pytest.raises(SpecError, match=r"'ns_error' collide with output columns; .* such as 'nightshift_', or"):
        read_schema(spec().model_copy(update={"output": OutputSpec(uri="b", prefix="ns_")}), table)
    own = spec().model_copy(update={"output": OutputSpec(uri="b", prefix="nightshift_")})
    schema = output_schema(own, read_schema(own, table))
    assert schema.names[-6:-2] == ["prediction", "ns_error", "nightshift_prediction", "nightshift_error"]
    assert tuple(schema.names[-4:]) == OwnColumns.of(own).names
    for wrong in ("1st_", "a b", "a.", "x" * 65):
        with pytest.raises(ValueError, match="prefix"):
            OutputSpec(uri="b", prefix=wrong)


def test_a_spec_without_a_prefix_is_that_of_earlier_versions() -> None:
    """Its fingerprint tells whether a job at a location is the same."""
    assert spec().model_dump()["output"] == {"uri": "b"}
    with_prefix = spec().model_copy(update={"output": OutputSpec(uri="b", prefix="ns_")})
    assert with_prefix.model_dump()["output"] == {"uri": "b", "prefix": "ns_"}
    assert with_prefix.fingerprint() != spec().fingerprint()


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

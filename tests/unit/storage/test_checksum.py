"""The checksum of rows: the same however they are stored, and another for any other rows."""

import io
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.storage.checksum import RowChecksum

#: Columns of every kind that a part can have, with nulls in them.
ROWS: dict[str, pa.Array] = {
    "number": pa.array([1, None, 3, 4, 5], pa.int64()),
    "small": pa.array([1.5, float("nan"), None, -0.0, 0.0], pa.float32()),
    "yes": pa.array([True, None, False, True, True]),
    "text": pa.array(["a", "", None, "déjà", "ab"]),
    "raw": pa.array([b"\x00", None, b"", b"ab", b"c"]),
    "fixed": pa.array([b"ab", None, b"cd", b"ef", b"gh"], pa.binary(2)),
    "money": pa.array([Decimal("1.50"), None, Decimal("2.00"), Decimal("0.01"), None], pa.decimal128(9, 2)),
    "when": pa.array([1, None, 3, 4, 5], pa.timestamp("ns", "UTC")),
    "kind": pa.array(["x", "y", None, "x", "x"]).dictionary_encode(),
    "list": pa.array([[1, 2], [], None, [None], [3]], pa.list_(pa.int32())),
    "deep": pa.array([[{"a": "x", "b": [1.0]}], None, [], [None], [{"a": None, "b": None}]]),
    "map": pa.array([[("a", 1)], None, [], [("b", None), ("c", 2)], []], pa.map_(pa.string(), pa.int64())),
    "struct": pa.array([{"a": 1, "b": None}, None, {"a": None, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": ""}]),
    "none": pa.nulls(5),
}
TABLE = pa.table(ROWS)


def checksum(table: pa.Table, sizes: list[int] | None = None) -> str:
    found = RowChecksum(table.schema)
    start = 0
    for size in sizes or [table.num_rows]:
        found.add(table.slice(start, size))
        start += size
    found.add(table.slice(start))
    return str(found)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), max_size=5))
def test_it_does_not_depend_on_batches(sizes: list[int]) -> None:
    assert checksum(TABLE, sizes) == checksum(TABLE)


@pytest.mark.parametrize(
    "how", [{}, {"row_group_size": 2, "compression": "zstd"}, {"use_dictionary": False, "data_page_version": "2.0"}]
)
def test_it_does_not_depend_on_the_file(how: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    pq.write_table(TABLE, buffer, **how)
    assert checksum(pq.read_table(buffer)) == checksum(TABLE)


def test_it_does_not_depend_on_how_a_value_is_held() -> None:
    held = TABLE.set_column(3, "text", ROWS["text"].cast(pa.large_string()))
    held = held.set_column(8, "kind", ROWS["kind"].dictionary_decode())
    held = held.set_column(9, "list", ROWS["list"].cast(pa.large_list(pa.int32())))
    held = held.set_column(3, "text", held["text"].cast(pa.string_view()))
    assert checksum(held) == checksum(TABLE)


def test_what_lies_under_a_null_does_not_count() -> None:
    valid = pa.array([True, False]).buffers()[1]
    ones, twos = (pa.Array.from_buffers(pa.int64(), 2, [valid, pa.array([1, n]).buffers()[1]]) for n in (5, 6))
    assert checksum(pa.table({"a": ones})) == checksum(pa.table({"a": twos})) == checksum(pa.table({"a": [1, None]}))


@pytest.mark.parametrize("name", [name for name in ROWS if name != "none"])
def test_any_other_value_is_seen(name: str) -> None:
    """A row in another row's place, and a null in the place of a value."""
    at = TABLE.schema.get_field_index(name)
    swapped = TABLE.set_column(at, name, TABLE[name].take(pa.array([1, 0, 2, 3, 4])))
    nulled = TABLE.set_column(at, name, TABLE[name].take(pa.array([None, 1, 2, 3, 4], pa.int64())))
    assert len({checksum(TABLE), checksum(swapped), checksum(nulled)}) == 3


def test_other_cuts_of_the_same_bytes_are_seen() -> None:
    pairs: list[tuple[list[Any], list[Any]]] = [
        (["ab", "c"], ["a", "bc"]), ([[1], [2, 3]], [[1, 2], [3]]), (["", None], [None, ""]), ([[], None], [None, []]),
        ([0, None], [None, 0]), ([{"a": None}, None], [None, {"a": None}]),
    ]  # fmt: skip
    for one, other in pairs:
        assert checksum(pa.table({"a": one})) != checksum(pa.table({"a": other})), (one, other)
    assert checksum(pa.table({"a": [1]})) != checksum(pa.table({"b": [1]}))
    assert checksum(pa.table({"a": pa.array([1], pa.int32())})) != checksum(pa.table({"a": pa.array([1], pa.int64())}))
    assert checksum(TABLE.slice(0, 0)) != checksum(TABLE.slice(0, 1))

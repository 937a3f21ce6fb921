"""Sets of hashes, against Python's own."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.storage.hashes import Hashes, HashIndex, HashSet, from_arrow, from_bytes, hashes, key_hashes, to_arrow

#: Few first halves, so that many are equal.
half = st.integers(0, 3)
pairs = st.lists(st.tuples(half, half), max_size=12)


def made(values: list[tuple[int, int]]) -> Hashes:
    return np.array(values, np.uint64).reshape(-1, 2)


@given(st.lists(pairs, max_size=6), pairs)
def test_a_set_has_what_was_added(added: list[list[tuple[int, int]]], asked: list[tuple[int, int]]) -> None:
    found = HashSet()
    for some in added:
        found.add(made(some))
    expected = {pair for some in added for pair in some}
    assert found.has(made(asked)).tolist() == [pair in expected for pair in asked]
    assert {tuple(pair) for pair in found.sorted().tolist()} == expected
    assert found.has(made(asked)).tolist() == [pair in expected for pair in asked]


@given(pairs, pairs)
def test_an_index_finds_a_place(listed: list[tuple[int, int]], asked: list[tuple[int, int]]) -> None:
    places = HashIndex(made(listed)).places(made(asked)).tolist()
    assert [place >= 0 for place in places] == [pair in listed for pair in asked]
    assert all(listed[place] == pair for place, pair in zip(places, asked, strict=True) if place >= 0)


def test_hashes_go_through_arrow() -> None:
    found = hashes([b"", b"a", b"a", b"\x00"])
    assert len({row.tobytes() for row in found}) == 3
    assert from_arrow(to_arrow(found).slice(1)).tolist() == found[1:].tolist()
    assert from_bytes(found.tobytes()).tolist() == found.tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["5", None, "12"], pa.large_string()),
        pa.array(["5", None, "12"]).dictionary_encode(),
        pa.array([5, None, 12], pa.int8()),
        pa.array([5, None, 12], pa.uint64()),
        pa.array(["x", "5", None, "12"])[1:],
    ],
)
def test_equal_keys_have_equal_hashes_however_stored(column: pa.Array) -> None:
    keys, nulls = key_hashes(column)
    assert nulls.tolist() == [False, True, False]
    assert keys[~nulls].tolist() == hashes([b"5", b"12"]).tolist()

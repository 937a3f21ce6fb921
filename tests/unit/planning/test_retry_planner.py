"""Cutting a retry's shards: the rows that are asked for, each once, in order, and no others."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.planning.planner import Limits
from jobs.planning.retry_planner import MOST_SLICES, UndoneSlice, cut, rows_of
from schemas.plan import NO_ROW_GROUP, OBJECT, Shard, Slice


def part(uri: str, group: int, start: int, rows: int, source_row: int = 0) -> Slice:
    return Slice(uri=uri, etag="e", size=10, row_group=group, start=start, rows=rows, source_row=source_row)


def places(slices: Any) -> list[tuple[str, int, int, int]]:
    return [(s.uri, s.row_group, s.start + i, s.source_row + i) for s in slices for i in range(s.rows)]


@st.composite
def shards(draw: st.DrawFn) -> tuple[Shard, list[int]]:
    slices: list[Slice] = []
    for n in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            slices.append(part(f"o{n}", OBJECT, 0, 1))
        else:
            start, count = draw(st.integers(0, 9)), draw(st.integers(0, 9))
            slices.append(part(f"f{n // 2}", n, start, count, source_row=100 * n + start))
    total = sum(s.rows for s in slices)
    rows = sorted(draw(st.sets(st.integers(0, total - 1)))) if total else []
    return Shard(shard=0, slices=tuple(slices), rows=total, bytes=total * 7), rows


@given(shards())
def test_the_rows_with_an_error_become_slices(drawn: tuple[Shard, list[int]]) -> None:
    shard, rows = drawn
    all_places = places(shard.slices)
    found = list(rows_of(shard, rows))
    assert places(found) == [all_places[row] for row in rows]
    assert all(s.rows == 1 for s in found if s.row_group == OBJECT)


def test_consecutive_rows_are_one_slice() -> None:
    shard = Shard(shard=3, slices=(part("a", 0, 10, 5, 10), part("b", 0, 0, 5)), rows=10, bytes=100)
    found = [(s.uri, s.start, s.rows, s.source_row) for s in rows_of(shard, [0, 1, 2, 4, 5, 6, 9])]
    assert found == [("a", 10, 3, 10), ("a", 14, 1, 14), ("b", 0, 2, 0), ("b", 4, 1, 4)]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), max_size=30),
    st.integers(1, 12),
    st.integers(1, 150),
)
def test_slices_are_cut_into_shards(sizes: list[tuple[int, int]], rows: int, size: int) -> None:
    undone = [
        UndoneSlice(part(f"f{n}", 0 if count else NO_ROW_GROUP, 0, count), bytes)
        for n, (count, bytes) in enumerate(sizes)
    ]
    found = list(cut(undone, Limits(rows, size)))
    assert [s for shard in found for s in shard.slices] == [one.slice for one in undone]
    assert [shard.shard for shard in found] == list(range(len(found)))
    for shard in found:
        assert shard.rows == sum(s.rows for s in shard.slices)
        assert len(shard.slices) == 1 or (shard.rows <= rows and shard.bytes <= size)
        assert len(shard.slices) == 1 or all(s.rows for s in shard.slices), "a broken file is a shard of its own"


def test_rows_that_stand_apart_are_not_too_many_for_a_shard() -> None:
    undone = [UndoneSlice(part("f", 0, 2 * n, 1, 2 * n), 1) for n in range(2 * MOST_SLICES + 1)]
    assert [len(shard.slices) for shard in cut(undone, Limits(10**6, 10**9))] == [MOST_SLICES, MOST_SLICES, 1]

"""Rounds: each record's pieces in order, no further ahead than a round, failures beside their neighbours."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from schemas.errors import Permanent, RecordError
from workers.engine.lazy_rounds import Round, rounds
from workers.engine.record_identity import record_seed
from workers.handler import Piece


def pieces(number: int, count: int, cost: int = 10) -> Iterator[Piece]:
    for place in range(count):
        yield Piece({}, cost, notes=(number, place))


def made(sources: list[tuple[int, object]], cost: int, width: int = 2) -> list[Round]:
    with ThreadPoolExecutor(width) as pool:
        return list(rounds(sources, cost, pool, width))  # type: ignore[arg-type]


def test_lists_are_one_round() -> None:
    (only,) = made([(0, list(pieces(0, 3))), (2, []), (5, list(pieces(5, 1)))], cost=1)
    assert (only.owners, only.ended, only.lazy, only.last) == ([0, 0, 0, 5], [0, 2, 5], False, True)


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("cost", [1, 25, 40, 10_000])
def test_every_piece_once_in_order_and_each_record_ends_once(cost: int, width: int) -> None:
    counts = [3, 0, 1, 12, 2]
    found = made([(n, list(pieces(n, c)) if n == 2 else pieces(n, c)) for n, c in enumerate(counts)], cost, width)
    notes = [piece.notes for one in found for piece in one.pieces]
    assert notes == [(n, place) for n, count in enumerate(counts) for place in range(count)]
    assert [n for one in found for n in one.owners] == [n for n, _ in notes]
    assert sorted(n for one in found for n in one.ended) == list(range(len(counts)))
    assert [one.last for one in found] == [False] * (len(found) - 1) + [True]
    for one in found:
        assert set(one.owners) - set(one.ended) <= {one.owners[-1] if one.owners else None}


def test_a_long_record_is_gone_through_no_further_than_the_round() -> None:
    begun = 0

    def long() -> Iterator[Piece]:
        nonlocal begun
        for piece in pieces(0, 1000):
            begun += 1
            yield piece

    with ThreadPoolExecutor(2) as pool:
        made = rounds([(0, long())], 40, pool, 2)
        next(made)
        assert begun < 10


def test_a_record_that_fails_half_way_is_alone() -> None:
    def failing() -> Iterator[Piece]:
        yield from pieces(1, 2)
        raise RecordError("torn", "the end is missing")

    found = made([(0, pieces(0, 2)), (1, failing()), (2, pieces(2, 2))], cost=1)
    failed = {number: error for one in found for number, error in one.failed.items()}
    assert [(n, e.code) for n, e in failed.items() if isinstance(e, RecordError)] == [(1, "torn")]
    assert sorted(n for one in found for n in one.ended) == [0, 2]


def test_what_fails_the_job_is_raised() -> None:
    def hopeless() -> Iterator[Piece]:
        raise Permanent("no decoder", code="missing_extra")
        yield

    with pytest.raises(Permanent, match="no decoder"):
        made([(0, hopeless())], cost=1)


def test_a_records_seed_is_of_its_job_and_place() -> None:
    seeds = {record_seed(*args) for args in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (10, "a", 0)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert record_seed(0, "s3://b/x.parquet", 7) == record_seed(0, "s3://b/x.parquet", 7)
    assert record_seed(0, "bad \ud800", 0) >= 0

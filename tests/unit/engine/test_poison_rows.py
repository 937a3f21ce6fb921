"""The search for records that end their process: every one is found, and only these, within the bound on deaths."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from schemas.heartbeat import WorkInHand, place_of, read_work, time_to_bytes
from schemas.loss import NO_ROWS, Death, Loss
from schemas.plan import ShardOrder
from workers.engine.poison_rows import CAREFUL_AFTER, findings, spans

LOST, LATE, EXPIRED = Loss.WORKER_LOST, Loss.TIMEOUT, Loss.LEASE_EXPIRED


@pytest.mark.parametrize(
    ("deaths", "expected"),
    [
        ([], None),
        ([Death(LOST)], None),
        ([Death(EXPIRED)], None),
        ([Death(LOST), Death(EXPIRED)], ([], {})),
        ([Death(LATE)], ([], {})),
        ([Death(Loss.MEMORY_EXCEEDED)], ([], {})),
        ([Death(LOST), Death(LOST), Death(LOST, 8, 16)], ([(8, 16)], {})),
        ([Death(LATE), Death(LOST, 8, 16), Death(LATE, 9, 10)], ([(8, 16)], {9: LATE})),
        ([Death(LATE, *NO_ROWS)], None),
        ([Death(LOST), Death(LATE, *NO_ROWS), Death(LATE, *NO_ROWS)], None),
        ([Death(LOST), Death(LATE, *NO_ROWS), Death(LOST)], ([], {})),
        ([Death(LATE), Death(LATE, *NO_ROWS), Death(LATE, 0, 1)], ([(0, 1)], {})),
        ([Death(LATE), Death(LATE, 3, 4)], ([(3, 4)], {})),
        ([Death(LATE), Death(LATE, 3, 4), Death(LATE, 3, 4)], ([(3, 4)], {3: LATE})),
        ([Death(LATE), Death(LATE, 0, 9), Death(EXPIRED, 3, 4)], ([(0, 9)], {})),
        ([Death(LATE), Death(LATE, 0, 9), Death(EXPIRED, 3, 4), Death(EXPIRED, 3, 4)], ([(0, 9)], {3: LOST})),
    ],
)
def test_what_deaths_tell(deaths: list[Death], expected: tuple[list[tuple[int, int]], dict[int, Loss]] | None) -> None:
    found = findings(deaths)
    assert (found and (list(found.suspects), dict(found.killers))) == expected


def search(rows: int, killers: Iterable[int], block: int) -> list[Death]:
    """The deaths over a shard of which these rows end their process, until an attempt comes through."""
    deaths: list[Death] = []
    killers = set(killers)
    while True:
        found = findings(deaths)
        if found is None:
            if not killers:
                return deaths
            deaths.append(Death(LOST))
            continue
        deadly = killers - found.killers.keys()
        cut = [span for start in range(0, rows, block) for span in spans(start, min(start + block, rows), rows, found)]
        assert [row for start, stop in cut for row in range(start, stop)] == list(range(rows))
        died = next((span for span in cut if deadly.intersection(range(*span))), None)
        if died is None:
            assert found.killers.keys() == killers
            return deaths
        deaths.append(Death(LOST, *died))


@hypothesis(deadline=None)
@given(st.data())
def test_every_killer_is_found(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 1000), "rows")
    killers = data.draw(st.sets(st.integers(0, rows - 1), max_size=8), "killers")
    block = data.draw(st.integers(1, rows), "block")
    deaths = search(rows, killers, block)
    assert len(deaths) <= (CAREFUL_AFTER + 2 * len(killers) if killers else 0)


def test_killers_side_by_side_cost_one_death_each() -> None:
    assert len(search(10_000, range(5000, 5008), 4096)) == CAREFUL_AFTER + 1 + 8


@hypothesis(deadline=None)
@given(st.lists(st.integers(0, 99), max_size=20))
def test_a_worker_that_is_killed_at_random_accuses_a_row_only_twice(rows: list[int]) -> None:
    """Any sequence of deaths over a shard without killers: a row is given up only after two deaths that it was in."""
    deaths = [Death(LOST), Death(LOST)]
    for row in rows:
        found = findings(deaths)
        assert found is not None
        deaths.append(Death(LOST, *next(span for span in spans(0, 100, 100, found) if span[0] <= row < span[1])))
    found = findings(deaths)
    assert found is not None
    for killer in found.killers:
        in_it = [death for death in deaths[2:] if death.start <= killer < death.stop]  # type: ignore[operator]
        assert len(in_it) >= 2


def test_work_is_read_as_it_was_written() -> None:
    work = WorkInHand(pid=7, order=ShardOrder(job="j", task="t", output="/out/", shard=3, shards=10), attempt="a")
    data = bytearray(work.to_bytes())
    assert read_work(bytes(data)) == (work, {})
    place = place_of("infer")
    data[place : place + 8] = time_to_bytes(12.5)
    assert read_work(bytes(data)) == (work, {"infer": 12.5})
    assert read_work(b"") is None
    assert read_work(bytes(data[:-3])) is None

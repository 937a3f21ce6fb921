"""Batching: the budget, the order, and what becomes of a batch that fails."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.batcher import Batcher, pack
from workers.handler import Piece
from workers.models.budget import Budget


class OutOfMemory(Exception):
    pass


class Stop(Exception):
    pass


def batcher(budget: Budget) -> Batcher[int]:
    return Batcher(budget, (OutOfMemory,), lambda: None, (Stop,))


def pieces(costs: Sequence[int]) -> list[Piece]:
    return [Piece({"id": i}, cost) for i, cost in enumerate(costs)]


def ids(batch: Sequence[Piece]) -> list[int]:
    return [piece.inputs["id"] for piece in batch]


@given(st.lists(st.integers(1, 100)), st.integers(1, 300), st.none() | st.integers(1, 5))
def test_batches_hold_every_piece_once_within_the_budget(costs: list[int], cost: int, records: int | None) -> None:
    batches = list(pack(costs, Budget(cost, records)))
    assert sorted(i for batch in batches for i in batch) == list(range(len(costs)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(costs[i] for i in batch) <= cost
        assert records is None or len(batch) <= records
    longest = [costs[batch[0]] for batch in batches]
    assert longest == sorted(longest, reverse=True)


@given(st.lists(st.integers(1, 100)), st.integers(1, 300))
def test_outcomes_come_in_the_order_of_the_pieces(costs: list[int], cost: int) -> None:
    assert batcher(Budget(cost)).run(pieces(costs), ids, lambda done: None) == list(range(len(costs)))


def test_out_of_memory_halves_and_is_remembered() -> None:
    seen: list[int] = []

    def infer(batch: Sequence[Piece]) -> list[int]:
        seen.append(len(batch))
        if len(batch) > 5:
            raise OutOfMemory
        return ids(batch)

    budget = Budget(160)
    run = batcher(budget)
    assert run.run(pieces([10] * 40), infer, lambda done: None) == list(range(40))
    assert seen[:3] == [16, 8, 4]
    assert budget.cost == 40
    assert set(seen[3:]) == {4}


def test_a_piece_that_never_fits_is_its_own_error() -> None:
    def infer(batch: Sequence[Piece]) -> list[int]:
        if 3 in ids(batch):
            raise OutOfMemory
        return ids(batch)

    outcomes = batcher(Budget(1000)).run(pieces([10] * 8), infer, lambda done: None)
    assert isinstance(outcomes[3], OutOfMemory)
    assert [o for i, o in enumerate(outcomes) if i != 3] == [0, 1, 2, 4, 5, 6, 7]


def test_any_other_error_is_narrowed_down_without_shrinking_the_budget() -> None:
    budget = Budget(1000)

    def infer(batch: Sequence[Piece]) -> list[int]:
        if 5 in ids(batch):
            raise ValueError("bad piece")
        return ids(batch)

    outcomes = batcher(budget).run(pieces([10] * 8), infer, lambda done: None)
    assert isinstance(outcomes[5], ValueError)
    assert [o for i, o in enumerate(outcomes) if i != 5] == [0, 1, 2, 3, 4, 6, 7]
    assert budget.cost == 1000


def test_an_interruption_passes_at_once() -> None:
    def infer(batch: Sequence[Piece]) -> list[int]:
        raise Stop

    with pytest.raises(Stop):
        batcher(Budget(10)).run(pieces([1, 2]), infer, lambda done: None)


def test_a_handler_that_loses_an_output_is_found_out() -> None:
    with pytest.raises(AssertionError, match="1 outputs for 2 pieces"):
        batcher(Budget(10)).run(pieces([1, 1]), lambda batch: [0], lambda done: None)


def test_each_batch_is_told_how_much_is_done() -> None:
    told: list[int] = []
    batcher(Budget(20)).run(pieces([10] * 7), ids, told.append)
    assert told == [0, 2, 4, 6]

"""Batching: pieces of like cost together, by a budget of padded cost, longest first; halved where memory runs out.

Longest first, so that a batch too large for the device fails at the start of a shard and not at its end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workers.handler import Piece
from workers.models.budget import Budget

T = TypeVar("T")


def pack(costs: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Indices of `costs` in batches, most costly first. A piece beyond the budget is a batch of its own.

    Reads the budget afresh for each batch, so that one that shrinks holds for the rest.
    """
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    start = 0
    while start < len(order):
        size = budget.fits([costs[order[start]]])
        yield order[start : start + size]
        start += size


@dataclass
class Tally:
    """What the batches of a shard came to."""

    batches: int = 0
    cost: int = 0
    padded_cost: int = 0

    def add(self, costs: Sequence[int]) -> None:
        self.batches += 1
        self.cost += sum(costs)
        self.padded_cost += max(costs) * len(costs)


@dataclass
class Batcher(Generic[T]):
    """Runs a function over pieces, batch by batch, and narrows a failure down to the piece that causes it.

    `out_of_memory` names the exceptions that a smaller batch mends; after one, smaller batches are used from then on.
    Any other exception halves only the batch it came from. A piece that fails alone gets its exception as its outcome.
    """

    budget: Budget
    out_of_memory: tuple[type[BaseException], ...]
    recover: Callable[[], None]
    pass_on: tuple[type[BaseException], ...] = ()
    tally: Tally = field(default_factory=Tally)

    def run(
        self,
        pieces: Sequence[Piece],
        function: Callable[[Sequence[Piece]], Sequence[T]],
        each: Callable[[int], None],
    ) -> list[T | Exception]:
        """`function`'s outcome for each piece, in the order given.

        `each` is called before each batch with the number of pieces that have their outcome.
        """
        outcomes: list[T | Exception | None] = [None] * len(pieces)
        done = 0
        for batch in pack([piece.cost for piece in pieces], self.budget):
            waiting = [batch]
            while waiting:
                indices = waiting.pop()
                fits = self.budget.fits([pieces[i].cost for i in indices])
                if len(indices) > fits:  # packed before the budget shrank
                    waiting += [indices[fits:], indices[:fits]]
                    continue
                each(done)
                try:
                    results = function([pieces[i] for i in indices])
                except self.pass_on:
                    raise
                except Exception as error:  # noqa: BLE001 (narrowed down to one piece, whose outcome it then is)
                    if isinstance(error, self.out_of_memory):
                        self.recover()
                    if len(indices) == 1:
                        outcomes[indices[0]] = error
                        done += 1
                        continue
                    half = len(indices) // 2
                    if isinstance(error, self.out_of_memory):
                        self.budget.shrink_to(half * max(pieces[i].cost for i in indices))
                    waiting += [indices[half:], indices[:half]]
                    continue
                if len(results) != len(indices):
                    raise AssertionError(f"the handler gave {len(results)} outputs for {len(indices)} pieces")
                self.tally.add([pieces[i].cost for i in indices])
                done += len(indices)
                for index, result in zip(indices, results, strict=True):
                    outcomes[index] = result
        return [outcome for outcome in outcomes if outcome is not None]

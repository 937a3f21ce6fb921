"""How are pieces batched? Those of similar cost together, within a budget of padded cost, the longest first.

Longest first, so that a batch too large for the device fails at the start of a shard and not at its end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workers.handler import Piece
from workers.models.budget import Budget

T = TypeVar("T")


def pack(costs: Sequence[int], budget: Budget) -> Iterator[list[int]]:
    """Yield the indices of `costs` in batches, the most costly first. A piece beyond the budget is a batch of its own.

    The budget is read again for each batch, so that if it shrinks, the remaining batches are smaller.
    """
    order = sorted(range(len(costs)), key=lambda index: -costs[index])
    start = 0
    while start < len(order):
        size = budget.fits([costs[order[start]]])
        yield order[start : start + size]
        start += size


@dataclass
class Tally:
    """The totals of a shard's batches: their number, their cost, and their cost with padding."""

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

    A batch that raises an exception is halved. If it is one of `out_of_memory`, which a smaller batch avoids, later
    batches are smaller too. A piece that fails alone gets the exception as its outcome. Exceptions of `pass_on` are
    raised.
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
        """Return the outcome of `function` for each piece, in the order of `pieces`.

        Before each batch, `each` is called with the number of pieces that have an outcome.
        """
        outcomes: list[T | Exception | None] = [None] * len(pieces)
        done = 0
        for batch in pack([piece.cost for piece in pieces], self.budget):
            waiting = [batch]
            while waiting:
                indices = waiting.pop()
                fits = self.budget.fits([pieces[i].cost for i in indices])
                if len(indices) > fits:  # the batch was packed before the budget shrank
                    waiting += [indices[fits:], indices[:fits]]
                    continue
                each(done)
                try:
                    results = function([pieces[i] for i in indices])
                except self.pass_on:
                    raise
                except Exception as error:  # noqa: BLE001 (narrowed down to one piece, and then its outcome)
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

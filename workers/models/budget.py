"""How large may a batch be? A budget belongs to a loaded model on a device."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Budget:
    """How much goes into a batch. `cost` counts padded tokens (samples, pixels), `records` caps the pieces.

    A model that ran out of memory keeps the smaller cost that worked, for as long as it stays loaded.
    """

    cost: int
    records: int | None = None

    def fits(self, costs: Sequence[int]) -> int:
        """How many pieces of the most costly of these are a batch: at least one."""
        size = max(1, self.cost // max(1, *costs))
        return size if self.records is None else min(size, self.records)

    def shrink_to(self, padded_cost: int) -> None:
        """Remember that a batch of more than this much padded cost doesn't fit."""
        self.cost = min(self.cost, padded_cost)

"""How large may a batch be? A budget belongs to a loaded model on a device."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Budget:
    """The limits of a batch: `cost` counts padded tokens (samples, pixels), `records` caps the pieces.

    After a model ran out of memory, the smaller cost that worked is kept for as long as the model stays loaded.
    """

    cost: int
    records: int | None = None

    def fits(self, costs: Sequence[int]) -> int:
        """Return the batch size that fits if every piece were padded to the longest: at least one."""
        size = max(1, self.cost // max(1, *costs))
        return size if self.records is None else min(size, self.records)

    def shrink_to(self, padded_cost: int) -> None:
        """Remember that a batch of more than this much padded cost doesn't fit."""
        self.cost = min(self.cost, padded_cost)

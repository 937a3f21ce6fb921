"""In which order are webhooks sent? Tenants take turns, and none has all senders, however slow its receivers are."""

from collections import Counter, deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Items of tenants, for several threads. At most `share` items of one tenant are in hand at once."""

    def __init__(self, share: int) -> None:
        self._share = share
        #: The tenant whose turn is next comes first.
        self._waiting: dict[str, deque[T]] = {}
        self._in_hand: Counter[str] = Counter()
        self._changed = Condition()

    def put(self, tenant: str, item: T) -> None:
        with self._changed:
            self._waiting.setdefault(tenant, deque()).append(item)
            self._changed.notify()

    def get(self) -> tuple[str, T]:
        """Wait for an item, and return it with its tenant. Call `done` once it is done with."""
        with self._changed:
            while (tenant := self._next()) is None:
                self._changed.wait()
            items = self._waiting.pop(tenant)
            item = items.popleft()
            if items:
                self._waiting[tenant] = items
            self._in_hand[tenant] += 1
            return tenant, item

    def _next(self) -> str | None:
        return next((tenant for tenant in self._waiting if self._in_hand[tenant] < self._share), None)

    def done(self, tenant: str) -> None:
        with self._changed:
            self._in_hand[tenant] -= 1
            self._changed.notify()

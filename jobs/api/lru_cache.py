"""What is kept between requests, in bounded memory? The values that were used last."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class LruCache(Generic[T]):
    """Values by name. The one that is unused for longest goes first. Threads may share one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: OrderedDict[str, T] = OrderedDict()
        self._lock = Lock()

    def known(self, name: str) -> T | None:
        """Return the value in the cache; None if there is none."""
        with self._lock:
            if name in self._found:
                self._found.move_to_end(name)
            return self._found.get(name)

    def get(self, name: str, find: Callable[[], T | None], stays: Callable[[T], bool] = lambda found: True) -> T | None:
        """Return the value in the cache, or else what `find` finds, which is kept from now on if it `stays` so."""
        found = self.known(name)
        if found is not None:
            return found
        found = find()
        if found is not None and stays(found):
            with self._lock:
                self._found[name] = found
                while len(self._found) > self._most:
                    self._found.popitem(last=False)
        return found

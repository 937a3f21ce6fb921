"""Many small reads of storage at once, bounded ahead of whoever takes the answers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`map` in order, run by so many threads at most twice as many items ahead."""
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(function, item) for item in islice(source, 2 * threads))
        while waiting:
            done = waiting.popleft()
            yield done.result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))

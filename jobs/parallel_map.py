"""How are many small reads of storage made at once, without reading far more than is used?"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Call `function` on each item in so many threads; yield the results in order.

    At most twice as many items as threads are read ahead of the caller.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="parallel_map") as pool:
        waiting = deque(pool.submit(function, item) for item in islice(source, 2 * threads))
        while waiting:
            done = waiting.popleft()
            yield done.result()
            waiting.extend(pool.submit(function, item) for item in islice(source, 1))

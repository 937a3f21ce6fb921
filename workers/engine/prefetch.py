"""Overlap stages by threads: run an iterator ahead of its reader, and a function behind its caller."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def ahead(source: Iterator[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """Run `source` in a thread, at most `depth` items ahead of the reader, who gets its exceptions in their place.

    The thread ends when the context is left, even if the iterator wasn't read to the end.
    """
    items: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    over = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not over.is_set():
            try:
                items.put((item, error), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in source:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except BaseException as error:  # noqa: BLE001 (handed to the reader, who raises it)
            put(None, error)

    def read() -> Iterator[T]:
        while True:
            item, error = items.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]

    context = copy_context()
    thread = threading.Thread(target=lambda: context.run(fill), name="read-ahead", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        over.set()
        thread.join()


@contextmanager
def behind(function: Callable[[T], None]) -> Iterator[Callable[[T], None]]:
    """Run `function` in a thread, at most one call behind the caller.

    An exception that it raises is raised by the next call, or when the context is left.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write-behind") as pool:
        last: Future[None] | None = None

        def call(item: T) -> None:
            nonlocal last
            if last is not None:
                last.result()
            last = pool.submit(function, item)

        yield call
        if last is not None:
            last.result()

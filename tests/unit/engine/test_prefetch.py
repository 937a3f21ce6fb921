"""Overlap: items and errors arrive in their place, and no thread is left behind."""

import threading
from collections.abc import Iterator

import pytest

from workers.engine.prefetch import ahead, behind


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("read-ahead", "write-behind"))}


def test_items_arrive_in_order() -> None:
    with ahead(iter(range(100))) as items:
        assert list(items) == list(range(100))
    assert not threads()


def test_an_error_arrives_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with ahead(source()) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)
    assert not threads()


def test_leaving_early_ends_the_thread_and_reads_no_further_than_it_may() -> None:
    taken = []

    def source() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with ahead(source(), depth=2) as items:
        assert next(items) == 0
    assert len(taken) <= 5
    assert not threads()


def test_writes_happen_in_order_and_are_over_at_the_end() -> None:
    written: list[int] = []
    with behind(written.append) as write:
        for number in range(50):
            write(number)
    assert written == list(range(50))
    assert not threads()


def test_a_failed_write_is_raised() -> None:
    def fail(number: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), behind(fail) as write:
        write(1)
    assert not threads()

"""Queries of progress, coalesced; and the thread pools in which requests are answered."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from jobs.api.auth import LOCAL
from jobs.api.progress_coalescer import ProgressCoalescer, Seen
from jobs.api.thread_pools import ThreadPools

NOBODY: Seen = (None, True)
AWAY: Seen = (None, False)


class Slow:
    """Answers once it is let to, and keeps what it was asked."""

    def __init__(self, answer: Callable[[Sequence[str]], Sequence[Seen]]) -> None:
        self.asked: list[list[str]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self._answer = answer

    def __call__(self, jobs: Sequence[str]) -> Sequence[Seen]:
        self.asked.append(list(jobs))
        self.begun.set()
        assert self.go.wait(30)
        return self._answer(jobs)


async def first_and_then(slow: Slow, coalescer: ProgressCoalescer, jobs: Sequence[str]) -> list[Any]:
    """Ask for one job, and while that query is under way for these. Return what all of them got."""
    first = asyncio.create_task(coalescer.of("first"))
    assert await asyncio.to_thread(slow.begun.wait, 30)
    others = [asyncio.create_task(coalescer.of(job)) for job in jobs]
    await asyncio.sleep(0)  # each of them has begun to wait
    slow.go.set()
    return await asyncio.gather(first, *others, return_exceptions=True)


def run(scene: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(scene, 60))


def test_requests_that_wait_are_one_query() -> None:
    slow = Slow(lambda jobs: [NOBODY] * len(jobs))
    found = run(first_and_then(slow, ProgressCoalescer(slow), ["a", "b", "a", "first", "c"]))
    assert found == [NOBODY] * 6
    assert slow.asked == [["first"], ["a", "b", "first", "c"]], "a query under way is too old for later requests"


def test_a_query_has_an_end() -> None:
    slow = Slow(lambda jobs: [NOBODY] * len(jobs))
    jobs = [str(number) for number in range(250)]
    assert run(first_and_then(slow, ProgressCoalescer(slow), jobs)) == [NOBODY] * 251
    assert [len(asked) for asked in slow.asked] == [1, 100, 100, 50]


def test_all_that_wait_learn_at_once_that_redis_is_away() -> None:
    slow = Slow(lambda jobs: [AWAY] * len(jobs))
    assert run(first_and_then(slow, ProgressCoalescer(slow), ["a", "b"])) == [AWAY] * 3
    assert slow.asked == [["first"]]


def test_a_fault_is_for_those_who_asked() -> None:
    def answer(jobs: Sequence[str]) -> list[Seen]:
        if "first" in jobs:
            raise ZeroDivisionError
        return [NOBODY] * len(jobs)

    slow = Slow(answer)
    first, other = run(first_and_then(slow, ProgressCoalescer(slow), ["a"]))
    assert isinstance(first, ZeroDivisionError)
    assert other == NOBODY


def test_progress_does_not_wait_behind_submissions() -> None:
    async def scene() -> str:
        pools, go = ThreadPools(), threading.Event()
        submissions = [asyncio.create_task(pools.run("submit", LOCAL, lambda: go.wait(30))) for _ in range(100)]
        try:
            return await pools.run("quick", LOCAL, lambda: "seen")
        finally:
            go.set()
            assert all(await asyncio.gather(*submissions))

    assert run(scene()) == "seen"


def test_a_tenant_with_a_quota_submits_one_job_after_the_other() -> None:
    who = replace(LOCAL, tenant="search", max_running_jobs=5)
    one_at_a_time, go = threading.Lock(), threading.Event()

    def submit() -> bool:
        alone = one_at_a_time.acquire(blocking=False)
        go.wait()
        if alone:
            one_at_a_time.release()
        return alone

    async def scene() -> list[bool]:
        pools = ThreadPools()
        submissions = [asyncio.create_task(pools.run("submit", who, submit)) for _ in range(10)]
        try:
            while pools.share("submit", who).statistics().tasks_waiting < 9:
                await asyncio.sleep(0)
        finally:
            go.set()
        return await asyncio.gather(*submissions)

    assert run(scene()) == [True] * 10

"""A process that fails in a row, where others don't, takes no shards for a while."""

from workers.execution.breaker import AVOID_S, FAILURES, FIRST_S, LONGEST_S, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_for_twice_as_long_each_time() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(FAILURES - 1):
        breaker.failed("no")
    assert (breaker.is_open, breaker.wait_s) == (False, 0.0)
    waits = []
    for _ in range(9):
        breaker.failed("no")
        waits.append(breaker.wait_s)
        clock.now += breaker.wait_s
        assert (breaker.is_open, breaker.wait_s) == (True, 0.0), "half-open"
    assert waits[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert waits[-1] == LONGEST_S


def test_a_shard_that_is_done_closes_it() -> None:
    breaker = Breaker(Clock())
    breaker.trip("the disk is full")
    assert (breaker.is_open, breaker.wait_s, breaker.why) == (True, FIRST_S, "the disk is full")
    breaker.succeeded("job")
    assert (breaker.is_open, breaker.failures, breaker.why) == (False, 0, "")


def test_a_job_that_failed_here_is_avoided_for_a_while() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed("no", "one")
    breaker.failed("no", "two")
    breaker.failed("no", "two")
    assert breaker.avoided == ["one", "two"]
    clock.now += AVOID_S
    assert breaker.avoided == ["two"]
    clock.now += AVOID_S
    assert breaker.avoided == []
    breaker.failed("no", "two")
    clock.now += 3 * AVOID_S
    assert breaker.avoided == ["two"], "three times in a row"
    clock.now += 2 * LONGEST_S
    assert breaker.avoided == []


def test_it_takes_up_the_failures_of_processes_that_were_lost() -> None:
    breaker = Breaker(Clock())
    breaker.recall(["lost"] * (FAILURES + 1))
    assert (breaker.is_open, breaker.wait_s) == (True, 2 * FIRST_S)

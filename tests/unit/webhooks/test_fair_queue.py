"""The order in which webhooks are sent."""

from jobs.webhooks.fair_queue import FairQueue


def test_tenants_take_turns_and_none_has_all() -> None:
    queue: FairQueue[int] = FairQueue(2)
    for item in range(5):
        queue.put("many", item)
    queue.put("one", 9)
    assert [queue.get() for _ in range(3)] == [("many", 0), ("one", 9), ("many", 1)]
    queue.put("one", 10)
    assert queue.get() == ("one", 10), "two of the other tenant's are in hand"
    queue.done("many")
    assert queue.get() == ("many", 2)

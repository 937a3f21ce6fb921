"""Whose fault is it? What one machine alone saw is its own, as long as others could have seen it too."""

from collections.abc import Callable

import pytest

from jobs.broker import CONTROL_QUEUE
from jobs.settings import Settings
from jobs.state import State
from schemas.errors import LeftToOthers
from schemas.loss import NO_ROWS, Loss
from schemas.manifest import ErrorInfo, JobStatus
from schemas.plan import ShardOrder

TASK = "text-classification"
ERROR = ErrorInfo(code="access_denied", message="no")
Hosts = Callable[..., list[State]]


@pytest.fixture
def hosts(settings: Settings) -> Hosts:
    """Machines with a worker each, which have reported."""

    def made(*names: str, **changes: object) -> list[State]:
        found = [State(settings.model_copy(update={"host": name, **changes})) for name in names]
        for name, state in zip(names, found, strict=True):
            state.workers.report(f"{name}-1", ["text", "control"], 1, host=name)
        return found

    return made


def started(state: State, shards: int = 10, job: str = "job", max_errors: int | None = None) -> None:
    assert state.jobs.add(job, TASK, f"/{job}/", 5, 1.0)
    state.jobs.start(job, shards, shards, max_errors, [], 0, {})


def take(state: State, attempt: str, **more: list[str]) -> ShardOrder:
    order = state.shards.take([TASK], [], attempt, **more)
    assert order is not None
    return order


def test_what_one_machine_refuses_others_do(hosts: Hosts) -> None:
    """One of nine that gets 403 failed the job after 112 of 3,000 shards."""
    bad, good, _ = hosts("bad", "good", "other")
    started(bad)
    for number in range(5):
        verdict = bad.shards.refuse(take(bad, f"a{number}"), f"a{number}", ERROR, 1, 0)
        assert not verdict.stands
        assert not verdict.suspect, "no other has done a shard yet"
    assert bad.jobs.status("job") is JobStatus.RUNNING
    assert not good.shards.commit(take(good, "b"), "b", 1, {})
    assert bad.shards.refuse(take(bad, "a5"), "a5", ERROR, 1, 0).suspect, "the others do the job's shards"


def test_what_two_machines_refuse_fails_the_job(hosts: Hosts) -> None:
    one, two = hosts("one", "two")
    started(one)
    assert not one.shards.refuse(take(one, "a"), "a", ERROR, 1, 0).stands
    assert two.shards.refuse(take(two, "b"), "b", ERROR, 1, 0).stands
    assert one.jobs.status("job") is JobStatus.FAILING


def test_a_commit_between_two_refusals_counts_for_the_job(hosts: Hosts) -> None:
    one, two = hosts("one", "two")
    started(one)
    one.shards.refuse(take(one, "a"), "a", ERROR, 1, 0)
    two.shards.commit(take(two, "b"), "b", 1, {})
    assert not two.shards.refuse(take(two, "c"), "c", ERROR, 1, 0).stands


def test_a_machine_alone_is_believed(hosts: Hosts) -> None:
    (alone,) = hosts("alone")
    started(alone)
    assert alone.shards.refuse(take(alone, "a"), "a", ERROR, 1, 0).stands
    assert alone.jobs.status("job") is JobStatus.FAILING


def test_a_shard_that_failed_here_waits_for_another_machine(hosts: Hosts) -> None:
    """A full disk gave up 168 shards in 12 minutes: their worker was always idle, and got them back first."""
    bad, good = hosts("bad", "good")
    started(bad, shards=2)
    first, second = take(bad, "a"), take(bad, "b")
    for order, attempt in ((first, "a"), (second, "b")):
        assert not bad.shards.fail(order, attempt, ERROR, is_certain=False).stands
    with pytest.raises(LeftToOthers):
        bad.shards.take([TASK], [], "c")
    assert {take(good, "d").shard, take(good, "e").shard} == {0, 1}
    assert good.shards.fail(first, "d", ERROR, is_certain=False).stands, "two saw it"
    assert not good.shards.fail(second, "e", ERROR, "another kind", is_certain=False).stands, "two, each another thing"
    assert take(bad, "f") == second, "both saw it fail: either may try"


def test_a_job_that_fails_here_is_left_to_others(hosts: Hosts) -> None:
    bad, _ = hosts("bad", "good")
    started(bad)
    with pytest.raises(LeftToOthers):
        bad.shards.take([TASK], [], "a", ["job"])
    started(bad, job="next")
    assert take(bad, "b", avoid=["job"]).job == "next"
    (alone,) = hosts("alone")
    alone.workers.forget("bad-1")
    alone.workers.forget("good-1")
    assert take(State(alone_settings(alone)), "c", avoid=["job"]).job == "job"


def alone_settings(state: State) -> Settings:
    port = state._redis.connection_pool.connection_kwargs
    return Settings(redis_url=f"redis://{port['host']}:{port['port']}/{port.get('db', 0)}", host="alone")


@pytest.mark.parametrize("names", ["aaaa", "aabbaabb"])
def test_leases_that_run_out_while_loading(hosts: Hosts, names: str) -> None:
    """A machine with four GPUs that dies failed the job, for its model."""
    states = hosts(*names, lease_s=1000.0)
    started(states[0])
    for number, state in enumerate(states):
        order = take(state, f"x{number}")
        state.shards.set_position(order, f"x{number}", "load")
        state._redis.zadd("nightshift:leases", {f"job/{order.shard}": 0})
    assert states[0].shards.sweep(CONTROL_QUEUE).expired == len(names)
    assert states[0].jobs.status("job") is JobStatus.RUNNING


@pytest.mark.parametrize(
    ("names", "ends"), [("abab", "failing"), ("aaaaaab", "running"), ("abcdefghijklmnopqrstuvwx", "failing")]
)
def test_a_model_that_ends_what_loads_it_fails_the_job(hosts: Hosts, names: str, ends: str) -> None:
    """What happened once on a second machine may be chance; not what happened on many."""
    states = hosts(*names, lease_s=1000.0)
    started(states[0])
    for number, state in enumerate(states):
        order = take(state, f"x{number}")
        state.shards.set_position(order, f"x{number}", "load")
        state.shards.lost(order, f"x{number}", Loss.WORKER_LOST)
    assert states[0].jobs.status("job") == ends


def test_leases_last_over_a_gap_in_sweeping(hosts: Hosts) -> None:
    """Redis was away for longer than a lease, say: nobody could renew."""
    (state,) = hosts("one", lease_s=100.0)
    started(state)
    order = take(state, "a")
    state.shards.sweep(CONTROL_QUEUE)
    state._redis.zadd("nightshift:leases", {f"job/{order.shard}": 0})
    state._redis.incrbyfloat("nightshift:swept", -1000)
    assert state.shards.sweep(CONTROL_QUEUE).expired == 0
    assert state.shards.renew(order, "a", 1) == "running"
    state._redis.zadd("nightshift:leases", {f"job/{order.shard}": 0})
    assert state.shards.sweep(CONTROL_QUEUE).expired == 1


def test_deaths_on_one_machine_are_not_enough(hosts: Hosts) -> None:
    bad, good = hosts("bad", "good", max_lost=2)
    started(bad, shards=1)
    for number in range(5):
        order = ShardOrder(job="job", task=TASK, output="/job/", shard=0, shards=1)
        if number:
            bad._redis.hdel("nightshift:job:job:blamed", "0")
        assert take(bad, f"a{number}") == order
        bad.shards.lost(order, f"a{number}", Loss.WORKER_LOST)
        assert bad.jobs.failed_shards("job") == {}
    assert take(good, "b") == order
    bad._redis.hset("nightshift:job:job:blamed", "0", '{"bad": {"lost": 5}}')
    good.shards.lost(order, "b", Loss.WORKER_LOST)
    assert good.jobs.failed_shards("job")[0].code == "worker_lost"


def test_hangs_of_storage_name_no_rows(hosts: Hosts) -> None:
    """They are as many as deaths that named none: seventeen of a quarter of an hour each were too many."""
    (alone,) = hosts("alone", max_lost=2)
    started(alone, shards=1)
    for attempt in ("a", "b"):
        order = take(alone, attempt)
        alone.shards.set_position(order, attempt, (3, 5))
        alone.shards.lost(order, attempt, Loss.WORKER_LOST)
    for attempt in ("c", "d"):
        assert alone.jobs.failed_shards("job") == {}
        alone.shards.set_position(take(alone, attempt), attempt, NO_ROWS)
        alone.shards.lost(order, attempt, Loss.TIMEOUT)
    assert alone.jobs.failed_shards("job")[0].code == "timeout"


def test_the_limit_on_errors_holds_after_redis_was_lost(hosts: Hosts) -> None:
    """Redis lost after the last commit: what had failed by max_errors was a success."""
    (state,) = hosts("one")
    assert state.jobs.add("job", TASK, "/job/", 5, 1.0)
    assert state.jobs.start("job", 2, 20, 3, [0, 1], 20, {"no_text": 4})
    assert state.jobs.status("job") is JobStatus.FAILING


def test_a_lost_answer_is_given_back(hosts: Hosts) -> None:
    (state,) = hosts("one")
    started(state, shards=1)
    state.shards.take([TASK], [], "unheard")
    state.shards.give_back("unheard")
    state.shards.give_back("never asked")
    order = take(state, "a")
    assert state.shards.deaths(order) == []
    state.shards.give_back("unheard")
    assert state.shards.renew(order, "a", 1) == "running"


def test_control_that_is_away_for_a_day_gets_few_messages(hosts: Hosts) -> None:
    """It was 576,000 of 100 jobs, 620 MB of Redis."""
    (state,) = hosts("one")
    for number in range(100):
        state.jobs.add(f"job-{number}", TASK, "/out/", 5, float(number))
    for _ in range(50):
        for job in state.jobs.active():
            state._redis.hset(f"nightshift:job:{job}", "asked", 0)
        for _ in state.shards.sweep(CONTROL_QUEUE).plan:
            state._redis.rpush(CONTROL_QUEUE, "message")
    assert 100 <= state.queue_length(CONTROL_QUEUE) <= 200
    state._redis.delete(CONTROL_QUEUE)
    for job in state.jobs.active():
        state._redis.hset(f"nightshift:job:{job}", "asked", 0)
    assert len(state.shards.sweep(CONTROL_QUEUE).plan) == 100, "lost messages are missed"
    assert state.shards.sweep(CONTROL_QUEUE).plan == [], "asked just now"


def test_twelve_that_release_at_once_send_a_window(hosts: Hosts) -> None:
    (state,) = hosts("one")
    started(state, shards=5000)
    missing = [state.shards.tickets_missing(TASK, 1000, "queue") for _ in range(12)]
    assert sum(missing) == 1000
    state._redis.rpush("queue", *["x"] * 1000)
    state.shards.tickets_sent(TASK, 1000)
    assert state.shards.tickets_missing(TASK, 1000, "queue") == 0


def test_a_turn_costs_the_same_with_a_thousand_tenants(hosts: Hosts) -> None:
    """Counted in commands that the script gives."""
    (state,) = hosts("one")

    def commands(attempt: str) -> int:
        state._redis.config_resetstat()
        order = state.shards.take([TASK], ["m-none"], attempt)
        assert order is not None
        state.shards.commit(order, attempt, 1, {})
        stats = state._redis.info("commandstats")
        return sum(int(one["calls"]) for one in stats.values())

    def jobs(first: int, last: int) -> None:
        for number in range(first, last):
            assert state.jobs.add(
                f"j{number}", TASK, "/out/", 5, float(number), tenant=f"t{number}", model=f"m{number}"
            )
            state.jobs.start(f"j{number}", 5, 5, None, [], 0, {})

    jobs(0, 20)
    few = max(commands(f"a{n}") for n in range(20))
    jobs(20, 1000)
    many = max(commands(f"b{n}") for n in range(100))
    assert many <= few + 20

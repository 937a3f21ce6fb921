"""State in a real Redis: each transition, and each thing that can come twice or late."""

import re
from functools import partial
from importlib.resources import files
from itertools import count, islice
from unittest.mock import Mock

import pytest
import redis

from jobs.broker import CONTROL_QUEUE
from jobs.settings import Settings
from jobs.state import State
from jobs.state.connection import Connection, Script
from jobs.state.shards import Swept
from schemas.errors import ServiceUnavailable
from schemas.loss import Loss
from schemas.manifest import ErrorInfo, JobStatus
from schemas.plan import ShardOrder
from tests.servers import wait_for

TASK = "text-classification"


def order(shard: int, job: str = "job") -> ShardOrder:
    return ShardOrder(job=job, task=TASK, output="/out/", shard=shard, shards=10)


def running(
    state: State, shards: int = 10, job: str = "job", priority: int = 5, accepted: float = 1.0, **more: object
) -> None:
    assert state.jobs.add(job, TASK, "/out/", priority, accepted)
    known = {"max_errors": None, "done": [], "rows_done": 0, "errors": {}} | more
    assert not state.jobs.start(job, shards, 100, **known)  # type: ignore[arg-type]


QUEUE = "nightshift." + TASK
_attempts = count()


def taken(state: State, most: int = 100, attempt: str = "") -> list[tuple[str, int]]:
    """What workers take, one after the other, until nothing waits or they are so many."""
    found = []
    for number in islice(_attempts, most):
        shard = state.shards.take([TASK], [], attempt or f"attempt-{number}")
        if shard is None:
            break
        found.append((shard.job, shard.shard))
    return found


def test_messages_are_sent_for_a_window_of_what_waits(state: State) -> None:
    running(state)
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 3
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 0, "another is about to send them"
    state._redis.rpush(QUEUE, "a", "b", "c")
    state.shards.tickets_sent(TASK, 3)
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 0
    state._redis.lpop(QUEUE)
    assert taken(state, 1) == [("job", 0)]
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 1
    state.shards.tickets_sent(TASK, 1)
    assert taken(state, 8) == [("job", shard) for shard in range(1, 9)]
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 0, "one shard waits, two messages are there"
    state._redis.delete(QUEUE)
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 1, "messages that are lost are missed at once"
    assert taken(state) == [("job", 9)]
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 0


def test_the_more_urgent_then_the_older_job_goes_first(state: State) -> None:
    running(state, job="late", accepted=3.0, shards=2)
    running(state, job="early", accepted=2.0, shards=2)
    running(state, job="urgent", accepted=4.0, shards=2, priority=9)
    assert [job for job, _ in taken(state)] == ["urgent", "urgent", "early", "late", "early", "late"]


def test_a_shard_is_taken_once_though_asked_for_twice(state: State) -> None:
    """The answer was lost on its way, and the worker asks again."""
    running(state)
    assert taken(state, 2, "a") == [("job", 0), ("job", 0)]
    assert taken(state, 1, "b") == [("job", 1)]
    state.shards.requeue(order(0), "a")
    assert taken(state, 2, "c") == [("job", 0), ("job", 0)]


def test_a_shard_has_one_lease(state: State) -> None:
    running(state, shards=2)
    assert taken(state, 1, "a") == [("job", 0)]
    assert taken(state, 1, "b") == [("job", 1)]
    assert taken(state) == []
    assert state.shards.renew(order(0), "a", 5) == "running"
    assert state.shards.renew(order(0), "b", 5) == "lost"
    assert not state.shards.commit(order(0), "a", 10, {"null_input": 2})
    state.shards.requeue(order(1), "b")
    assert taken(state, 1, "c") == [("job", 1)], "what is committed is not handed out"


def test_progress_counts_each_shard_once(state: State) -> None:
    running(state)
    taken(state, 1, "a")
    taken(state, 1, "b")
    state.shards.renew(order(1), "b", 7)
    for _ in range(3):
        state.shards.commit(order(0), "a", 10, {"null_input": 2})
    progress = state.jobs.progress("job")
    assert progress is not None
    assert (progress.shards_done, progress.rows_done, progress.rows_live, progress.shards_running) == (1, 10, 7, 1)
    assert progress.errors == {"null_input": 2}
    assert progress.started is not None


def test_the_last_commit_asks_for_the_end(state: State) -> None:
    running(state, shards=2)
    assert not state.shards.commit(order(0), "a", 1, {})
    assert state.shards.commit(order(1), "b", 1, {})
    state.jobs.finish("job", JobStatus.SUCCEEDED)
    assert state.jobs.status("job") is JobStatus.SUCCEEDED
    assert state.jobs.active() == []
    assert taken(state) == []


def test_a_job_without_shards_ends_at_once(state: State) -> None:
    state.jobs.add("job", TASK, "/out/", 5, 1.0)
    assert state.jobs.start("job", 0, 0, None, [], 0, {})


def test_what_is_done_already_is_not_handed_out(state: State) -> None:
    running(state, done=[0, 2, 9], rows_done=30, errors={"x": 1})
    assert [shard for _, shard in taken(state)] == [1, 3, 4, 5, 6, 7, 8]
    progress = state.jobs.progress("job")
    assert progress is not None
    assert (progress.shards_done, progress.rows_done, progress.errors) == (3, 30, {"x": 1})


def test_a_shard_put_back_comes_again(state: State) -> None:
    running(state, shards=1)
    assert taken(state, attempt="a") == [("job", 0)] * 100
    state.shards.requeue(order(0), "a")
    assert taken(state) == [("job", 0)]
    assert state.shards.tries(order(0)) == 0


def test_a_delayed_shard_waits_for_the_sweep(state: State) -> None:
    running(state, shards=1)
    taken(state, 1, "a")
    state.shards.requeue(order(0), "a", 1000)
    state.shards.sweep(CONTROL_QUEUE)
    assert taken(state) == []
    assert state.shards.tries(order(0)) == 1
    state._redis.zincrby("nightshift:delayed", -2000, "job/0")
    state.shards.sweep(CONTROL_QUEUE)
    assert taken(state) == [("job", 0)]


def sweep_into(found: list[Swept], state: State) -> int:
    found.append(state.shards.sweep(CONTROL_QUEUE))
    return found[-1].expired


def test_a_lease_that_runs_out_is_released_again_then_given_up(state: State, settings: Settings) -> None:
    short = State(settings.model_copy(update={"lease_s": 0.05, "max_lost": 2}))
    running(short, shards=1)
    expired: list[Swept] = []
    for attempt in ("a", "b"):
        assert taken(short, 1, attempt) == [("job", 0)]
        wait_for("the lease runs out", partial(sweep_into, expired, short))
    assert taken(short) == []
    assert short.jobs.failed_shards("job")[0].code == "worker_lost"
    assert expired[-1].finish == [("job", "/out/")]
    assert short.shards.sweep(CONTROL_QUEUE).finish == [], "control was asked just now"
    assert short.shards.renew(order(0), "a", 1) == "lost"


def test_a_late_commit_of_a_lost_shard_counts(state: State, settings: Settings) -> None:
    """The part is in storage: that it was given up doesn't matter any more."""
    short = State(settings.model_copy(update={"lease_s": 0.05, "max_lost": 1}))
    running(short, shards=1)
    taken(short, 1, "a")
    wait_for("the lease runs out", lambda: short.shards.sweep(CONTROL_QUEUE).expired == 1)
    assert 0 in short.jobs.failed_shards("job")
    assert short.shards.commit(order(0), "a", 10, {})
    assert short.jobs.failed_shards("job") == {}


def test_cancel_stops_releases_and_waits_for_the_shards_in_hand(state: State) -> None:
    running(state)
    taken(state, 1, "a")
    assert state.jobs.cancel("job")
    assert state.jobs.cancel("job"), "asked twice, it is answered twice"
    assert taken(state) == []
    assert state.shards.renew(order(0), "a", 1) == "cancelling"
    progress = state.jobs.progress("job")
    assert progress is not None
    assert not progress.finishable
    assert state.shards.requeue(order(0), "a")
    assert taken(state) == []
    assert state.shards.tickets_missing(TASK, 3, QUEUE) == 0


def test_too_many_errors_fail_the_job(state: State) -> None:
    running(state, max_errors=3)
    taken(state, 1, "a")
    assert not state.shards.commit(order(0), "a", 10, {"x": 3})
    taken(state, 1, "a")
    assert state.shards.commit(order(1), "a", 10, {"x": 1})
    progress = state.jobs.progress("job")
    assert progress is not None
    assert progress.status is JobStatus.FAILING
    assert progress.error == ErrorInfo(
        code="too_many_errors", message="4 records have an error, more than max_errors allows (3)"
    )


def test_a_commit_of_an_unknown_job(state: State) -> None:
    assert not state.shards.commit(order(0, "stranger"), "a", 1, {})
    assert state.jobs.progress("stranger") is None


def test_an_active_job_is_not_added_again(state: State) -> None:
    running(state)
    assert not state.jobs.add("job", TASK, "/out/", 5, 2.0)
    state.jobs.finish("job", JobStatus.FAILED)
    assert state.jobs.add("job", TASK, "/out/", 5, 2.0)
    assert state.jobs.status("job") is JobStatus.PLANNING


def test_locks(state: State) -> None:
    assert state.locks.take("x", "me", 10)
    assert state.locks.take("x", "me", 10)
    assert not state.locks.take("x", "you", 10)
    state.locks.release("x", "you")
    assert not state.locks.take("x", "you", 10)
    state.locks.release("x", "me")
    assert state.locks.take("x", "you", 10)


def test_the_window_follows_the_workers(state: State, settings: Settings) -> None:
    assert state.workers.window("text") == 2
    state.workers.report("one", ["text", "control"], 4)
    state.workers.report("two", ["vision"], 8)
    assert State(settings).workers.window("text") == 8
    state.workers.forget("one")
    assert State(settings).workers.window("text") == 2


def test_redis_away_is_tried_four_times_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(Settings(redis_url="redis://:pw@127.0.0.1:1/0"))
    tried = Mock(side_effect=ConnectionRefusedError)
    monkeypatch.setattr(redis.Connection, "_connect", tried)
    with pytest.raises(
        ServiceUnavailable, match=r"Redis at 127\.0\.0\.1:1 can't be reached.*NIGHTSHIFT_REDIS_URL"
    ) as error:
        state.ping()
    assert "pw" not in str(error.value)
    assert tried.call_count == 4
    with pytest.raises(ServiceUnavailable, match="set NIGHTSHIFT_REDIS_URL"):
        State(Settings(redis_url=None))


def test_bytes_a_shard_are_few(state: State) -> None:
    """100,000 shards in Redis: a bitmap, and the window."""
    running(state, shards=100_000, done=list(range(0, 100_000, 2)))
    assert len(taken(state, 50)) == 50
    keys = list(state._redis.scan_iter("nightshift:*"))
    assert sum(state._redis.memory_usage(key) for key in keys) < 100_000


def test_nothing_is_left_of_an_ended_job_but_what_expires(state: State, settings: Settings) -> None:
    short = State(settings.model_copy(update={"lease_s": 0.05}))
    running(short, shards=2)
    taken(short, 1, "a")
    taken(short, 1, "b")
    short.jobs.cancel("job")
    short.jobs.finish("job", JobStatus.CANCELLED)
    expired: list[int] = []

    def both() -> bool:
        expired.append(short.shards.sweep(CONTROL_QUEUE).expired)
        return sum(expired) == 2

    wait_for("the leases run out", both)
    short.shards.commit(order(0), "a", 1, {"x": 1})
    left = [key for key in short._redis.scan_iter("nightshift:*") if short._redis.ttl(key) < 0]
    assert left == ["nightshift:swept"]


@pytest.mark.parametrize("name", sorted(file.name for file in (files("jobs.state") / "lua").iterdir()))
def test_a_script_compiles_with_the_libraries_that_it_names(state: State, name: str) -> None:
    """A function of a library that it doesn't name would be a global, which Redis refuses only when it is called."""
    script = Script(name.removesuffix(".lua"))
    if script.name not in ("prelude", "queue", "losses"):
        state._redis.script_load(script.source)
        called = set(re.findall(r"\b(\w+)\(", script.body))
        for library in ("queue", "losses"):
            functions = set(re.findall(r"^local function (\w+)", Script(library).body, re.MULTILINE))
            assert not called & functions or library in script.libraries, library


def test_a_wrong_name_of_an_argument_is_an_error_at_the_call(state: State) -> None:
    assert Script("tickets_missing").keys == ["queue"]
    with pytest.raises(TypeError, match=r"shard_renew\.lua takes job, shard, attempt, lease, rows; given: job, shards"):
        Connection(Settings(redis_url="redis://127.0.0.1:1/0")).run("shard_renew", job="job", shards=1)


def test_a_user_with_our_keys_alone_is_enough(settings: Settings, state: State) -> None:
    """Every key of the scripts begins with the prefix, and Celery's queue is declared."""
    state._redis.acl_setuser(
        "narrow", enabled=True, passwords=["+pw"], keys=["nightshift:*", "nightshift.*"], commands=["+@all"]
    )
    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value().replace("://", "://narrow:pw@", 1)
    narrow = State(Settings(redis_url=url))
    running(narrow, shards=3)
    narrow.workers.report("one", ["text"], 1, host=settings.host)
    assert narrow.shards.tickets_missing(TASK, 3, QUEUE) == 3
    assert taken(narrow, 2, "a") == [("job", 0)] * 2
    narrow.shards.set_position(order(0), "a", (0, 5))
    assert narrow.shards.lost(order(0), "a", Loss.TIMEOUT).stands is True
    assert taken(narrow, 1, "b") == [("job", 0)]
    assert not narrow.shards.commit(order(0), "b", 1, {})
    narrow.shards.sweep(CONTROL_QUEUE)
    assert narrow.jobs.cancel("job")
    narrow.webhooks.add("job", "/out/")
    assert narrow.webhooks.take_due(60) == [("job", "/out/")]
    assert narrow.webhooks.begin("job") == 1
    narrow.webhooks.settle("job")
    assert narrow.webhooks.begin("job") is None
    narrow.jobs.finish("job", JobStatus.CANCELLED)
    with narrow.locks.alone("x", "me", 10) as is_alone:
        assert is_alone
    assert narrow.epoch.end(narrow.epoch.begin())
    with pytest.raises(redis.exceptions.NoPermissionError):
        narrow.shards.tickets_missing(TASK, 3, "another's queue")


def test_faults_of_a_job_that_redis_has_forgotten_make_no_job(state: State) -> None:
    """Planning that failed, or an end without a manifest, just as Redis was emptied."""
    running(state)
    assert [state.jobs.tried("job", "plan"), state.jobs.tried("job", "plan"), state.jobs.tried("job", "finish")] == [
        1,
        2,
        1,
    ]
    state._redis.flushall()
    assert state.jobs.tried("job", "plan") == 0
    state.jobs.finish("job", JobStatus.FAILED, ErrorInfo(code="bad_manifest", message="it is damaged"))
    assert state._redis.keys("nightshift:job:*") == []
    state._redis.hset("nightshift:job:job", "plan_tries", 1)  # by an earlier version
    assert state.jobs.progress("job") is None

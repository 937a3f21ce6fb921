"""Handing out, by a state machine: whatever is taken, put back, lost, repeated or late, each shard is done once, and
none is forgotten."""

from itertools import count

from hypothesis import HealthCheck
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from jobs.broker import CONTROL_QUEUE
from jobs.settings import Settings
from jobs.state import State
from schemas.manifest import JobStatus
from schemas.plan import ShardOrder

TASKS = ("text-classification", "token-classification")
#: A shard, and the attempt that it was handed to.
Held = tuple[ShardOrder, str]


class HandingOut(RuleBasedStateMachine):
    """Three jobs beside a plain account of what became of their shards."""

    shared: State

    handed = Bundle("handed")

    def __init__(self) -> None:
        super().__init__()
        self.state = self.shared
        self.state._redis.flushall()
        self._attempts = count()
        self.waiting: dict[str, set[int]] = {}
        self.held: dict[tuple[str, int], str] = {}
        self.done: dict[str, set[int]] = {}
        self.committed: dict[str, int] = {}
        self.paused: set[str] = set()
        self.priority = {"a": 5, "b": 5, "c": 9}
        for number, (job, priority) in enumerate(self.priority.items()):
            task, tenant = TASKS[number % 2], "xyx"[number]
            self.state.jobs.add(job, task, "/out/", priority, float(number), tenant, f"model {task}")
            self.state.jobs.start(job, 4, 4, None, [1] if job == "b" else [], 0, {})
            self.done[job] = {1} if job == "b" else set()
            self.waiting[job] = set(range(4)) - self.done[job]
            self.committed[job] = len(self.done[job])

    def _due(self, tasks: tuple[str, ...]) -> set[str]:
        """The jobs that may be handed out of: those of the highest priority that have something waiting."""
        ready = {
            job
            for number, job in enumerate(self.priority)
            if TASKS[number % 2] in tasks and self.waiting[job] and job not in self.paused
        }
        most = max((self.priority[job] for job in ready), default=0)
        return {job for job in ready if self.priority[job] == most}

    @rule(target=handed, tasks=st.sampled_from([TASKS, TASKS[:1], TASKS[1:]]), warm=st.booleans(), twice=st.booleans())
    def take(self, tasks: tuple[str, ...], warm: bool, twice: bool) -> Held | None:
        attempt = f"attempt-{next(self._attempts)}"
        models = [f"model {TASKS[0]}"] if warm else []
        due = self._due(tasks)
        order = self.state.shards.take(tasks, models, attempt)
        if order is None:
            assert not due
            return None
        assert order.job in due
        if twice:
            assert self.state.shards.take(tasks, models, attempt) == order
        self.waiting[order.job].remove(order.shard)
        self.held[order.job, order.shard] = attempt
        return order, attempt

    @rule(held=handed)
    def commit(self, held: Held | None) -> None:
        """Maybe late, or for the second time: what is in storage is done."""
        if held is not None:
            order, attempt = held
            self.state.shards.commit(order, attempt, 1, {})
            if self.held.get((order.job, order.shard)) == attempt:
                del self.held[order.job, order.shard]
            self.committed[order.job] += order.shard not in self.done[order.job]
            self.done[order.job].add(order.shard)
            self.waiting[order.job].discard(order.shard)

    @rule(held=handed, delay=st.sampled_from([0, 1000]))
    def put_back(self, held: Held | None, delay: float) -> None:
        if held is not None:
            order, attempt = held
            self.state.shards.requeue(order, attempt, delay)
            if delay:
                for member in self.state._redis.zrange("nightshift:delayed", 0, -1):
                    self.state._redis.zadd("nightshift:delayed", {member: 0})
                self.state.shards.sweep(CONTROL_QUEUE)
            self._let_go(order, attempt)

    @rule(held=handed)
    def expire(self, held: Held | None) -> None:
        if held is not None:
            order, attempt = held
            if self.held.get((order.job, order.shard)) == attempt:
                self.state._redis.zadd("nightshift:leases", {f"{order.job}/{order.shard}": 0})
            self.state.shards.sweep(CONTROL_QUEUE)
            assert self.state.shards.renew(order, attempt, 1) == "lost"
            self._let_go(order, attempt)

    def _let_go(self, order: ShardOrder, attempt: str) -> None:
        if self.held.get((order.job, order.shard)) == attempt:
            del self.held[order.job, order.shard]
            if order.shard not in self.done[order.job]:
                self.waiting[order.job].add(order.shard)

    @rule(job=st.sampled_from("abc"))
    def pause(self, job: str) -> None:
        assert self.state.jobs.pause(job)
        self.paused.add(job)

    @rule(job=st.sampled_from("abc"))
    def unpause(self, job: str) -> None:
        assert self.state.jobs.resume(job) == (job in self.paused)
        self.paused.discard(job)

    @invariant()
    def counts_agree(self) -> None:
        for job in self.priority:
            progress = self.state.jobs.progress(job)
            assert progress is not None
            running = sum(of == job for of, _ in self.held)
            assert (progress.shards_done, progress.shards_running) == (self.committed[job], running)
            assert progress.finishable == (len(self.done[job]) == 4)

    @invariant()
    def messages_are_missed(self) -> None:
        """Where something waits, a message is asked for: else nobody would come for it."""
        for number, task in enumerate(TASKS):
            jobs = [job for job in list(self.priority)[number::2] if job not in self.paused]
            missing = self.state.shards.tickets_missing(task, 4, "none")
            assert bool(missing) >= any(self.waiting[job] for job in jobs)
            self.state.shards.tickets_sent(task, missing)

    def teardown(self) -> None:
        """All that is left can be done, each shard once."""
        for job in set(self.paused):
            self.unpause(job)
        for order_attempt in [*self.held.items()]:
            (job, shard), attempt = order_attempt
            self.put_back((ShardOrder(job=job, task=TASKS[0], output="/out/", shard=shard, shards=4), attempt), 0)
        while (held := self.take(TASKS, False, False)) is not None:
            self.commit(held)
        assert self.done == {job: set(range(4)) for job in "abc"}
        assert not self.held
        for job in self.priority:
            self.state.jobs.finish(job, JobStatus.SUCCEEDED)
        left = [key for key in self.state._redis.scan_iter("nightshift:*") if self.state._redis.ttl(key) < 0]
        assert set(left) <= {"nightshift:served", "nightshift:swept"}


def test_each_shard_is_done_once_and_none_is_forgotten(settings: Settings) -> None:
    HandingOut.shared = State(settings.model_copy(update={"lease_s": 1000.0, "max_lost": 10**6}))
    run_state_machine_as_test(
        HandingOut,
        settings=profile(
            max_examples=60, stateful_step_count=30, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip

"""Whose shard runs next: priority, then equal shares, then age; held models first, as far as nobody waits for it."""

from collections import Counter
from pathlib import Path

import pytest

from jobs.broker import CONTROL_QUEUE, task_queue
from jobs.state import State, WarmLimits
from schemas.manifest import JobStatus
from schemas.plan import ShardOrder
from schemas.tasks import find_task
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences
from workers.execution.lease import Lease

TASK = "text-classification"
OTHER = "token-classification"


class Floor:
    """Jobs in Redis, and workers that do nothing but take their shards and commit them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._jobs = 0
        self._attempts = 0

    def job(
        self,
        shards: int,
        priority: int = 5,
        tenant: str = "",
        model: str = "",
        task: str = TASK,
        reach: int | None = None,
    ) -> str:
        self._jobs += 1
        name = f"job-{self._jobs:03}"
        assert self.state.jobs.add(name, task, "/out/", priority, float(self._jobs), tenant, model, reach)
        self.state.jobs.start(name, shards, shards, None, [], 0, {})
        return name

    def take(self, *models: str, tasks: tuple[str, ...] = (TASK,)) -> ShardOrder | None:
        self._attempts += 1
        return self.state.shards.take(tasks, models, f"a{self._attempts}")

    def work(self, most: int, *models: str, tasks: tuple[str, ...] = (TASK,)) -> list[str]:
        """The jobs of the next shards, each committed before the next is taken."""
        done = []
        for _ in range(most):
            order = self.take(*models, tasks=tasks)
            if order is None:
                break
            self.state.shards.commit(order, f"a{self._attempts}", 1, {})
            done.append(order.job)
        return done

    def let_wait(self, job: str, seconds: float) -> None:
        """Set back the time of the job's last shard, as if it had waited for so long."""
        self.state._redis.hincrbyfloat(f"nightshift:job:{job}", "last", -seconds)

    def loads(self, most: int) -> tuple[list[str], Counter[str]]:
        """The jobs that a worker with room for one model works on, and how often it loads each one's."""
        held, worked, loaded = "", [], Counter[str]()
        for _ in range(most):
            order = self.take(held)
            if order is None:
                break
            model = self.state._redis.hget(f"nightshift:job:{order.job}", "model")
            loaded[order.job] += model != held
            held = model
            self.state.shards.commit(order, f"a{self._attempts}", 1, {})
            worked.append(order.job)
        return worked, loaded


@pytest.fixture
def floor(state: State) -> Floor:
    return Floor(state)


def test_three_behind_ten_thousand_start_within_a_shard_s_time(floor: Floor) -> None:
    big = floor.job(10_000)
    in_hand = [floor.take(), floor.take()]
    assert {order.job for order in in_hand if order} == {big}
    small = floor.job(3)
    assert floor.work(1) == [small], "the first worker that is free takes it"
    assert floor.work(5).count(small) == 2, "and its other two take turns with the big one"


def test_three_behind_ten_thousand_of_another_model(floor: Floor) -> None:
    floor.job(10_000, model="big")
    floor.work(20, "big")
    small = floor.job(3, model="small")
    assert floor.work(1, "big") == [small]
    assert floor.work(2, "small") == [small, small]


def test_higher_priorities_first(floor: Floor) -> None:
    low, middle, high = (
        floor.job(2, priority=priority, task=task) for priority, task in ((0, TASK), (5, OTHER), (9, TASK))
    )
    assert floor.work(10, tasks=(TASK, OTHER)) == [high, high, middle, middle, low, low]


def test_a_priority_is_among_a_tenant_s_own_jobs(floor: Floor) -> None:
    """However urgent all of a tenant's jobs are, others have their share. The urgent ones are that tenant's first."""
    common = floor.job(10, priority=5, tenant="a", reach=5)
    urgent = floor.job(30, priority=9, tenant="a", reach=5)
    others = floor.job(20, priority=5, tenant="b", reach=5)
    later = floor.job(5, priority=0, tenant="c", reach=5)
    done = floor.work(20)
    assert Counter(done) == {urgent: 8, others: 7, later: 5}
    assert Counter(floor.work(26)) == {urgent: 13, others: 13}
    assert Counter(floor.work(100)) == {urgent: 9, common: 10}


def test_a_job_that_may_reach_above_others(floor: Floor) -> None:
    others = floor.job(3, priority=9, tenant="a", reach=5)
    allowed = floor.job(3, priority=9, tenant="b", reach=8)
    assert floor.work(10) == [allowed] * 3 + [others] * 3


def test_a_higher_priority_doesn_t_wait_for_a_held_model(floor: Floor) -> None:
    floor.job(20, model="held")
    floor.work(5, "held")
    urgent = floor.job(2, priority=9, model="other")
    assert floor.work(2, "held") == [urgent, urgent]


def test_a_worker_is_given_only_what_it_serves(floor: Floor) -> None:
    floor.job(5, priority=9, task=OTHER)
    mine = floor.job(2)
    assert floor.work(5) == [mine, mine]


def test_tenants_get_equal_shares(floor: Floor) -> None:
    many = [floor.job(100, tenant="many") for _ in range(10)]
    one = floor.job(100, tenant="one")
    shares = Counter(floor.work(100))
    assert shares[one] == 50
    assert [shares[job] for job in many] == [5] * 10


def test_a_tenant_s_jobs_share_across_tasks(floor: Floor) -> None:
    jobs = [floor.job(50, task=task) for task in (TASK, TASK, OTHER)]
    shares = Counter(floor.work(60, tasks=(TASK, OTHER)))
    assert [shares[job] for job in jobs] == [20, 20, 20]


def test_a_new_tenant_neither_starves_nor_is_starved(floor: Floor) -> None:
    old = [floor.job(1000, tenant=name) for name in ("a", "b")]
    floor.work(400)
    new = floor.job(1000, tenant="c")
    worked = floor.work(90)
    assert worked[0] == new
    assert {job: worked.count(job) for job in (*old, new)} == dict.fromkeys((*old, new), 30)


def test_a_new_job_neither_starves_nor_is_starved(floor: Floor) -> None:
    old = floor.job(1000)
    floor.work(400)
    new = floor.job(1000)
    worked = floor.work(90)
    assert (worked[0], worked.count(old)) == (new, 45)


def test_what_a_tenant_was_served_alone_counts_little_against_it(floor: Floor) -> None:
    floor.job(1000, tenant="a", task=OTHER)
    floor.job(5, tenant="b")
    floor.work(5)
    floor.work(400, tasks=(OTHER,))
    more = {"a": floor.job(1000, tenant="a"), "b": floor.job(1000, tenant="b")}
    worked = floor.work(116)
    assert worked.index(more["a"]) <= 17
    assert worked.count(more["a"]) >= 49


def test_a_tenant_that_ended_all_its_jobs_is_forgotten(floor: Floor) -> None:
    job = floor.job(3, tenant="a")
    floor.work(3)
    floor.state.jobs.finish(job, JobStatus.SUCCEEDED)
    floor.state.shards.sweep(CONTROL_QUEUE)
    assert floor.state._redis.hgetall("nightshift:served") == {}


def test_two_models_on_one_worker_are_not_swapped_at_each_shard(floor: Floor) -> None:
    jobs = [floor.job(80, model=model) for model in ("m1", "m2")]
    worked, loaded = floor.loads(200)
    assert Counter(worked) == dict.fromkeys(jobs, 80)
    # One in about eight shards; without preference it would be 80 each.
    assert all(count <= 80 / 8 + 2 for count in loaded.values()), loaded
    lags = [abs(worked[:n].count(jobs[0]) - worked[:n].count(jobs[1])) for n in range(160)]
    assert max(lags) <= 10, "neither lags by more than the bound"


def test_two_tenants_models_on_one_worker(floor: Floor) -> None:
    jobs = [floor.job(80, model=model, tenant=model) for model in ("m1", "m2")]
    worked, loaded = floor.loads(100)
    assert all(count <= 50 / 8 + 3 for count in loaded.values()), loaded
    assert min(Counter(worked)[job] for job in jobs) >= 45


def test_many_small_jobs_of_two_models_are_not_swapped_at_each_one(floor: Floor) -> None:
    for number in range(20):
        floor.job(1, model=f"m{number % 2}")
    assert sum(floor.loads(20)[1].values()) == 2


def test_nobody_waits_long_for_a_held_model(floor: Floor) -> None:
    """However many shards the limit allows, a job that has waited for its seconds goes first."""
    floor.state.shards.warm = WarmLimits(shards=10**6, seconds=1000)
    floor.job(10**6, model="held")
    floor.work(3, "held")
    other = floor.job(10, model="other")
    assert floor.work(1, "held") == [other]
    assert other not in floor.work(5, "held")
    floor.let_wait(other, 1001)
    assert floor.work(1, "held") == [other]
    assert other not in floor.work(5, "held"), "it waits anew"


def test_a_new_job_waits_only_so_long_for_other_new_ones(floor: Floor) -> None:
    floor.state.shards.warm = WarmLimits(new_seconds=1000)
    cold = floor.job(1, model="other")
    for _ in range(4):
        floor.job(1, model="held")
    assert cold not in floor.work(3, "held")
    floor.let_wait(cold, 1001)
    assert floor.work(1, "held") == [cold]


def test_a_paused_job_hands_out_nothing_and_goes_on(floor: Floor) -> None:
    job = floor.job(4)
    in_hand = floor.take()
    assert in_hand is not None
    assert floor.state.jobs.pause(job)
    assert floor.state.jobs.pause(job), "asked twice, it is answered twice"
    assert floor.state.shards.tickets_missing(TASK, 4, "none") == 0
    assert floor.take() is None
    assert floor.state.shards.renew(in_hand, "a1", 1) == "paused"
    assert not floor.state.shards.commit(in_hand, "a1", 1, {})
    assert floor.state.shards.sweep(CONTROL_QUEUE).finish == []
    progress = floor.state.jobs.progress(job)
    assert progress is not None
    assert (progress.status, progress.finishable, progress.waits_for) == (JobStatus.PAUSED, False, None)
    assert floor.state.jobs.resume(job)
    assert not floor.state.jobs.resume(job)
    assert floor.work(10) == [job] * 3


def test_a_shard_put_back_by_a_paused_job_waits_with_it(floor: Floor) -> None:
    job = floor.job(1)
    order = floor.take()
    assert order is not None
    floor.state.jobs.pause(job)
    assert not floor.state.shards.requeue(order, "a1")
    assert floor.take() is None
    floor.state.jobs.resume(job)
    assert floor.work(5) == [job]


def test_a_paused_job_whose_last_shard_is_done_ends(floor: Floor) -> None:
    """Nothing is left to hold back."""
    job = floor.job(1)
    order = floor.take()
    assert order is not None
    floor.state.jobs.pause(job)
    assert floor.state.shards.commit(order, "a1", 1, {})
    assert floor.state.shards.sweep(CONTROL_QUEUE).finish == [(job, "/out/")]


def test_a_paused_job_can_be_cancelled(floor: Floor) -> None:
    job = floor.job(3)
    floor.state.jobs.pause(job)
    assert floor.state.jobs.cancel(job)
    assert not floor.state.jobs.resume(job)
    assert floor.state.shards.sweep(CONTROL_QUEUE).finish == [(job, "/out/")]


def test_a_job_paused_while_it_is_planned_starts_paused(floor: Floor) -> None:
    assert floor.state.jobs.add("job", TASK, "/out/", 5, 1.0)
    assert floor.state.jobs.pause("job")
    floor.state.jobs.start("job", 2, 2, None, [], 0, {})
    assert (floor.state.jobs.status("job"), floor.take()) == (JobStatus.PAUSED, None)
    assert floor.state.jobs.resume("job")
    assert floor.work(5) == ["job", "job"]


def test_messages_that_come_twice_or_late_or_never(house: House, classifier: Path, tmp_path: Path) -> None:
    """Each shard is run once, however many messages there are; none is too few."""
    file = write_reviews(tmp_path / "in.parquet", sentences(30))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 10}))
    queue, task = task_queue(TASK), find_task(TASK)
    assert house.plan(job) == 3
    assert house.state._redis.llen(queue) == 2
    house.state._redis.delete(queue)
    assert house.broker.release(house.state, task) == 2, "lost messages are sent again"
    outcomes = [house.next() for _ in range(8)]
    assert [outcome.how for outcome in outcomes if outcome] == ["committed"] * 3
    assert house.broker.release(house.state, task) == 0
    assert house.finish(job).rows == 30
    assert house.next() is None


def test_a_paused_job_finishes_the_shard_in_hand(
    house: House, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(30))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 10}))
    house.plan(job)
    check = Lease.check_for_commit
    with monkeypatch.context() as pausing:
        pausing.setattr(Lease, "check_for_commit", lambda lease: house.state.jobs.pause(job.id) and check(lease))
        outcome = house.next()
    assert outcome is not None
    assert outcome.how == "committed"
    assert house.next() is None
    house.control.finish_job(job.id, job.output)
    assert not Path(job.output, "_manifest.json").exists()
    house.state.jobs.resume(job.id)
    assert [outcome.how for outcome in (house.next(), house.next()) if outcome] == ["committed"] * 2
    assert house.finish(job).status is JobStatus.SUCCEEDED

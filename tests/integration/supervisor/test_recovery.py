"""Redis lost at each moment of a job's life, and rebuilt from the catalog: the job ends with every row once."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.control.build_manifest import build_manifest
from jobs.control.controller import Control
from jobs.settings import Settings
from jobs.state.jobs import Jobs
from jobs.state.shards import Shards
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.accept import Submitter, enqueue
from jobs.submission.cancel import cancel_job
from jobs.supervisor.recovery import Standing, rebuild, rebuild_if_new, unfinished
from schemas.errors import AccessDenied, Permanent, Transient
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, part_name
from schemas.manifest import JobStatus
from schemas.plan import ShardOrder
from tests.integration.harness import House, read_output, spec_for
from workers.tasks.text_classification import TextClassification


def submit(house: House, classifier: Path, texts: Path, output: str = "out") -> AcceptedJob:
    return house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/{output}", shard={"rows": 30}))


def rebuilt(house: House) -> dict[str, Standing]:
    return {seen.id: seen.standing for seen in rebuild(house.state, house.broker, house.catalog)}


def files(job: AcceptedJob) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(job.output).rglob("*") if path.is_file()}


def go_on(house: House, job: AcceptedJob) -> None:
    """What workers and the control process do for a job in Redis until it ends."""
    house.plan(job)
    while house.next(job.spec.task) is not None:
        pass
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows, manifest.shards) == (JobStatus.SUCCEEDED, 100, 4)
    assert [row["id"] for row in read_output(job.output)] == list(range(100))


@pytest.mark.parametrize("done", [None, 0, 2, 4])
def test_redis_lost_before_the_end(house: House, classifier: Path, texts: Path, done: int | None) -> None:
    """Accepted, planned, half done, and done but for its manifest: what is done is not done again."""
    job = submit(house, classifier, texts)
    if done is not None:
        house.plan(job)
        for shard in range(done):
            assert house.attempt(job, shard, f"a{shard}").how == "committed"
    before = files(job)
    house.state._redis.flushall()
    assert rebuilt(house) == {job.id: Standing.ENTERED}
    assert rebuilt(house) == {job.id: Standing.KNOWN}, "twice does no harm"
    go_on(house, job)
    assert before.items() <= files(job).items()
    assert list(house.catalog.not_marked()) == []


def test_redis_lost_between_the_manifest_and_its_end_in_redis(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(house, classifier, texts)
    shards = house.plan(job)
    for shard in range(shards):
        house.attempt(job, shard, f"a{shard}")

    def flushed(*args: Any) -> None:
        house.state._redis.flushall()

    with monkeypatch.context() as broken:
        broken.setattr(Jobs, "finish", flushed)
        broken.setattr(Catalog, "mark_ended", lambda *args: None)
        house.finish(job)
    before = files(job)
    assert rebuilt(house) == {job.id: Standing.ENDED}
    assert rebuilt(house) == {}, "what has ended is marked, and not looked at again"
    assert house.state.jobs.active() == []
    assert files(job) == before


def test_an_end_that_cannot_be_marked_is_an_end(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise Transient("S3 is slow today")

    with monkeypatch.context() as broken:
        broken.setattr(Catalog, "mark_ended", away)
        manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    assert house.state.jobs.status(manifest.job) is JobStatus.SUCCEEDED
    assert rebuilt(house) == {manifest.job: Standing.ENDED}


def interrupted_once(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Do something while the first batch that is computed from now on is under way."""
    infer = TextClassification.infer

    def once(self: TextClassification, pieces: Any) -> Any:
        monkeypatch.setattr(TextClassification, "infer", infer)
        what()
        return infer(self, pieces)

    monkeypatch.setattr(TextClassification, "infer", once)


def test_the_shard_in_hand_is_committed_by_whoever_had_it(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(house, classifier, texts)
    house.plan(job)

    def lose() -> None:
        house.state._redis.flushall()
        rebuilt(house)
        house.plan(job)

    interrupted_once(monkeypatch, lose)
    assert house.attempt(job, 0, "a").how == "committed"
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert (progress.shards_done, progress.shards_running, progress.rows_done) == (1, 0, 30)
    go_on(house, job)


def test_the_shard_in_hand_waits_until_redis_is_rebuilt(
    settings: Settings, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(settings.model_copy(update={"lease_s": 600}))
    job = submit(house, classifier, texts)
    house.plan(job)
    asked = threading.Event()
    reclaim = Shards.reclaim

    def noticed(*args: Any) -> str:
        answer = reclaim(*args)
        if answer == "unknown":
            asked.set()
        return answer

    def later() -> None:
        assert asked.wait(120)
        rebuilt(house)
        house.plan(job)

    monkeypatch.setattr(Shards, "reclaim", noticed)
    thread = threading.Thread(target=later)
    thread.start()
    interrupted_once(monkeypatch, house.state._redis.flushall)
    assert house.attempt(job, 0, "a").how == "committed"
    thread.join()
    go_on(house, job)


def test_nothing_is_committed_where_redis_is_not_rebuilt(
    settings: Settings, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(settings.model_copy(update={"lease_s": 0.5, "renew_s": 0.1}))
    job = submit(house, classifier, texts)
    shards = house.plan(job)
    interrupted_once(monkeypatch, house.state._redis.flushall)
    outcome = house.attempt(job, 0, "a")
    assert (outcome.how, outcome.why) == ("put_back", "LeaseLost: Redis was emptied, and not rebuilt in time")
    assert not Path(job.output, "data", part_name(0, shards)).exists()
    rebuilt(house)
    go_on(house, job)


def test_another_worker_that_has_the_shard_by_then_keeps_it(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(house, classifier, texts)
    house.plan(job)

    def lose() -> None:
        house.state._redis.flushall()
        rebuilt(house)
        house.plan(job)
        house.take(job, 0, "other")

    interrupted_once(monkeypatch, lose)
    outcome = house.attempt(job, 0, "a")
    assert (outcome.how, outcome.why) == ("put_back", "LeaseLost: another worker may have this shard by now")


def test_a_lease_that_ran_out_is_not_taken_again(house: House, classifier: Path, texts: Path) -> None:
    """Only a lease that Redis forgot: of one that it took away somebody knows."""
    job = submit(house, classifier, texts)
    house.plan(job)
    order, _ = house.take(job, 0, "a")
    house.state.shards.requeue(order, "a")
    assert house.state.shards.reclaim(order, "a", 0) == "lost"


def test_a_commit_while_its_job_is_planned_again_is_taken_up(house: House, classifier: Path, texts: Path) -> None:
    """Counted in Redis before the parts are counted in storage, it would be missing in the count for good."""
    job = submit(house, classifier, texts)
    shards = house.plan(job)
    house.state._redis.flushall()
    rebuilt(house)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=1, shards=shards)
    assert not house.state.shards.commit(order, "a", 30, {})
    go_on(house, job)


def test_what_cannot_be_rebuilt_stands_in_nobody_s_way(
    house: House, classifier: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Path(house.settings.catalog_uri)
    good = submit(house, classifier, texts)
    gone, broken, alien, second = (submit(house, classifier, texts, name) for name in ("gone", "broken", "alien", "b"))
    Path(gone.output, "_job.json").unlink()
    Path(broken.output, "_job.json").write_text("{}")
    (catalog / "jobs" / f"{alien.id}.json").write_text("[]")
    pointer = house.catalog.find(second.id)
    assert pointer is not None
    (catalog / "jobs" / f"{second.id}.json").write_text(
        pointer.model_copy(update={"output": good.output}).model_dump_json()
    )
    house.state._redis.flushall()
    assert rebuilt(house) == {
        good.id: Standing.ENTERED,
        gone.id: Standing.NEVER_ACCEPTED,
        broken.id: Standing.UNREADABLE,
        alien.id: Standing.UNREADABLE,
        second.id: Standing.NEVER_ACCEPTED,
    }
    assert house.state.epoch.is_whole()
    assert second.id not in list(house.catalog.not_marked()), "the location is the other's for good"

    house.state._redis.flushall()
    read = Storage.read

    def away(storage: Storage, uri: str) -> bytes:
        if uri.startswith(good.output):
            raise Transient("S3 is slow today")
        return read(storage, uri)

    with monkeypatch.context() as slow:
        slow.setattr(Storage, "read", away)
        with pytest.raises(Transient, match="the storage of 1 jobs is away"):
            rebuild_if_new(house.state, house.broker, house.catalog, house.settings, "me")
    assert not house.state.epoch.is_whole(), "so that it is tried again"
    rebuild_if_new(house.state, house.broker, house.catalog, house.settings, "me")
    assert house.state.jobs.active() == [good.id]


def test_a_new_redis_is_known_by_what_it_lacks(house: House, classifier: Path, texts: Path) -> None:
    assert not house.state.epoch.is_whole()
    rebuild_if_new(house.state, house.broker, house.catalog, house.settings, "me")
    assert house.state.epoch.is_whole()
    house.state._redis.set("nightshift:epoch", "another server's")
    assert not house.state.epoch.is_whole(), "restarted, from a snapshot perhaps"
    submit(house, classifier, texts)
    found = rebuild(house.state, house.broker, house.catalog)
    next(found)
    house.state._redis.flushall()
    assert list(found) == []
    assert not house.state.epoch.is_whole(), "emptied meanwhile"


def test_one_rebuilds_at_a_time(house: House, classifier: Path, texts: Path) -> None:
    job = submit(house, classifier, texts)
    house.state._redis.flushall()
    assert house.state.locks.take("rebuild", "other", 60)
    rebuild_if_new(house.state, house.broker, house.catalog, house.settings, "me")
    assert house.state.jobs.status(job.id) is None
    house.state.locks.release("rebuild", "other")
    rebuild_if_new(house.state, house.broker, house.catalog, house.settings, "me")
    assert house.state.jobs.status(job.id) is JobStatus.PLANNING


def test_jobs_of_commands_of_their_own_are_not_a_deployment_s(house: House, classifier: Path, texts: Path) -> None:
    house.submitter = Submitter(house.catalog, embedded=True)
    job = house.accept(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    assert rebuilt(house) == {job.id: Standing.EMBEDDED}
    assert house.state.jobs.active() == []


def test_a_plan_under_way_when_redis_is_lost_stands(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(house, classifier, texts)
    plan = Control._plan

    def flushed(control: Control, *args: Any) -> Any:
        size = plan(control, *args)
        house.state._redis.flushall()
        return size

    with monkeypatch.context() as broken:
        broken.setattr(Control, "_plan", flushed)
        house.control.plan_job(job.id, job.output)
    assert house.state.jobs.status(job.id) is None
    before = files(job)
    assert rebuilt(house) == {job.id: Standing.ENTERED}
    go_on(house, job)
    assert before.items() <= files(job).items()


def test_a_job_that_ended_is_not_run_on_by_a_redis_that_is_behind(house: House, classifier: Path, texts: Path) -> None:
    """Restored from a snapshot of before the job was cancelled: nothing may be written after its manifest."""
    job = submit(house, classifier, texts)
    house.plan(job)
    house.attempt(job, 0)
    before = [(key, raw(house).dump(key)) for key in raw(house).scan_iter("nightshift:*")]
    house.state.jobs.cancel(job.id)
    assert house.finish(job).status is JobStatus.CANCELLED
    raw(house).flushall()
    for key, value in before:
        assert value is not None
        raw(house).restore(key, 0, value)
    assert house.state.jobs.status(job.id) is JobStatus.RUNNING
    assert rebuilt(house) == {}
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLED
    assert house.nothing_waits(job)

    house.state._redis.flushall()
    enqueue(job, house.state, house.broker)
    house.control.plan_job(job.id, job.output)
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLED, "nor where it was entered again just as it ended"


def test_an_end_that_redis_was_lost_under_is_not_written(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest of a cancelled job, while its parts are read: the cancel is forgotten, and the job goes on."""
    job = submit(house, classifier, texts)
    house.plan(job)
    house.attempt(job, 0)
    house.state.jobs.cancel(job.id)

    def lost(*args: Any) -> Any:
        house.state._redis.flushall()
        rebuilt(house)
        return build_manifest(*args)

    with monkeypatch.context() as broken:
        broken.setattr("jobs.control.finisher.build_manifest", lost)
        house.control.finish_job(job.id, job.output)
    assert not Path(job.output, MANIFEST).exists()
    go_on(house, job)


def raw(house: House) -> "redis.Redis":
    """A client that leaves bytes as they are."""
    assert house.settings.redis_url is not None
    return redis.Redis.from_url(house.settings.redis_url.get_secret_value())


def test_listings_are_compared_in_order(house: House, tmp_path: Path) -> None:
    catalog = Catalog(f"{tmp_path}/catalog", Storage())
    ids = [f"20261120-03150{n}-abcdef" for n in range(10)]
    for id in ids:
        catalog.storage.create(f"{catalog.uri}/jobs/{id}.json", b"{}", "me")
    for id in [ids[0], ids[4], ids[5], "20261120-031504-zzzzzz", ids[9]]:
        catalog.storage.create(f"{catalog.uri}/ended/{id}.json", b"{}", "me")
    assert list(catalog.not_marked()) == [ids[n] for n in (1, 2, 3, 6, 7, 8)]
    assert [seen.standing for seen in unfinished(catalog)] == [Standing.UNREADABLE] * 6
    assert list(Catalog(f"{tmp_path}/none", Storage()).not_marked()) == []


def test_enqueueing_at_once_enters_a_job_once(house: House, classifier: Path, texts: Path) -> None:
    """Two recoveries at once: the second must not reset what the first one's workers have begun."""
    job = submit(house, classifier, texts)
    house.state._redis.flushall()
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(enqueue(job, house.state, house.broker))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [False] * 7 + [True]
    assert (Path(job.output) / MANIFEST).exists() is False


@pytest.mark.parametrize("error", [AccessDenied("403"), Permanent("S3 answered KMS.DisabledException")])
def test_a_refusal_may_be_set_right(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Redis isn't whole without the job. What is damaged stays so, and keeps Redis from nothing."""
    refused, broken = submit(house, classifier, texts), submit(house, classifier, texts, "broken")
    Path(broken.output, "_job.json").write_text("{}")
    house.state._redis.flushall()
    read = Storage.read

    def refuse(storage: Storage, uri: str) -> bytes:
        if uri.startswith(refused.output):
            raise error
        return read(storage, uri)

    with monkeypatch.context() as refusing:
        refusing.setattr(Storage, "read", refuse)
        assert rebuilt(house) == {refused.id: Standing.AWAY, broken.id: Standing.UNREADABLE}
    assert not house.state.epoch.is_whole()
    assert rebuilt(house) == {refused.id: Standing.ENTERED, broken.id: Standing.UNREADABLE}
    assert house.state.epoch.is_whole()


def test_a_cancel_that_redis_was_lost_under_is_carried_out(house: House, classifier: Path, texts: Path) -> None:
    """Accepted while a shard is in hand. It holds for a job that is resumed, too."""
    job = submit(house, classifier, texts)
    house.plan(job)
    house.take(job, 0, "a")
    assert cancel_job(job.id, job.output, house.catalog, house.state, house.broker)
    assert not cancel_job(job.id, job.output, house.catalog, house.state, house.broker), "it is being stopped"
    house.state._redis.flushall()
    assert rebuilt(house) == {job.id: Standing.ENTERED}
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLING

    house.state._redis.flushall()
    enqueue(job, house.state, house.broker)
    house.control.plan_job(job.id, job.output)
    assert house.finish(job).status is JobStatus.CANCELLED


def test_a_cancel_is_carried_out_in_a_redis_that_is_behind(house: House, classifier: Path, texts: Path) -> None:
    job = submit(house, classifier, texts)
    house.plan(job)
    house.catalog.mark_cancelled(job.id)
    assert rebuilt(house) == {job.id: Standing.KNOWN}
    assert house.finish(job).status is JobStatus.CANCELLED


def test_a_cancel_needs_no_file(house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(house, classifier, texts)

    def away(*args: object, **named: object) -> None:
        raise Transient("S3 is slow today")

    for method in ("read", "stat", "create"):
        monkeypatch.setattr(Storage, method, away)
    assert cancel_job(job.id, job.output, house.catalog, house.state, house.broker)
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLING


def test_what_is_not_under_way_gets_no_mark(house: House, classifier: Path, texts: Path) -> None:
    job = submit(house, classifier, texts)
    house.state._redis.flushall()
    assert not cancel_job(job.id, job.output, house.catalog, house.state, house.broker)
    assert not house.catalog.is_cancelled(job.id)

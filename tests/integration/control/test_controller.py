"""The control process while the store is away: jobs are planned and finished later, or fail for good and say why."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from jobs.control.controller import Control
from jobs.planning.planner import planned
from jobs.state.locks import Locks
from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, Transient
from schemas.job import AcceptedJob
from schemas.layout import JOB, MANIFEST, PLAN
from schemas.manifest import JobStatus
from schemas.plan import Planned, Shard
from tests.integration.harness import House, spec_for


class Away(Storage):
    """A store that can't be reached."""

    def read(self, uri: str) -> bytes:
        raise Transient(f"{uri} can't be read: the store is away")


def control(house: House, storage: Storage, tries: int = 3) -> Control:
    settings = house.settings.model_copy(update={"max_transient": tries})
    return Control(settings, house.state, house.broker, storage, "control")


def test_faults_of_planning_count_at_growing_distances(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty at once are one; the job fails with the last one's cause, and another try before that plans it."""
    distances: list[float] = []
    take = Locks.take

    def lasting(locks: Locks, name: str, owner: str, seconds: float) -> bool:
        """As `take`, but that of a fault stands until it is deleted here, however long twenty tries take."""
        is_fault = name.startswith("plan_fault:")
        held = take(locks, name, owner, 3600 if is_fault else seconds)
        if is_fault and held:
            distances.append(seconds)
        return held

    monkeypatch.setattr(Locks, "take", lasting)
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/out"))
    away = control(house, Away())
    for _ in range(2):
        for _ in range(20):
            away.plan_job(job.id, job.output)
            assert house.state.jobs.status(job.id) is JobStatus.PLANNING
        house.state._redis.delete(f"nightshift:lock:plan_fault:{job.id}")
    away.plan_job(job.id, job.output)
    assert distances == [1, 2, 1, 4, 1, 8]
    assert house.state.jobs.status(job.id) is JobStatus.FAILING
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert "the store is away" in manifest.error.message


def test_the_end_waits_for_the_store(house: House, classifier: Path, texts: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/out"))
    shards = house.plan(job)
    for shard in range(shards):
        house.attempt(job, shard, id=f"a{shard}")
    control(house, Away()).finish_job(job.id, job.output)
    assert house.catalog.folder(job.output).read_manifest() is None
    assert house.state.jobs.status(job.id) is JobStatus.RUNNING
    assert house.finish(job).status is JobStatus.SUCCEEDED


class Failing(Storage):
    """A store that fails to create the plan, or to list the input."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__()
        self.name, self.error = name, error

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        self._check(uri)
        return super().create(uri, body, owner)

    def stat(self, uri: str) -> ObjectInfo:
        self._check(uri)
        return super().stat(uri)

    def _check(self, uri: str) -> None:
        if uri.endswith(self.name):
            raise self.error


FAULTS = [
    ("a.parquet", AccessDenied("403 to the input")),
    (PLAN, AccessDenied("403 to the plan")),
    (PLAN, OSError(28, "No space left on device")),
    (PLAN, RuntimeError("unforeseen")),
]


@pytest.mark.parametrize(("name", "error"), FAULTS)
def test_faults_of_planning_that_may_be_the_host_s_are_waited_out(
    house: House, classifier: Path, texts: Path, name: str, error: Exception
) -> None:
    """The job is planned once another host tries; if none can, its error says how often that was tried."""
    spec = spec_for(classifier, str(texts), f"{texts.parents[1]}/out")
    job = house.submit(spec)
    failing = control(house, Failing(name, error))
    for _ in range(2):
        for _ in range(3):
            failing.plan_job(job.id, job.output)
            assert house.state.jobs.status(job.id) is JobStatus.PLANNING
        house.state._redis.delete(f"nightshift:lock:plan_fault:{job.id}")
    house.plan(job)
    assert house.state.jobs.status(job.id) is JobStatus.RUNNING

    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/other"))
    for _ in range(3):
        failing.plan_job(job.id, job.output)
        house.state._redis.delete(f"nightshift:lock:plan_fault:{job.id}")
    manifest = house.finish(job)
    assert manifest.error is not None
    assert "(tried 3 times)" in manifest.error.message
    assert str(error) in manifest.error.message


def test_a_fault_of_the_input_fails_at_once(house: House, classifier: Path, texts: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/out"))
    texts.unlink()
    house.control.plan_job(job.id, job.output)
    manifest = house.finish(job)
    assert manifest.error is not None
    assert (manifest.status, manifest.error.code) == (JobStatus.FAILED, "bad_input")
    assert "tried" not in manifest.error.message


def names(job: AcceptedJob) -> set[str]:
    return {file.name for file in Path(job.output).iterdir()}


class Meanwhile(Storage):
    """A store at which something happens right before the plan is created."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act = act

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        if uri.endswith(PLAN):
            self.act()
        return super().create(uri, body, owner)


def cancelled_by_another(house: House, job: AcceptedJob) -> None:
    other = Control(house.settings, house.state, house.broker, house.storage, "another")
    assert house.state.jobs.cancel(job.id)
    other.finish_job(job.id, job.output)


def test_no_plan_is_written_after_the_manifest(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is cancelled, and ended by another process, once its plan is cut."""
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/out"))

    def cut(*args: Any) -> Planned:
        whole = planned(*args)

        def shards() -> Iterator[Shard]:
            yield from whole.shards
            cancelled_by_another(house, job)

        return replace(whole, shards=shards())

    monkeypatch.setattr("jobs.control.controller.planned", cut)
    house.control.plan_job(job.id, job.output)
    assert names(job) == {JOB, MANIFEST}
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLED


def test_no_manifest_is_written_while_the_plan_is(house: House, classifier: Path, texts: Path) -> None:
    """Cancelled when the plan is about to be created: the plan comes first, and the sweep asks for the end again."""
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parents[1]}/out"))
    seen: list[set[str]] = []

    def act() -> None:
        cancelled_by_another(house, job)
        seen.append(names(job))

    control(house, Meanwhile(act)).plan_job(job.id, job.output)
    assert seen == [{JOB}]
    assert names(job) == {JOB, PLAN}
    assert house.finish(job).status is JobStatus.CANCELLED

"""The control process while the store is away: jobs are planned and finished later, or fail for good and say why."""

from pathlib import Path

import pytest

from jobs.control.controller import Control
from jobs.state.locks import Locks
from jobs.storage import Storage
from schemas.errors import Transient
from schemas.manifest import JobStatus
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

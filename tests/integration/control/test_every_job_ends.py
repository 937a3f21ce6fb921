"""A job ends whatever becomes of its files: in Redis, so that it uses up no quota, and in the catalog."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.state import Progress
from jobs.storage import ObjectInfo, Storage
from jobs.supervisor.recovery import rebuild
from schemas.errors import AccessDenied, Transient
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, PLAN, part_name, shard_of
from schemas.manifest import ErrorInfo, JobStatus
from tests.integration.control.test_controller import control
from tests.integration.harness import House, read_output, spec_for


def planned(house: House, classifier: Path, texts: Path) -> AcceptedJob:
    """A job of four shards."""
    output = f"{texts.parent.parent}/out"
    job = house.submit(spec_for(classifier, str(texts), output, shard={"rows": 30}))
    assert house.plan(job) == 4
    return job


def run(house: House, job: AcceptedJob, shards: int = 4) -> None:
    for shard in range(shards):
        assert house.attempt(job, shard, f"a{shard}").how == "committed"


def give_up(house: House, job: AcceptedJob, shard: int) -> None:
    order, attempt = house.take(job, shard, "broken")
    house.state.shards.fail(order, attempt, ErrorInfo(code="unreadable", message="the page is corrupt"))


def at(job: AcceptedJob, name: str) -> Path:
    return Path(job.output if shard_of(name) is None else job.layout.parts_in(job.output), name)


def entry(house: House, job: AcceptedJob) -> Path:
    return Path(house.settings.catalog_uri, "jobs", f"{job.id}.json")


def finish(house: House, job: AcceptedJob) -> Progress:
    """Ask for the job's end as often as the sweep does while parts that are gone are looked for."""
    for _ in range(5):
        house.control.finish_job(job.id, job.output)
        house.state._redis.delete(f"nightshift:lock:parts_fault:{job.id}")
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert progress.status.final, progress.status
    return progress


def ended(house: House, job: AcceptedJob) -> tuple[JobStatus, ErrorInfo | None]:
    """How Redis says that the job ended; checked is that it is an end for the quota and for a rebuilding, too."""
    progress = finish(house, job)
    assert house.state.jobs.count_active("") == 0
    house.state._redis.flushall()
    assert list(rebuild(house.state, house.broker, house.catalog)) == []
    return progress.status, progress.error


def remove_output(house: House, job: AcceptedJob) -> None:
    shutil.rmtree(job.output)


def damage(name: str) -> Callable[[House, AcceptedJob], None]:
    def write(house: House, job: AcceptedJob) -> None:
        at(job, name).write_bytes(b"{}")

    return write


def remove_plan(house: House, job: AcceptedJob) -> None:
    at(job, PLAN).unlink()


def damage_entry(house: House, job: AcceptedJob) -> None:
    entry(house, job).write_text("[]")


def remove_entry(house: House, job: AcceptedJob) -> None:
    entry(house, job).unlink()


#: What becomes of a job's files, and what its error names if it has no manifest for that.
LOSSES = [
    (remove_output, ""),
    (remove_plan, ""),
    (damage(PLAN), ""),
    (damage("_job.json"), ""),
    (damage(MANIFEST), MANIFEST),
    (damage_entry, "{id}.json"),
    (remove_entry, "has no job {id}"),
]
NAMES = ["output", "plan", "bad plan", "bad job file", "bad manifest", "bad entry", "entry"]


@pytest.mark.parametrize(("lose", "named"), LOSSES, ids=NAMES)
def test_a_job_that_is_cancelled(
    house: House, classifier: Path, texts: Path, lose: Callable[[House, AcceptedJob], None], named: str
) -> None:
    job = planned(house, classifier, texts)
    run(house, job, 1)
    lose(house, job)
    assert house.state.jobs.cancel(job.id)
    status, error = ended(house, job)
    assert status is JobStatus.CANCELLED
    assert (named.format(id=job.id) in error.message) if error is not None else not named


@pytest.mark.parametrize(("lose", "named"), LOSSES, ids=NAMES)
def test_a_job_that_gave_up_a_shard(
    house: House, classifier: Path, texts: Path, lose: Callable[[House, AcceptedJob], None], named: str
) -> None:
    job = planned(house, classifier, texts)
    run(house, job, 3)
    give_up(house, job, 3)
    lose(house, job)
    status, error = ended(house, job)
    assert status is JobStatus.FAILED
    assert (named.format(id=job.id) in error.message) if error is not None else not named
    if not named:
        manifest = house.catalog.folder(job.output).read_manifest()
        assert manifest is not None
        assert 3 in {lost.shard for lost in manifest.lost}
        if lose is not LOSSES[3][0]:
            assert manifest.error is not None
            assert f"nightshift retry {job.output}" in manifest.error.message


def test_a_job_that_failed_keeps_its_cause(house: House, classifier: Path, texts: Path) -> None:
    job = planned(house, classifier, texts)
    house.state.jobs.fail(job.id, ErrorInfo(code="model", message="the model doesn't load"))
    at(job, MANIFEST).write_text("{")
    status, error = ended(house, job)
    assert (status, error and error.code) == (JobStatus.FAILED, "model")
    assert error is not None
    assert "the model doesn't load" in error.message
    assert MANIFEST in error.message
    assert f"nightshift resume {job.output}" in error.message


def test_the_way_out_of_a_damaged_manifest_is_one(house: House, classifier: Path, texts: Path) -> None:
    """It is moved away, and the job resumed: nothing is run again."""
    job = planned(house, classifier, texts)
    run(house, job)
    at(job, MANIFEST).write_text("{")
    assert ended(house, job)[0] is JobStatus.FAILED
    at(job, MANIFEST).unlink()
    assert house.state.jobs.add(job.id, job.spec.task, job.output, 5, 1.0)
    house.plan(job)
    assert house.nothing_waits(job)
    assert house.finish(job).status is JobStatus.SUCCEEDED


def test_a_plan_that_is_gone_when_all_is_done_is_not_missed(house: House, classifier: Path, texts: Path) -> None:
    job = planned(house, classifier, texts)
    run(house, job)
    remove_plan(house, job)
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows, manifest.lost) == (JobStatus.SUCCEEDED, 100, [])


def test_a_plan_that_is_gone_is_not_made_again_beside_its_parts(house: House, classifier: Path, texts: Path) -> None:
    """Another plan may cut the input elsewhere: its parts would hold rows twice."""
    job = planned(house, classifier, texts)
    run(house, job, 2)
    remove_plan(house, job)
    house.state._redis.flushall()
    list(rebuild(house.state, house.broker, house.catalog))
    house.control.plan_job(job.id, job.output)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert PLAN in manifest.error.message
    assert not at(job, PLAN).exists()


@pytest.mark.parametrize("name", ["part-00001.parquet", "part-000001.parquet", "part-00007.parquet"])
@pytest.mark.parametrize("content", ["a copy", "of another job", "nonsense"])
def test_foreign_objects_among_the_parts(house: House, classifier: Path, texts: Path, name: str, content: str) -> None:
    job = planned(house, classifier, texts)
    run(house, job)
    foreign = at(job, name)
    if content == "of another job":
        other = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/other", shard={"rows": 30}))
        house.plan(other)
        house.attempt(other, 0, "other")
        house.state.jobs.cancel(other.id)
        house.finish(other)
        shutil.copy(at(other, part_name(0, 4)), foreign)
    elif content == "a copy":
        shutil.copy(at(job, part_name(0, 4)), foreign)
    else:
        foreign.write_bytes(b"nonsense")
    finish(house, job)
    manifest = house.finish(job)
    if name != part_name(1, 4):
        assert (manifest.status, manifest.rows, len(manifest.parts)) == (JobStatus.SUCCEEDED, 100, 4)
        return
    assert (manifest.status, manifest.rows) == (JobStatus.FAILED, 70)
    assert [(lost.shard, lost.error.code) for lost in manifest.lost] == [(1, "foreign_part")]
    assert manifest.error is not None
    assert name in manifest.error.message


class Lister(Storage):
    """A store whose listings lack an object for a while, or for good."""

    def __init__(self, name: str, times: int) -> None:
        super().__init__()
        self.name, self.left = name, [None] * times  # shared with the store's confined copies

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (info for info in super().list(prefix) if not info.uri.endswith(self.name))

    def stat(self, uri: str) -> ObjectInfo:
        if uri.endswith(self.name) and self.left:
            self.left.pop()
            return super().stat(f"{uri}.not-there-yet")
        return super().stat(uri)


@pytest.mark.parametrize("times", [0, 3])
def test_a_part_that_the_listing_lacks_is_found_by_its_name(
    house: House, classifier: Path, texts: Path, times: int
) -> None:
    job = planned(house, classifier, texts)
    run(house, job)
    late = control(house, Lister(part_name(2, 4), times))
    for look in range(times):
        late.finish_job(job.id, job.output)
        assert house.state.jobs.status(job.id) is JobStatus.RUNNING, look
        house.state._redis.delete(f"nightshift:lock:parts_fault:{job.id}")
    late.finish_job(job.id, job.output)
    manifest = house.catalog.folder(job.output).read_manifest()
    assert manifest is not None
    assert (manifest.status, manifest.rows, manifest.error, manifest.lost) == (JobStatus.SUCCEEDED, 100, None, [])
    assert [part.shard for part in manifest.parts] == [0, 1, 2, 3]


@pytest.mark.parametrize("is_flat", [False, True])
def test_a_part_that_is_gone_is_lost_and_named(house: House, classifier: Path, texts: Path, is_flat: bool) -> None:
    """`is_flat`: a worker of an earlier version wrote it, which knows one place for parts."""
    job = planned(house, classifier, texts)
    run(house, job)
    part = at(job, part_name(2, 4))
    if is_flat:
        part.rename(Path(job.output, part.name))
    else:
        part.unlink()
    looks = 0
    while house.state.jobs.status(job.id) is JobStatus.RUNNING:
        house.control.finish_job(job.id, job.output)
        house.state._redis.delete(f"nightshift:lock:parts_fault:{job.id}")
        looks += 1
    assert looks == 5
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows) == (JobStatus.FAILED, 70)
    assert [(lost.shard, lost.error.code, lost.slices[0].rows) for lost in manifest.lost] == [(2, "part_missing", 30)]
    assert manifest.error is not None
    assert (manifest.error.code, part_name(2, 4) in manifest.error.message) == ("part_missing", True)
    assert ("NIGHTSHIFT_FLAT_OUTPUT=true" in manifest.error.message) == is_flat
    assert len(read_output(f"{job.output}data/")) == 70


class Refusing(Storage):
    """A store that refuses to show one object, or is away for it."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__()
        self.name, self.error = name, error

    def read(self, uri: str) -> bytes:
        if uri.endswith(self.name):
            raise self.error
        return super().read(uri)


@pytest.mark.parametrize("error", [AccessDenied("403"), OSError(28, "No space left on device"), MemoryError()])
def test_a_refusal_at_the_end_is_waited_out_and_then_an_end(
    house: House, classifier: Path, texts: Path, error: Exception
) -> None:
    job = planned(house, classifier, texts)
    run(house, job)
    refused = control(house, Refusing(MANIFEST, error))
    for _ in range(2):
        for _ in range(5):
            refused.finish_job(job.id, job.output)
            assert house.state.jobs.status(job.id) is JobStatus.RUNNING
        house.state._redis.delete(f"nightshift:lock:finish_fault:{job.id}")
    refused.finish_job(job.id, job.output)
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert progress.status is JobStatus.FAILED
    assert progress.error is not None
    assert "has no manifest" in progress.error.message
    assert house.state.jobs.count_active("") == 0


def test_a_store_that_is_away_at_the_end_is_waited_for(house: House, classifier: Path, texts: Path) -> None:
    job = planned(house, classifier, texts)
    run(house, job)
    away = control(house, Refusing(MANIFEST, Transient("the store is away")))
    for _ in range(10):
        away.finish_job(job.id, job.output)
        house.state._redis.delete(f"nightshift:lock:finish_fault:{job.id}")
    assert house.finish(job).status is JobStatus.SUCCEEDED

"""Equal specs give parts with equal checksums, whatever was killed: each task, once clean and once with ten killers.

`make replay` runs all tasks; the ordinary suite one of them, with one kill.
"""

import random
from pathlib import Path

import pytest

from jobs.storage.job_folder import JobFolder
from schemas.manifest import JobStatus, Manifest
from schemas.tasks import built_in_tasks, find_task
from tests.faults.conftest import make_stage
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted, with_failpoints
from tests.packages import copy_packages
from tests.replay.recipes import RECIPES, RECORDS, SHARD, spec_of

#: Where a process is killed: as it gets a shard, when all is computed, and after the part is there.
STEPS = ("claimed", "before_commit", "after_commit", "told")
SHARDS = RECORDS // SHARD
KILLS = 10


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as they are, but for failpoints in the processes of workers."""
    root = copy_packages(tmp_path_factory.mktemp("replay"))
    overlay = Path(__file__).parents[1] / "faults" / "overlay" / "failpoints.py"
    (root / overlay.name).write_bytes(overlay.read_bytes())
    return with_failpoints(root)


def ended(stage: Stage, job: Submitted) -> Manifest:
    seen = stage.ended(job, bound_s=900)
    manifest = Manifest.model_validate_json(seen.manifest)
    assert manifest.status is JobStatus.SUCCEEDED, manifest.error
    assert (manifest.rows, len(manifest.parts)) == (RECORDS, SHARDS)
    folder = JobFolder.of(job.accepted, stage.storage)
    assert {part.name: part.checksum for part in manifest.parts} == {
        info.uri.rsplit("/", 1)[-1]: report.checksum for info, report in folder.reports(job.id, SHARDS) if report
    }
    return manifest


def checksums(manifest: Manifest) -> list[str | None]:
    found = [part.checksum for part in manifest.parts]
    assert None not in found
    assert len(set(found)) == SHARDS, "each part has other rows"
    return found


def arm(stage: Stage, seed: int, kills: int) -> None:
    """Arm so many kills, at steps and shards that a seed draws. If there are many, one shard is hit twice."""
    source = random.Random(seed)
    twice = source.randrange(SHARDS)
    if kills > 2:
        for _ in range(2):
            stage.failpoints.arm("before_commit", "kill", twice)
    others = [shard for shard in range(SHARDS) if shard != twice]
    for shard in source.sample(others, kills - 2 if kills > 2 else kills):
        stage.failpoints.arm(source.choice(STEPS), "kill", shard)


def equal_after_kills(packages: Path, folder: Path, task: str, kills: int, seed: int) -> None:
    with RedisServer(folder) as redis_server:
        stage = make_stage(packages, folder, redis_server.url)
        spec = spec_of(task, folder / "made")
        source = spec.pop("input")["uri"]
        groups = f"{find_task(task).group.value},control"
        with stage.worker("--groups", groups):
            clean = checksums(ended(stage, stage.submit(source, str(folder / "clean"), **spec)))
            arm(stage, seed, kills)
            killed = checksums(ended(stage, stage.submit(source, str(folder / "killed"), **spec)))
        assert len(stage.failpoints.fired()) == kills, stage.failpoints.waiting
    assert killed == clean


@pytest.mark.slow
def test_a_job_with_a_kill_has_the_checksums_of_one_without(packages: Path, tmp_path: Path) -> None:
    equal_after_kills(packages, tmp_path, "text-classification", 1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("task", RECIPES)
def test_a_job_of_each_task_with_ten_kills_has_the_checksums_of_one_without(
    packages: Path, tmp_path: Path, task: str
) -> None:
    equal_after_kills(packages, tmp_path, task, KILLS, seed=len(task))


def test_every_task_has_a_recipe() -> None:
    assert RECIPES.keys() == {task.id for task in built_in_tasks()}

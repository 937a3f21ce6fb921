"""Nights of a series: files come, change and go, and something is killed in each. Each version is annotated once."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.storage.series import Series
from jobs.submission.cancel import cancel_job
from schemas.manifest import JobStatus, Manifest
from tests.faults.conftest import Note
from tests.faults.stage import BOUND_S, Stage, Submitted, write_table
from tests.servers import wait_for

#: What is killed in each night, at these steps. After a night that was cancelled nothing changes, so that the next one
#: has what that one left.
NIGHTS: list[list[str]] = [
    ["before_run"],
    ["after_run", "claimed"],
    ["before_plan", "after_plan", "before_commit"],
    ["cancel"],
    ["after_commit", "told"],
    ["before_manifest"],
    ["after_manifest"],
    ["before_seen"],
    ["after_seen"],
    ["machine at before_seen"],
    [],
]


@dataclass
class Files:
    """The input of the nights. Each row's text names the file, its version and the row."""

    folder: Path
    random: Random
    there: dict[str, int] = field(default_factory=dict)
    made: int = 0
    expected: Counter[str] = field(default_factory=Counter)

    def change(self) -> None:
        """Add files, write some anew and delete some."""
        for name in self.random.sample(sorted(self.there), min(3, len(self.there))):
            if self.random.random() < 0.5:
                (self.folder / name).unlink()
                del self.there[name]
            else:
                self._write(name)
        for _ in range(3):
            self._write(f"{self.random.randrange(100):02d}-{self.made}.parquet")

    def _write(self, name: str) -> None:
        self.made += 1
        texts = [f"{name} version {self.made} row {row}" for row in range(self.random.randint(1, 25))]
        self.folder.mkdir(exist_ok=True)
        write_table(self.folder / name, texts, row_group=self.random.choice([4, 1000]))
        self.there[name] = self.made
        self.expected.update(texts)


def annotated(stage: Stage, jobs: list[Submitted]) -> Counter[str]:
    """How often each row stands in the parts that the manifests of the jobs name."""
    found: Counter[str] = Counter()
    for job in jobs:
        folder = JobFolder.of(job.accepted, stage.storage)
        manifest = folder.read_manifest()
        assert manifest is not None
        for part in manifest.parts:
            table = pq.read_table(pa.BufferReader(stage.storage.read(folder.part(part.name).uri)))
            assert table["prediction"].null_count == 0
            found.update(table["text"].to_pylist())
    return found


def _more_than(fired: int, stage: Stage) -> bool:
    """Whether more failpoints were reached than so many."""
    return len(stage.failpoints.fired()) > fired


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_version_is_annotated_once(stage: Stage, tmp_path: Path, note: Note) -> None:
    files = Files(tmp_path / "in", Random(7))
    series = Series(f"{tmp_path}/series/", stage.storage)
    jobs: list[Submitted] = []
    cancelled = False
    for number, steps in enumerate(NIGHTS, 1):
        if not cancelled:
            files.change()
        machine = next((step.rpartition(" ")[2] for step in steps if step.startswith("machine")), None)
        fired = len(stage.failpoints.fired())
        for step in steps:
            if step == "cancel":
                stage.failpoints.arm("before_commit", "stop", shard=1)
            else:
                stage.failpoints.arm(step.rpartition(" ")[2], "stop" if machine else "kill")
        with stage.worker("--groups", "text,control", "--processes", "1") as worker:
            job = stage.submit(
                f"{files.folder}/", f"{tmp_path}/out-{number}", incremental={"series": series.uri},
                shard={"rows": 10}, batch_size=5,
            )  # fmt: skip
            jobs.append(job)
            if machine or "cancel" in steps:
                wait_for(f"night {number} is stopped", partial(_more_than, fired, stage), BOUND_S)
            if machine:
                worker.kill()
            elif "cancel" in steps:
                catalog = Catalog(stage.settings.catalog_uri, stage.storage)
                assert cancel_job(job.id, job.output, catalog, stage.state, stage.broker)
            manifest = Manifest.model_validate_json(stage.ended(job).manifest)
        cancelled = "cancel" in steps
        expected = JobStatus.CANCELLED if cancelled else JobStatus.SUCCEEDED
        assert manifest.status is expected, f"night {number}: {manifest.error}"
        assert manifest.series is not None
        assert manifest.series.run == number
        assert manifest.parts, f"night {number} committed nothing"
        if machine:  # Redis is lost with the machine: only the next night finds out what this one did
            stage.state._redis.flushall()
            assert series.unrecorded()
    assert stage.failpoints.waiting == []
    assert annotated(stage, jobs) == files.expected
    assert manifest.skipped, "the last night left nothing out"
    kills = sum(len(steps) for steps in NIGHTS)
    note("kills in eleven nights of a series", kills, "each version of a file annotated once")

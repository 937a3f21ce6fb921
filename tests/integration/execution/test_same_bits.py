"""A shard's answers are the same to the last bit, whatever happened before and whichever thread is faster."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.loss import Loss
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences
from workers.engine.poison_rows import Careful, Findings, Span
from workers.engine.runner import ShardRun
from workers.execution.job_context import JobContext
from workers.io.part_writer import PartWriter
from workers.io.witnesses import Witnesses


class Shard:
    """The one shard of a job over these texts, to compute again and again."""

    def __init__(self, house: House, model: Path, folder: Path, texts: list[str]) -> None:
        source = write_reviews(folder / "in.parquet", texts, row_group=16)
        job = house.accept(spec_for(model, str(source), f"{folder}/out/", shard={"rows": 1000}))
        house.submitter.write(job)
        house.state.jobs.add(job.id, job.spec.task, job.output, 5, 0.0, "", job.model_key, 5)
        house.plan(job)
        self._job = JobContext(job.id, house.storage, house.settings, Witnesses())
        self._held = house.process.models.get(job, self._job.handler)

    def checksum(self, careful: Careful | None = None) -> str:
        job, spec = self._job, self._job.accepted.spec
        run = ShardRun(
            job.handler(self._held.loaded, spec.task_params, spec), job.budget(self._held), lambda rows: None
        )
        with PartWriter(job.output_schema) as writer:
            run.run(job.shard(0), job.reader, job.task_columns, writer, careful)
            assert run.report(**_KNOWN).rows == writer.rows
            return writer.checksum


_KNOWN: dict[str, Any] = {
    "job": "", "shard": 0, "attempt": "", "worker": "", "fingerprint": "", "device": "", "dtype": "", "versions": {},
}  # fmt: skip


def test_a_shard_whose_process_was_lost_is_as_if_nothing_happened(
    house: House, classifier: Path, tmp_path: Path
) -> None:
    """It is isolated first. Only if it died as a whole after that, its rows alone have the last word."""
    shard = Shard(house, classifier, tmp_path, sentences(60))
    named: list[Span | None] = []
    clean = shard.checksum()
    assert shard.checksum(Careful(Findings((), {}), {}, named.append)) == clean
    assert named[-2:] == [(0, 60), None]
    assert shard.checksum(Careful(Findings(((3, 9),), {}), {}, named.append)) == clean
    named.clear()
    shard.checksum(Careful(Findings(((0, 60),), {}), {}, named.append))
    assert [span for span in named if span] == [(row, row + 1) for row in range(60)]
    # Without the messages that make them error rows, those that kill are rows like others.
    assert shard.checksum(Careful(Findings(((3, 9),), {4: Loss.WORKER_LOST}), {}, named.append)) == clean


def test_which_thread_is_faster_does_not_show(
    house: House, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that come again in later blocks are copied or computed by a rule, not by chance."""
    monkeypatch.setattr("workers.io.parquet_reader.BLOCK_ROWS", 16)
    distinct = sentences(70)
    source = random.Random(5)
    shard = Shard(house, classifier, tmp_path, [source.choice(distinct) for _ in range(400)])

    def slowed(name: str, seed: int) -> None:
        real, pauses = getattr(ShardRun, name), random.Random(seed)

        def slow(self: ShardRun, *args: Any) -> Any:
            time.sleep(pauses.choice((0.0, 0.0, 0.004, 0.01)))
            return real(self, *args)

        monkeypatch.setattr(ShardRun, name, slow)

    def checksums() -> Iterator[str]:
        yield shard.checksum()
        for name, seed in (("_prepare", 1), ("_compute", 2), ("_settle", 3)):
            slowed(name, seed)
            yield shard.checksum()

    assert len(set(checksums())) == 1

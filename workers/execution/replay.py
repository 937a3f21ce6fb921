"""Are shards computed again the same? The program that `nightshift verify --replay` starts. Nothing is committed.

`python -m workers.execution.replay JOB FOLDER SHARD…` writes the parts of these shards of a job into FOLDER, under the
number of each, `3.parquet`; for a shard that can't be run, `3.error` with the reason.
"""

import sys
import time
from pathlib import Path

from jobs import logs
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.errors import NightshiftError
from workers.engine.runner import ShardRun
from workers.execution.job_context import JobContext
from workers.execution.process import versions
from workers.io.part_writer import PartWriter
from workers.io.witnesses import Witnesses
from workers.models.cache import ModelCache


class Replay:
    """Computes shards of one job again, with the code that workers run them by."""

    def __init__(self, job: str, settings: Settings) -> None:
        storage = Storage()
        self._job = JobContext(job, storage, settings, Witnesses())
        self._models = ModelCache(settings, storage)

    def run(self, number: int, file: Path) -> None:
        """Write the shard's part to `file`. Raise NightshiftError if the shard can't be run."""
        began = time.monotonic()
        job = self._job
        shard = job.shard(number)
        held = self._models.get(job.accepted, job.handler)
        handler = job.handler(held.loaded, job.accepted.spec.task_params, job.accepted.spec)
        run = ShardRun(handler, job.budget(held), lambda rows: None)
        with PartWriter(job.output_schema) as writer:
            run.run(shard, job.reader, job.task_columns, writer)
            report = run.report(
                job=job.accepted.id,
                shard=number,
                attempt="replay",
                worker="replay",
                fingerprint=job.fingerprint(shard),
                device=str(self._models.device),
                dtype=str(held.loaded.dtype).removeprefix("torch."),
                versions=versions(),
                checksum=writer.checksum,
                seconds={"wall": round(time.monotonic() - began, 4)},
            )
            part = writer.close(report)
            part.seek(0)
            aside = file.with_suffix(".writing")
            aside.write_bytes(part.read())
            aside.rename(file)


def main(job: str, folder: Path, shards: list[int]) -> None:
    """Run the shards, one after the other."""
    settings = Settings.read()
    logs.configure("warning", settings.log_format)
    replay = Replay(job, settings)
    for number in shards:
        try:
            replay.run(number, folder / f"{number}.parquet")
        except NightshiftError as error:
            (folder / f"{number}.error").write_text(error.message)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [int(number) for number in sys.argv[3:]])

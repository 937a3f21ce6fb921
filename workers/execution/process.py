"""What one worker process keeps between shards: its connections, its models, and the jobs it works on."""

import os
import platform
import socket
import time
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from jobs.broker import Broker
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.parts import read_report
from schemas import __version__
from schemas.errors import NotFound, Permanent
from schemas.report import ShardReport
from workers.execution.job_context import JobContext
from workers.models.cache import ModelCache

#: Jobs whose spec and plan a process remembers.
REMEMBERED_JOBS = 16
#: Seconds between two notes of how fast a model is.
RATE_EVERY_S = 5.0


class Process:
    """One worker process. `stop_file` appears when it should put its shard back and leave."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self.settings = settings
        self.state = State(settings)
        self.broker = broker
        self.storage = Storage()
        self.models = ModelCache(settings, self.storage)
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.stop_file: Path | None = settings.stop_file
        self._jobs: OrderedDict[str, JobContext] = OrderedDict()
        self._noted: dict[tuple[str, str], float] = {}
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    @cached_property
    def versions(self) -> dict[str, str]:
        """What computed the results."""
        modules: dict[str, Any] = {"torch": torch, "transformers": transformers, "pyarrow": pa}
        found = {name: str(module.__version__) for name, module in modules.items()}
        return {"nightshift": __version__, "python": platform.python_version()} | found

    def job(self, job: str, output: str) -> JobContext:
        """The job's context, read from storage at its first shard here."""
        if job not in self._jobs:
            self._jobs[job] = JobContext(output, self.storage, self.settings)
            if len(self._jobs) > REMEMBERED_JOBS:
                self._jobs.popitem(last=False)[1].reader.close()
        self._jobs.move_to_end(job)
        return self._jobs[job]

    def note_rate(self, job: JobContext, rows_per_s: float) -> None:
        """Remember how fast the job's model is worked on, for planning; not again within seconds."""
        key, now = (job.task.id, job.accepted.spec.model), time.monotonic()
        if now - self._noted.get(key, -RATE_EVERY_S) >= RATE_EVERY_S:
            self._noted = {**self._noted, key: now} if len(self._noted) < REMEMBERED_JOBS else {key: now}
            self.state.jobs.note_rate(*key, rows_per_s)

    def leave(self) -> None:
        """End this process at once, which can't work any more: its lease runs out, and another takes its place."""
        os._exit(70)

    def existing_report(self, part: str, job: str) -> ShardReport | None:
        """The report of the job's part that stands already; None where none does. Raises Permanent for another's."""
        try:
            info = self.storage.stat(part)
        except NotFound:
            return None
        report = read_report(info, self.storage)
        if report.job != job:
            raise Permanent(f"{part} belongs to job {report.job}; move it away", code="foreign_part")
        return report

"""What does a worker process keep between shards? Its connections, its models, and the jobs it works on."""

import os
import platform
import time
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from jobs.broker import Broker
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from schemas import __version__
from schemas.heartbeat import failures_file
from workers.execution.breaker import Breaker
from workers.execution.job_context import JobContext
from workers.io.witnesses import Witnesses
from workers.models.cache import ModelCache

#: The number of jobs whose spec and plan a process remembers.
REMEMBERED_JOBS = 16
#: The least number of seconds between two notes of a model's rate.
RATE_EVERY_S = 5.0


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that compute the results, by name."""
    modules: dict[str, Any] = {"torch": torch, "transformers": transformers, "pyarrow": pa}
    found = {name: str(module.__version__) for name, module in modules.items()}
    return {"nightshift": __version__, "python": platform.python_version()} | found


class Process:
    """One worker process. When `stop_file` appears, it should put its shard back and leave."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self.settings = settings
        self.state = State(settings)
        self.broker = broker
        self.storage = Storage()
        self.models = ModelCache(settings, self.storage)
        self.witnesses = Witnesses()
        # The process that replaces this one has its name, and so what is known of it.
        self.name = f"{settings.worker}/{settings.slot}" if settings.worker else f"{settings.host}-{os.getpid()}"
        self.stop_file: Path | None = settings.stop_file
        self.breaker = Breaker()
        self.breaker.recall(self._failures_before())
        #: Whether this machine was found fit since the process began; since when the process is suspended, in Unix
        #: seconds; the folder of the job that failed here last.
        self.is_checked = False
        self.suspended_since: float | None = None
        self.suspect_folder: JobFolder | None = None
        #: Attempts that asked for a shard and got no answer: they may hold one.
        self.unanswered: list[str] = []
        self._jobs: OrderedDict[str, JobContext] = OrderedDict()
        self._noted: dict[tuple[str, str], float] = {}
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    @property
    def versions(self) -> dict[str, str]:
        return versions()

    def job(self, job: str) -> JobContext:
        """Return the job's context, which is read from storage for the job's first shard in this process."""
        if job not in self._jobs:
            self._jobs[job] = JobContext(job, self.storage, self.settings, self.witnesses)
            if len(self._jobs) > REMEMBERED_JOBS:
                self._jobs.popitem(last=False)[1].reader.close()
        self._jobs.move_to_end(job)
        return self._jobs[job]

    def note_rate(self, job: JobContext, rows_per_s: float) -> None:
        """Store the rate of the job's model in Redis, for planning. Do nothing within RATE_EVERY_S of the last time."""
        key, now = (job.task.id, job.accepted.spec.model), time.monotonic()
        if now - self._noted.get(key, -RATE_EVERY_S) >= RATE_EVERY_S:
            self._noted = {**self._noted, key: now} if len(self._noted) < REMEMBERED_JOBS else {key: now}
            self.state.jobs.note_rate(*key, rows_per_s)

    def _failures_before(self) -> list[str]:
        """Return why the processes failed that this one replaces, if none of them did a shard since."""
        folder = self.settings.work_folder
        file = failures_file(folder, self.settings.slot) if folder is not None else None
        return file.read_text().splitlines() if file is not None and file.exists() else []

    def forget_failures(self) -> None:
        """Forget the failures of the processes that this one replaced."""
        if self.settings.work_folder is not None:
            failures_file(self.settings.work_folder, self.settings.slot).unlink(missing_ok=True)

    @property
    def is_stopping(self) -> bool:
        return self.stop_file is not None and self.stop_file.exists()

    def leave(self) -> None:
        """End this process at once, as it can't work any more. Its lease runs out, and another process replaces it."""
        os._exit(70)

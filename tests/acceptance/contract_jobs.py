"""Jobs in every state, for requests that schemathesis makes up: those that change under them are replaced."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from schemas.job import AcceptedJob, JobSpec
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences

#: States that a request can end, by the action that it allows; `stopped` is one that Redis doesn't know.
LIVE = {"plan": "planning", "cancel": "running", "pause": "running", "continue": "paused", "resume": "stopped"}


class JobsOfEveryState:
    """The id of a job of each state, and a spec that can be submitted, in `file`; all of them write below `outputs`."""

    def __init__(self, house: House, model: Path, folder: Path) -> None:
        self._house = house
        self._model = model
        self._folder = folder
        self._numbers = count()
        self._live: dict[str, AcceptedJob] = {}
        self.outputs = folder / "out"
        self.file = folder / "jobs.json"
        texts: list[Any] = sentences(40)
        texts[3] = texts[20] = None
        self._table = write_reviews(folder / "in.parquet", texts)
        self._ended = {"succeeded": self._succeeded(), "failed": self._failed(), "cancelled": self._cancelled()}
        self.tend()

    def _spec(self, source: str | None = None) -> JobSpec:
        output = str(self.outputs / str(next(self._numbers)))
        return spec_for(self._model, source or str(self._table), output, shard={"rows": 10})

    def _run(self, job: AcceptedJob, shards: int) -> str:
        for shard in range(shards):
            self._house.attempt(job, shard, f"{job.id}-{shard}")
        self._house.finish(job)
        return job.id

    def _succeeded(self) -> str:
        """With error rows."""
        job = self._house.submit(self._spec())
        return self._run(job, self._house.plan(job))

    def _failed(self) -> str:
        """With parts and lost shards: one of its files goes when it is planned."""
        kept = write_reviews(self._folder / "two" / "a.parquet", sentences(10))
        gone = write_reviews(self._folder / "two" / "b.parquet", sentences(10))
        job = self._house.submit(self._spec(str(kept.parent)))
        shards = self._house.plan(job)
        gone.unlink()
        return self._run(job, shards)

    def _cancelled(self) -> str:
        """With a part."""
        job = self._house.submit(self._spec())
        self._house.plan(job)
        self._house.attempt(job, 0, f"{job.id}-0")
        self._house.state.jobs.cancel(job.id)
        self._house.finish(job)
        return job.id

    def _in_state(self, state: str) -> AcceptedJob:
        house = self._house
        if state == "stopped":
            return house.accept(self._spec())
        job = house.submit(self._spec())
        if state != "planning":
            house.plan(job)
        if state == "paused":
            house.state.jobs.pause(job.id)
        return job

    def tend(self) -> None:
        """Make a job anew for each state that its job has left, which ends where it was cancelled."""
        for action, state in LIVE.items():
            job = self._live.get(action)
            now = job and self._now(job)
            if job and now == "cancelling":
                self._house.control.finish_job(job.id, job.output)
            if now != state:
                self._live[action] = self._in_state(state)
        ids = self._ended | {action: job.id for action, job in self._live.items()}
        whole = self.file.with_suffix(".new")
        whole.write_text(json.dumps({"ids": ids, "spec": self._spec().model_dump(mode="json")}))
        whole.replace(self.file)

    def _now(self, job: AcceptedJob) -> str:
        progress = self._house.state.jobs.progress(job.id)
        return "stopped" if progress is None else str(progress.status)


@contextmanager
def tended(jobs: JobsOfEveryState) -> Iterator[None]:
    """Have the jobs tended for as long as the context lasts. An error there is raised at its end."""
    over, errors = threading.Event(), []

    def tend() -> None:
        while not over.wait(0.5):
            try:
                jobs.tend()
            except Exception as error:  # noqa: BLE001 (raised below)
                errors.append(error)
                return

    thread = threading.Thread(target=tend, name="tending")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]

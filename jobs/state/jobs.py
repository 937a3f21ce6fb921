"""The jobs in Redis: from entered to ended, how far each is, and how fast models were run."""

import json
import time
from collections.abc import Sequence
from functools import cache

from jobs.settings import Settings
from jobs.state.connection import Connection, job_key
from jobs.state.progress import Progress, progress_from
from jobs.state.workers import Workers
from schemas.manifest import ErrorInfo, JobStatus

_ACTIVE = "nightshift:active"
_RATES = "nightshift:rates"
_TO_PLAN = "nightshift:to_plan:"


class Jobs:
    def __init__(self, connection: Connection, workers: Workers, settings: Settings) -> None:
        self._redis = connection.redis
        self._run = connection.run
        self._workers = workers
        self._settings = settings

    def add(
        self,
        job: str,
        task: str,
        output: str,
        priority: int,
        accepted: float,
        tenant: str = "",
        model: str = "",
        reach: int | None = None,
        is_new: bool = True,
    ) -> bool:
        """Enter an accepted job, to be planned. Return False if it is known and has not ended: it goes on as it is.

        Tenants get equal shares of the workers, those of the highest `reach` (by default the priority) first. A
        tenant's own jobs go by their priority; jobs with the same `model` are run by workers that hold it, within
        `WarmLimits`. One that isn't new may be worked on by attempts that a lost Redis handed out: for the length of a
        lease it ends only with all of its parts.
        """
        return bool(
            self._run(
                "job_add", job=job, task=task, output=output, priority=priority, accepted=accepted, tenant=tenant,
                model=model, reach=priority if reach is None else reach,
                settle_s=0 if is_new else self._settings.lease_s,
            )
        )  # fmt: skip

    def start(
        self,
        job: str,
        shards: int,
        rows: int,
        max_errors: int | None,
        done: Sequence[int],
        rows_done: int,
        errors: dict[str, int],
    ) -> bool:
        """Note that the plan stands: the shards that aren't done may be released. Return True if all are done."""
        return bool(
            self._run(
                "job_start",
                job=job,
                shards=shards,
                rows=rows,
                max_errors="" if max_errors is None else max_errors,
                done=json.dumps(list(done)),
                rows_done=rows_done,
                errors=json.dumps(errors),
            )
        )

    def cancel(self, job: str) -> bool:
        """Stop the job. Return False if it had ended, is failing, or is not known."""
        return int(self._run("job_stop", job=job, status=JobStatus.CANCELLING, error="")) >= 0

    def pause(self, job: str) -> bool:
        """Hand out no more of the job's shards; those in hand go on. Return False if it isn't under way."""
        return bool(self._run("job_pause", job=job))

    def resume(self, job: str) -> bool:
        """Hand out its shards again. Return False if it was not paused."""
        return bool(self._run("job_resume", job=job))

    def fail(self, job: str, error: ErrorInfo) -> bool:
        """Stop the job for an error that another try won't mend. Return True if only the manifest is left to write."""
        return int(self._run("job_stop", job=job, status=JobStatus.FAILING, error=error.model_dump_json())) == 1

    def tenant(self, job: str) -> str:
        """Return the tenant whose share the job uses; an empty string without one, or if the job isn't known."""
        return self._redis.hget(job_key(job), "tenant") or ""

    def wait_for_plan(self, tenant: str, job: str) -> None:
        """Note that the job is to be planned once another of its tenant has been."""
        self._redis.zadd(f"{_TO_PLAN}{tenant}", {job: time.time()}, nx=True)
        self._redis.expire(f"{_TO_PLAN}{tenant}", self._settings.keep_state_s)

    def next_to_plan(self, tenant: str) -> str | None:
        """Return the job of the tenant that has waited for its plan for longest. It waits no more."""
        found = self._redis.zpopmin(f"{_TO_PLAN}{tenant}")
        return found[0][0] if found else None

    def tried(self, job: str, what: str) -> int:
        """Count a fault that kept `what`, such as the job's plan, from being made; return how many there were."""
        return int(self._run("job_tried", job=job, what=what))

    def finish(self, job: str, status: JobStatus, error: ErrorInfo | None = None) -> None:
        """Note that the job has ended. Give the error of one that has no manifest to say it."""
        if error is not None:
            self._run("job_explain", job=job, error=error.model_dump_json())
        self._run("job_finish", job=job, status=status, keep=self._settings.keep_state_s)

    def explain(self, job: str, error: ErrorInfo) -> None:
        """Note what keeps the job from ending, for those who ask how far it is."""
        self._run("job_explain", job=job, error=error.model_dump_json())

    def status(self, job: str) -> JobStatus | None:
        found = self._redis.hget(job_key(job), "status")
        return JobStatus(found) if found else None

    def progress(self, job: str) -> Progress | None:
        """Return how far the job is, or None if Redis doesn't know it."""
        return self.progress_of([job])[0]

    def progress_of(self, jobs: Sequence[str]) -> list[Progress | None]:
        """Return how far each of these jobs is, asked at once; None for those that Redis doesn't know."""
        with self._redis.pipeline() as pipe:
            for job in jobs:
                pipe.hgetall(job_key(job))
                pipe.hvals(job_key(job, "live"))
                pipe.hgetall(job_key(job, "errors"))
                pipe.hlen(job_key(job, "held"))
                pipe.hlen(job_key(job, "failed"))
            pipe.time()
            pipe.smembers("nightshift:workers")
            *told, (seconds, micros), reported = pipe.execute()
        now = seconds + micros / 1e6
        # Needed only for a job that no worker has a shard of; asked once for all of them.
        groups = cache(lambda: {group for worker in self._workers.alive_among(reported) for group in worker.groups})
        return [progress_from(job, told[5 * n : 5 * n + 5], now, groups) for n, job in enumerate(jobs)]

    def failed_shards(self, job: str) -> dict[int, ErrorInfo]:
        """Return the shards that were given up, and why."""
        found = self._redis.hgetall(job_key(job, "failed"))
        return {int(shard): ErrorInfo.model_validate_json(error) for shard, error in found.items()}

    def active(self) -> list[str]:
        """Return the jobs that have not ended, oldest first."""
        return list(self._redis.zrange(_ACTIVE, 0, -1))

    def count_active(self, tenant: str) -> int:
        """Return how many of the tenant's jobs have not ended."""
        with self._redis.pipeline(transaction=False) as pipe:
            for job in self.active():
                pipe.hget(job_key(job), "tenant")
            return sum((found or "") == tenant for found in pipe.execute())

    def note_rate(self, task: str, model: str, rows_per_s: float) -> None:
        """Remember how fast a process last worked on this model, for planning."""
        self._redis.hset(_RATES, f"{task} {model}", rows_per_s)

    def rate(self, task: str, model: str) -> float | None:
        """Return the records a second that a process last did with this model."""
        found = self._redis.hget(_RATES, f"{task} {model}")
        return float(found) if found else None

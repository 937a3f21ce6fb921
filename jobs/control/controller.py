"""Who plans and ends jobs? A process without torch, by Celery messages on the `control` queue."""

import logging
import math
import time
from collections.abc import Callable

from jobs.broker import Broker
from jobs.control.build_manifest import build_manifest
from jobs.logs import bound, event
from jobs.planning.planner import planned, shard_limits
from jobs.planning.retry_planner import planned_retry
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder, PlanSize
from jobs.webhooks.delivery import Notifier
from schemas.errors import JobEnded, NightshiftError, Permanent, ServiceUnavailable, Transient
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import ErrorInfo, JobStatus, Manifest

_log = logging.getLogger(__name__)
#: Seconds between two looks whether a job that is being planned was cancelled.
CHECK_S = 1.0


class Control:
    """Plans and ends jobs. Both may run twice, or at once elsewhere: what they write is created once."""

    def __init__(self, settings: Settings, state: State, broker: Broker, storage: Storage, name: str) -> None:
        self._settings = settings
        self._state = state
        self._broker = broker
        self._catalog = Catalog(settings.catalog_uri, storage)
        self._name = name
        self._notifier = Notifier(settings, state, self._catalog)

    def plan_job(self, job: str, output: str) -> None:
        """Write the job's plan if it has none, take up the parts it has, and release its first shards.

        Of each tenant one job is planned at a time, so that others have a process free for theirs.
        """
        tenant = self._state.jobs.tenant(job)
        if not tenant:
            self._plan_now(job, output)
            return
        with self._state.locks.alone(f"planning:{tenant}", self._name, self._settings.lease_s) as is_alone:
            if is_alone:
                self._plan_now(job, output)
            else:
                self._state.jobs.wait_for_plan(tenant, job)
        next_job = self._state.jobs.next_to_plan(tenant) if is_alone else None
        progress = self._state.jobs.progress(next_job) if next_job else None
        if next_job and progress is not None:
            self._broker.plan_job(next_job, progress.output)

    def _plan_now(self, job: str, output: str) -> None:
        with bound(job=job), self._state.locks.alone(f"plan:{job}", self._name, self._settings.lease_s) as is_alone:
            if not is_alone or self._state.jobs.status(job) is not JobStatus.PLANNING:
                return
            started = time.monotonic()
            try:
                folder = self._catalog.folder(output)
                ended = folder.read_manifest()
                if ended is not None:  # while Redis was being rebuilt, say
                    self._state.jobs.finish(job, ended.status)
                    return
                accepted = self._job(job)
                size = self._plan(accepted, folder)
                done = folder.committed()
            except ServiceUnavailable:
                raise
            except JobEnded:
                event(_log, "planning_stopped")
                return
            except Exception as error:  # noqa: BLE001 (decided by class; a job always ends)
                self._plan_failed(job, output, error)
                return
            limit = error_limit(accepted.spec, size.rows)
            event(
                _log,
                "planned",
                shards=size.shards,
                rows=size.rows,
                done=len(done.shards),
                seconds=time.monotonic() - started,
            )
            if self._state.jobs.start(job, size.shards, size.rows, limit, done.shards, done.rows, done.errors):
                self._broker.finish_job(job, output)
            self._broker.release(self._state, accepted.spec.task_schema)

    def _job(self, job: str) -> AcceptedJob:
        accepted = self._catalog.job(job)
        if accepted is None:
            raise Permanent(f"the catalog at {self._catalog.uri} has no job {job}", code="job_gone")
        return accepted

    def _plan_failed(self, job: str, output: str, error: Exception) -> None:
        """End the job, unless the fault may pass: then the sweep asks for the plan again."""
        if not isinstance(error, NightshiftError):
            _log.exception("unexpected_error")
        message = error.message if isinstance(error, NightshiftError) else f"{type(error).__name__}: {error}"
        event(_log, "plan_failed", logging.ERROR, error=message)
        if isinstance(error, Transient) and self._may_pass(job):
            return
        code = error.code if isinstance(error, NightshiftError) else "internal"
        if self._state.jobs.fail(job, ErrorInfo(code=code, message=message)):
            self._broker.finish_job(job, output)

    def _may_pass(self, job: str) -> bool:
        """Return whether a fault of planning is to be waited out.

        The sweep asks for the plan again and again. A fault counts only after twice the time of the last one, up to
        five minutes. So a store that is away costs a job no more in planning than in a shard.
        """
        counting, owner = f"plan_fault:{job}", f"{self._name}-{time.monotonic()}"
        if not self._state.locks.take(counting, owner, 1):
            return True
        tries = self._state.jobs.plan_tried(job)
        self._state.locks.take(counting, owner, min(300.0, 2.0**tries))
        return tries < self._settings.max_transient

    def _plan(self, job: AcceptedJob, folder: JobFolder) -> PlanSize:
        there = folder.find_plan()
        if there is not None:
            return there.size()
        storage, settings, check = self._catalog.storage, self._settings, self._still_planning(job.id)
        rate = self._state.jobs.rate(job.spec.task, job.spec.model)
        limits = shard_limits(job.spec, rate, settings.max_shards)
        plan = planned_retry(job.parent, storage, limits, check) if job.parent else None
        plan = plan or planned(job.spec, None, storage, settings.narrowed(job.allowed_inputs), limits, check)
        return folder.write_plan(plan, self._name)

    def _still_planning(self, job: str) -> Callable[[], None]:
        """Return a check that raises JobEnded once the job is cancelled. It asks Redis at most once in CHECK_S."""
        due = time.monotonic() + CHECK_S

        def check() -> None:
            nonlocal due
            if time.monotonic() > due:
                if self._state.jobs.status(job) is not JobStatus.PLANNING:
                    raise JobEnded(f"job {job} is not to be planned any more")
                due = time.monotonic() + CHECK_S

        return check

    def finish_job(self, job: str, output: str) -> None:
        """Write the job's manifest if it has none, from what storage holds."""
        with bound(job=job), self._state.locks.alone(f"finish:{job}", self._name, self._settings.lease_s) as is_alone:
            progress = self._state.jobs.progress(job)
            if not is_alone or progress is None or not progress.finishable:
                return
            try:
                folder = self._catalog.folder(output)
                manifest = folder.read_manifest() or self._manifest(job, folder, progress)
                if manifest is None:
                    return
                notify = self._wants_webhook(job)
            except Transient as error:  # the sweep asks for the end again
                event(_log, "finish_failed", logging.WARNING, error=error.message)
                return
            if notify:  # before the end is noted: until then the sweep has all of this done again
                self._state.webhooks.add(job, output)
            else:  # a job with a webhook is marked once that is settled
                self._mark_ended(job)
            self._state.jobs.finish(job, manifest.status)
            event(_log, "job_ended", status=manifest.status, rows=manifest.rows, error_rows=manifest.error_rows)
            if notify:
                self.notify_job(job, output)

    def _wants_webhook(self, job: str) -> bool:
        try:
            return self._job(job).spec.notify is not None
        except Permanent:  # a damaged entry names no URL, and keeps no job from ending
            return False

    def _mark_ended(self, job: str) -> None:
        try:
            self._catalog.mark_ended(job)
        except NightshiftError as error:  # marked when Redis is rebuilt
            event(_log, "end_not_marked", logging.WARNING, error=error.message)

    def _manifest(self, job: str, folder: JobFolder, progress: Progress) -> Manifest | None:
        """Write the job's manifest. Return None if Redis was lost while the parts were read: the job may go on."""
        made = build_manifest(self._job(job), progress, self._state.jobs.failed_shards(job), folder)
        now = self._state.jobs.progress(job)
        if now is None or not now.finishable:
            return None
        return folder.write_manifest(made, self._name)

    def notify_job(self, job: str, output: str) -> None:
        """Start sending the job's webhook, unless it is settled, and return at once."""
        self._notifier.submit(job, output)


def error_limit(spec: JobSpec, rows: int) -> int | None:
    """Return `max_errors` as a count of error rows: a number below 1 is a share of the job's records."""
    if spec.max_errors is None:
        return None
    is_share = isinstance(spec.max_errors, float) and spec.max_errors < 1
    # A share such as 0.29 of 100 is 28.999… in floating point.
    return math.floor(spec.max_errors * rows + 1e-9) if is_share else int(spec.max_errors)

"""Control: a job's plan and its end, run as Celery messages on the `control` queue by a process without torch."""

import logging
import math
import time

from jobs.broker import Broker
from jobs.control.build_manifest import make_manifest
from jobs.logs import bound, event
from jobs.planning.planner import PlanSize, planned, read_plan_size, shard_limits, write_plan
from jobs.recover import committed
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.catalog import mark_ended
from jobs.storage.job_folder import read_job, read_manifest, write_manifest
from jobs.submission.retry import planned_retry
from jobs.webhooks.delivery import Notifier
from schemas.errors import NightshiftError, NotFound, Permanent, ServiceUnavailable, Transient
from schemas.job import AcceptedJob, JobSpec
from schemas.manifest import ErrorInfo, JobStatus, Manifest

_log = logging.getLogger(__name__)


class Control:
    """Plans and finishes jobs. Either may run twice, or at once elsewhere: what they write is created once."""

    def __init__(self, settings: Settings, state: State, broker: Broker, storage: Storage, name: str) -> None:
        self._settings = settings
        self._state = state
        self._broker = broker
        self._storage = storage
        self._name = name
        self._notifier = Notifier(settings, state, storage)

    def plan_job(self, job: str, output: str) -> None:
        """Write the job's plan if it has none, take up the parts it has, and release its first shards."""
        with bound(job=job), self._state.locks.alone(f"plan:{job}", self._name, self._settings.lease_s) as is_alone:
            if not is_alone or self._state.jobs.status(job) is not JobStatus.PLANNING:
                return
            started = time.monotonic()
            try:
                ended = read_manifest(output, self._storage)
                if ended is not None:  # while Redis was being rebuilt, say
                    self._state.jobs.finish(job, ended.status)
                    return
                accepted = self._job(output)
                size = self._plan(accepted)
                done = committed(output, self._storage)
            except ServiceUnavailable:
                raise
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

    def _plan_failed(self, job: str, output: str, error: Exception) -> None:
        """End the job, unless the fault should pass: then the sweep asks for the plan again."""
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
        """Whether a fault of planning is to be waited out.

        The sweep asks for the plan again and again; faults count at twice the distance each time, up to five minutes,
        so that a store that is away for a while costs a job no more in planning than it would in a shard.
        """
        counting, owner = f"plan_fault:{job}", f"{self._name}-{time.monotonic()}"
        if not self._state.locks.take(counting, owner, 1):
            return True
        tries = self._state.jobs.plan_tried(job)
        self._state.locks.take(counting, owner, min(300.0, 2.0**tries))
        return tries < self._settings.max_transient

    def _job(self, output: str) -> AcceptedJob:
        accepted = read_job(output, self._storage)
        if accepted is None:
            raise Permanent(f"the job's file is gone from {output}", code="job_gone")
        return accepted

    def _plan(self, job: AcceptedJob) -> PlanSize:
        try:
            return read_plan_size(job.output, self._storage)
        except NotFound:
            limits = shard_limits(job.spec, self._state.jobs.rate(job.spec.task, job.spec.model))
            plan = planned_retry(job.parent, self._storage, limits) if job.parent else None
            plan = plan or planned(job.spec, None, self._storage, self._settings, limits)
            return write_plan(job.output, plan, self._storage, self._name)

    def finish_job(self, job: str, output: str) -> None:
        """Write the job's manifest if it has none, from what storage holds."""
        with bound(job=job), self._state.locks.alone(f"finish:{job}", self._name, self._settings.lease_s) as is_alone:
            progress = self._state.jobs.progress(job)
            if not is_alone or progress is None or not progress.finishable:
                return
            try:
                manifest = read_manifest(output, self._storage) or self._manifest(job, output, progress)
                if manifest is None:
                    return
                notify = self._wants_notice(output)
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

    def _mark_ended(self, job: str) -> None:
        try:
            mark_ended(job, self._storage, self._settings.catalog_uri)
        except NightshiftError as error:  # whoever looks at the job when Redis is rebuilt makes up for it
            event(_log, "end_not_marked", logging.WARNING, error=error.message)

    def _manifest(self, job: str, output: str, progress: Progress) -> Manifest | None:
        """The job's manifest, written. None where Redis was lost while the parts were read, and the job may go on."""
        made = make_manifest(self._job(output), progress, self._state.jobs.failed_shards(job), self._storage)
        now = self._state.jobs.progress(job)
        if now is None or not now.finishable:
            return None
        return write_manifest(made, output, self._storage, self._name)

    def _wants_notice(self, output: str) -> bool:
        try:
            job = read_job(output, self._storage)
        except Permanent:  # a damaged file names no URL, and keeps no job from ending
            return False
        return job is not None and job.spec.notify is not None

    def notify_job(self, job: str, output: str) -> None:
        """Have the job's webhook sent, if it is not settled, and return at once."""
        self._notifier.submit(job, output)


def error_limit(spec: JobSpec, rows: int) -> int | None:
    """`max_errors` as a count of error rows: a number below 1 is a share of the job's records."""
    if spec.max_errors is None:
        return None
    is_share = isinstance(spec.max_errors, float) and spec.max_errors < 1
    # A share such as 0.29 of 100 is 28.999… in floating point.
    return math.floor(spec.max_errors * rows + 1e-9) if is_share else int(spec.max_errors)

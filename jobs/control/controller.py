"""Who plans and ends jobs? A process without torch, by Celery messages on the `control` queue."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa

from jobs.broker import Broker
from jobs.control.finisher import Finisher
from jobs.control.job_of import job_of
from jobs.control.patience import Patience, code_of, may_pass, message_of
from jobs.control.series_run import begin_run
from jobs.logs import bound, event
from jobs.planning.planner import planned, shard_limits
from jobs.planning.retry_planner import planned_retry
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.storage.plan_file import PlanSize
from jobs.tables import check_apart
from schemas.errors import Damaged, JobEnded, NightshiftError, NotFinished, ServiceUnavailable
from schemas.job import AcceptedJob, JobSpec
from schemas.layout import PLAN
from schemas.manifest import ErrorInfo, JobStatus
from schemas.output import kept_columns, output_schema

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
        self._patience = Patience(state, name)
        self._finisher = Finisher(settings, state, self._catalog, name)

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
                if ended is not None and not ended.is_refused:  # while Redis was being rebuilt, say
                    self._state.jobs.finish(job, ended.status)
                    return
                if self._catalog.is_cancelled(job):
                    self._cancel(job, output)
                    return
                accepted = job_of(job, self._catalog)
                folder = self._catalog.folder_of(accepted)
                size = self._plan(accepted, folder)
                done = folder.committed(job, size.shards)
            except ServiceUnavailable:
                raise
            except JobEnded:
                event(_log, "planning_stopped")
                return
            except NotFinished as error:  # the sweep asks for the plan again
                event(_log, "planning_waits", why=error.message)
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

    def _cancel(self, job: str, output: str) -> None:
        """Cancel a job again: that it was cancelled before was lost with Redis."""
        if self._state.jobs.cancel(job):
            self._broker.finish_job(job, output)

    def _plan_failed(self, job: str, output: str, error: Exception) -> None:
        """End the job, unless the fault may pass: then the sweep asks for the plan again."""
        if not isinstance(error, NightshiftError):
            _log.exception("unexpected_error")
        message = message_of(error)
        event(_log, "plan_failed", logging.ERROR, error=message)
        if may_pass(error):
            tries = self._patience.tries(job, "plan", self._settings.max_transient)
            if tries is None:
                return
            message += f" (tried {tries} times)"
        if self._state.jobs.fail(job, ErrorInfo(code=code_of(error), message=message)):
            self._broker.finish_job(job, output)

    def _plan(self, job: AcceptedJob, folder: JobFolder) -> PlanSize:
        there = folder.find_plan()
        if there is not None:
            return there.size()
        if folder.committed(job.id, 0).shards:  # another plan would cut the input elsewhere
            raise Damaged(
                f"{folder.uri(PLAN)} is gone, which the parts beside it belong to; submit the job again at another "
                "location",
                code="plan_broken",
            )
        storage, settings, check = self._catalog.storage, self._settings, self._still_planning(job.id)
        rate = self._state.jobs.rate(job.spec.task, job.spec.model)
        limits = shard_limits(job.spec, rate, settings.max_shards)
        unseen = begin_run(job, self._catalog)
        run = None if unseen is None else unseen.run
        parent = job_of(job.parent.job, self._catalog) if job.parent else None
        plan = planned_retry(parent, storage, limits, check, run) if parent else None
        plan = plan or planned(job.spec, None, storage, settings.narrowed(job.allowed_inputs), limits, check, unseen)
        if job.spec.output.table is not None:  # before anything is computed for a table that won't take it
            kept = [plan.columns.field(name) for name in kept_columns(job.spec, plan.columns)]
            check_apart(job, output_schema(job.spec, pa.schema(kept)), settings.io_timeout_s)
        return folder.write_plan(plan, self._name, self._not_ending(job.id))

    @contextmanager
    def _not_ending(self, job: str) -> Iterator[None]:
        """Keep the job from ending inside the block: its manifest is the last that is written of it.

        Raise JobEnded if it is not to be planned any more.
        """
        with self._state.locks.alone(f"finish:{job}", self._name, self._settings.lease_s) as is_alone:
            if not is_alone or self._state.jobs.status(job) is not JobStatus.PLANNING:
                raise _not_to_be_planned(job)
            yield

    def _still_planning(self, job: str) -> Callable[[], None]:
        """Return a check that raises JobEnded once the job is cancelled. It asks Redis at most once in CHECK_S."""
        due = time.monotonic() + CHECK_S

        def check() -> None:
            nonlocal due
            if time.monotonic() > due:
                if self._state.jobs.status(job) is not JobStatus.PLANNING:
                    raise _not_to_be_planned(job)
                due = time.monotonic() + CHECK_S

        return check

    def finish_job(self, job: str, output: str) -> None:
        """Write the job's manifest if it has none, from what storage holds."""
        self._finisher.finish(job, output)

    def notify_job(self, job: str, output: str) -> None:
        """Start sending the job's webhook, unless it is settled, and return at once."""
        self._finisher.notify(job, output)


def _not_to_be_planned(job: str) -> JobEnded:
    return JobEnded(f"job {job} is not to be planned any more")


def error_limit(spec: JobSpec, rows: int) -> int | None:
    """Return `max_errors` as a count of error rows: a number below 1 is a share of the job's records."""
    if spec.max_errors is None:
        return None
    is_share = isinstance(spec.max_errors, float) and spec.max_errors < 1
    # A share such as 0.29 of 100 is 28.999… in floating point.
    return math.floor(spec.max_errors * rows + 1e-9) if is_share else int(spec.max_errors)

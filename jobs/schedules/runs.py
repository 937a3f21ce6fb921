"""How does a due time become a job? What is decided is written first, once; then the job, which may be done again.

A process that dies in between leaves an open run, and the next round of any supervisor goes on with it.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from jobs.broker import Broker
from jobs.logs import event
from jobs.schedules import inputs
from jobs.schedules.expand import below_spec, expand
from jobs.settings import Settings
from jobs.state import State
from jobs.storage.catalog import Catalog
from jobs.storage.schedule_store import Key, ScheduleStore
from jobs.submission.accept import Submitter, enqueue, job_id_of, new_job
from jobs.submission.cancel import cancel_job
from jobs.submission.rights import job_of_token, narrowed_to
from jobs.submission.validate import Validated, validate
from schemas import __version__
from schemas.errors import AccessDenied, SpecError, TooManyRequests
from schemas.job import AcceptedJob, JobSpec, RunOf
from schemas.layout import Layout
from schemas.schedule import Outcome, RunRecord, ScheduleVersion

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that may start: its validated spec, or the job of that spec that has the output already.

    Both are None if there is nothing to do. `left_out` are URIs of the input at which there is nothing.
    """

    checked: Validated | None
    there: AcceptedJob | None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """Starts the runs of a deployment's schedules. `name` is the process's own, and `now` its clock."""

    settings: Settings
    state: State
    broker: Broker
    catalog: Catalog
    store: ScheduleStore
    name: str
    now: Callable[[], datetime]

    def prepare(self, version: ScheduleVersion, due: datetime, run: str) -> Prepared:
        """Validate the run's spec. Raise SpecError if it must be refused, Transient if a store is away."""
        spec = expand(version, due, run, self.settings)
        narrowed = narrowed_to(version.rights, self.settings)
        try:
            there = self.submitter(version).find(spec)
            if there is not None:
                return Prepared(None, there.job)
            found = inputs.look(spec, self.catalog.storage, narrowed)
            if found.missing and spec.missing_input == "fail":
                raise SpecError.of(
                    "input.uri",
                    f"there is no object at {found.missing[0]!r}; with missing_input: empty the run is an empty one",
                )
            left_out = found.empty + found.missing
            if not found.full:
                return Prepared(None, None, left_out)
            return Prepared(validate(_with_input(spec, found.full), self.catalog.storage, narrowed), None, left_out)
        except SpecError as error:
            raise below_spec(error) from None
        except AccessDenied as error:
            raise SpecError.of("spec", error.message) from None

    def check_quota(self, version: ScheduleVersion) -> None:
        """Raise TooManyRequests if the tenant has as many jobs under way as the schedule's token allowed."""
        limit = None if version.rights is None else version.rights.max_running_jobs
        running = 0 if limit is None else self.state.jobs.count_active(version.tenant)
        if limit is not None and running >= limit:
            raise TooManyRequests(f"{running} jobs of the tenant are under way, and it may have {limit}", 30)

    def started(self, version: ScheduleVersion, due: datetime, run: str, found: Prepared, why: str = "") -> RunRecord:
        """Return the decision on a run that may start, not written yet. Raise TooManyRequests above the quota."""
        if found.there is not None:
            why = f"job {found.there.id} has its output already"
            return self.record(version, due, run, Outcome.STARTED, why, job=found.there.id)
        if found.checked is None:
            why = f"there is nothing at {found.left_out[0]!r}"
            return self.record(version, due, run, Outcome.EMPTY, why, left_out=found.left_out)
        self.check_quota(version)
        id = self._free_id(version, run)
        return self.record(version, due, run, Outcome.STARTED, why, job=id, left_out=found.left_out)

    def record(
        self,
        version: ScheduleVersion,
        due: datetime,
        run: str,
        outcome: Outcome,
        why: str,
        job: str | None = None,
        left_out: tuple[str, ...] = (),
    ) -> RunRecord:
        """Return a decision, not written yet."""
        return RunRecord(
            schedule=version.name,
            tenant=version.tenant,
            run=run,
            due=due,
            number=version.number,
            outcome=outcome,
            why=why,
            job=job,
            left_out=left_out,
            decided_at=self.now(),
            decided_by=self.name,
            version=__version__,
        )

    def _free_id(self, version: ScheduleVersion, run: str) -> str:
        """Return the id of the run's job: the time, and a hash of schedule and due time.

        The time is that of the decision, which is written once: listings of jobs rely on it that ids begin with about
        the time at which a job was accepted.
        """
        now, key = self.now(), Key(version.tenant, version.name)
        ids = (job_id_of(now, digest_of(key, run, number)) for number in count())
        return next(id for id in ids if self.catalog.find(id) is None)

    def begin(self, record: RunRecord, checked: Validated | None = None) -> AcceptedJob:
        """Write the job of a run that was decided to start, and hand it to the workers. May be done again.

        Return the job that does the run's work. Raise SpecError if its spec isn't valid any more.
        """
        assert record.job is not None
        job = self.catalog.job(record.job)
        if job is not None and self.catalog.folder(job.output).read_job() is not None:
            return self.catalog.job_at(job.output) or job
        version = self.store.version(Key(record.tenant, record.schedule), record.number)
        if job is None:
            if checked is None:
                found = self.prepare(version, record.due, record.run)
                if found.there is not None:
                    return found.there
                checked = found.checked
            if checked is None:
                raise SpecError.of("spec.input.uri", "the files of the run's input are gone")
            job = _job(checked, version, record, self.settings.layout)
        accepted = self.submitter(version).create(job)
        if not accepted.ended:
            self.enter(accepted.job, accepted.is_new)
        return accepted.job

    def enter(self, job: AcceptedJob, is_new: bool = False) -> None:
        """Hand a job to the workers, unless Redis knows it. One that was to be cancelled is."""
        if enqueue(job, self.state, self.broker, is_new):
            event(_log, "run_entered", job=job.id)
            if self.catalog.is_cancelled(job.id) and self.state.jobs.cancel(job.id):
                self.broker.finish_job(job.id, job.output)

    def cancel(self, record: RunRecord) -> None:
        """Stop the job of an open run. One that Redis doesn't know is noted, and stopped when it is entered."""
        job = None if record.job is None else self.catalog.job(record.job)
        if job is None:
            return
        if not cancel_job(job.id, job.output, self.catalog, self.state, self.broker):
            self.catalog.mark_cancelled(job.id)

    def submitter(self, version: ScheduleVersion) -> Submitter:
        """Return what accepts the jobs of a version's runs."""
        tenant = version.tenant
        if version.rights is None:
            return Submitter(self.catalog, embedded=False)
        return Submitter(self.catalog, embedded=False, tenant=tenant, sees=lambda other: other == tenant)


def digest_of(key: Key, run: str, number: int = 0) -> bytes:
    """Return a hash of a run. `number` is above 0 only if another job has the id that the hash gives."""
    return hashlib.sha256(f"{key.tenant}\0{key.name}\0{run}\0{number}".encode()).digest()


def _job(checked: Validated, version: ScheduleVersion, record: RunRecord, layout: Layout) -> AcceptedJob:
    run = RunOf(schedule=record.schedule, due=record.due, run=record.run)
    if version.rights is None:
        job = new_job(checked.spec, checked.model, accepted_by=version.made_by, layout=layout, run=run)
    else:
        job = job_of_token(checked, version.rights, layout, run)
    return job.model_copy(update={"id": record.job})


def _with_input(spec: JobSpec, uris: tuple[str, ...]) -> JobSpec:
    """Return the spec without the URIs of its input at which there is nothing."""
    if len(uris) == len(spec.input.uris):
        return spec
    return spec.model_copy(update={"input": spec.input.model_copy(update={"uri": list(uris)})})

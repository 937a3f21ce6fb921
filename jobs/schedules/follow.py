"""What becomes of a run that has begun? Its job is followed to its end, retried if it failed, and the end is told."""

import logging
from datetime import UTC, datetime

from jobs.logs import event
from jobs.schedules.runs import Prepared, Runs
from jobs.schedules.seen import Seen
from jobs.storage.schedule_store import Key, notice_id
from jobs.submission.retry import accept_retry, beside, nothing_to_retry
from jobs.submission.rights import narrowed_to
from schemas.errors import Damaged, NotFinished, Permanent, SpecError, TooManyRequests
from schemas.job import AcceptedJob
from schemas.manifest import ErrorInfo, JobStatus
from schemas.schedule import Outcome, RunEnd, RunRecord, RunStatus, ScheduleVersion

_log = logging.getLogger(__name__)
#: Ended runs whose webhooks are looked for when Redis may have been lost.
_REMINDED = 20


class Follower:
    """Follows the runs that `runs` starts."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        #: The job of an open run, and the retries of it. A cache.
        self._jobs: dict[tuple[Key, str], list[AcceptedJob]] = {}

    def begin(self, seen: Seen, record: RunRecord, found: Prepared) -> None:
        """Start the job of a run that was decided to start. If it can't be started after all, the run is refused."""
        own = found.checked if record.decided_by == self._runs.name else None
        try:
            self._jobs[seen.key, record.run] = [self._runs.begin(record, own)]
        except SpecError as error:
            self._end(seen, record, RunStatus.REFUSED, error=ErrorInfo(code=error.code, message=error.message))

    def follow(self, seen: Seen, record: RunRecord) -> None:
        """Go on with an open run, whatever kept it from going on before."""
        if record.outcome is not Outcome.STARTED:
            error = ErrorInfo(code=record.outcome, message=record.why) if record.why else None
            self._end(seen, record, RunStatus(record.outcome.value), error=error)
            return
        place = (seen.key, record.run)
        try:
            jobs = self._jobs.get(place) or [self._runs.begin(record)]
            self._jobs[place] = jobs
            while (end := self._end_of(jobs)) is not None:
                retry = self._retry(record, jobs) if end.status is RunStatus.FAILED else None
                if retry is None:
                    self._write(seen, record, end)
                    return
                jobs.append(retry)
        except (SpecError, Permanent) as error:
            status = RunStatus.REFUSED if isinstance(error, SpecError) else RunStatus.FAILED
            ids = [job.id for job in self._jobs.get(place, [])]
            self._end(seen, record, status, ids, ErrorInfo(code=error.code, message=error.message))
        except TooManyRequests as error:  # the retry waits, as another client's would
            event(_log, "run_waits", run=record.run, why=error.message)

    def _end_of(self, jobs: list[AcceptedJob]) -> RunEnd | None:
        """Return how the last of a run's jobs ended; None if it goes on. One that Redis has forgotten is entered."""
        runs, job = self._runs, jobs[-1]
        ids = tuple(one.id for one in jobs)
        progress = runs.state.jobs.progress(job.id)
        if progress is not None and not progress.status.final:
            return None
        try:
            manifest = runs.catalog.folder(job.output).read_manifest()
        except Damaged as error:
            info = ErrorInfo(code=error.code, message=error.message)
            return RunEnd(status=RunStatus.FAILED, jobs=ids, error=info, ended_at=runs.now())
        if manifest is not None:
            status = RunStatus(manifest.status.value)
            return RunEnd(status=status, jobs=ids, error=manifest.error, ended_at=_aware(manifest.ended_at))
        if progress is not None:
            return RunEnd(status=_status(progress.status), jobs=ids, error=progress.error, ended_at=runs.now())
        if runs.catalog.is_marked(job.id):
            info = ErrorInfo(code="no_manifest", message=f"job {job.id} ended without a manifest")
            return RunEnd(status=RunStatus.FAILED, jobs=ids, error=info, ended_at=runs.now())
        runs.enter(job)
        return None

    def _retry(self, record: RunRecord, jobs: list[AcceptedJob]) -> AcceptedJob | None:
        """Return a job that retries the last one, under way; None if the schedule has it retried no more.

        Its location is fixed, so that a retry that was begun is found again, by another supervisor too.
        """
        version = self._version(record)
        last = jobs[-1]
        if len(jobs) > version.schedule.retry_failed:
            return None
        manifest = self._runs.catalog.folder(last.output).read_manifest()
        if manifest is None or nothing_to_retry(manifest):
            return None
        settings = narrowed_to(version.rights, self._runs.settings)
        location = next(beside(last.output))
        if self._runs.catalog.folder(location).read_job() is None:
            self._runs.check_quota(version)
        try:
            accepted = accept_retry(last, location, self._runs.submitter(version), settings)
        except NotFinished:
            return None
        if accepted.is_new:
            event(_log, "run_retried", run=record.run, job=accepted.job.id, parent=last.id)
        if not accepted.ended:
            self._runs.enter(accepted.job, accepted.is_new)
        return accepted.job

    def _version(self, record: RunRecord) -> ScheduleVersion:
        return self._runs.store.version(Key(record.tenant, record.schedule), record.number)

    def _end(
        self,
        seen: Seen,
        record: RunRecord,
        status: RunStatus,
        jobs: list[str] | None = None,
        error: ErrorInfo | None = None,
    ) -> None:
        end = RunEnd(status=status, jobs=tuple(jobs or ()), error=error, ended_at=self._runs.now())
        self._write(seen, record, end)

    def _write(self, seen: Seen, record: RunRecord, end: RunEnd) -> None:
        """Write how a run ended, and have it told. If this process dies in between, `remind` makes up for it."""
        stands = self._runs.store.end(seen.key, record.run, end)
        self._jobs.pop((seen.key, record.run), None)
        seen.note_end(record.run, stands)
        if record.outcome is Outcome.STARTED:
            event(_log, "run_ended", run=record.run, status=stands.status, jobs=",".join(stands.jobs))
        if stands.status.is_told and self._version(record).schedule.notify is not None:
            self._tell(seen.key, record.run)

    def remind(self, seen: Seen) -> None:
        """Have the ends of the last runs told that weren't, as far as it is known: Redis may have been lost."""
        if seen.version.schedule.notify is None:
            return
        for run in seen.ended[-_REMINDED:]:
            end = self._runs.store.ended(seen.key, run)
            if end is not None and end.status.is_told and not self._runs.catalog.is_marked(notice_id(seen.key, run)):
                self._tell(seen.key, run)

    def _tell(self, key: Key, run: str) -> None:
        self._runs.state.webhooks.add(notice_id(key, run), self._runs.store.record_uri(key, run))


def _status(status: JobStatus) -> RunStatus:
    """Return how a job without a manifest ended. One that is said to have succeeded has no results."""
    return RunStatus.CANCELLED if status is JobStatus.CANCELLED else RunStatus.FAILED


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)

"""Who ends a job? The control process, by a manifest. A job ends in Redis and the catalog even if it can have none."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from jobs.control.build_manifest import build_manifest
from jobs.control.dataset_card import write_card
from jobs.control.patience import Patience, code_of, message_of
from jobs.logs import bound, event
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage.catalog import Catalog
from jobs.storage.latest import point_to
from jobs.webhooks.delivery import Notifier
from schemas.errors import AccessDenied, Damaged, NightshiftError, Permanent, ServiceUnavailable, Transient
from schemas.job import AcceptedJob
from schemas.manifest import ErrorInfo, JobStatus, Manifest

_log = logging.getLogger(__name__)
#: How often parts are looked for that were written: the first four times they may be not found yet.
_LOOKS = 5


def job_of(id: str, catalog: Catalog) -> AcceptedJob:
    """Return the job. Raise Damaged if the catalog doesn't have it any more."""
    accepted = catalog.job(id)
    if accepted is None:
        raise Damaged(
            f"the catalog at {catalog.uri} has no job {id}; restore its entry, or submit the job again at another "
            "location",
            code="job_gone",
        )
    return accepted


class Finisher:
    """Ends jobs. `name` is the process's own."""

    def __init__(self, settings: Settings, state: State, catalog: Catalog, name: str) -> None:
        self._settings = settings
        self._state = state
        self._catalog = catalog
        self._name = name
        self._patience = Patience(state, name)
        self._notifier = Notifier(settings, state, catalog)

    def finish(self, job: str, output: str) -> None:
        """Write the job's manifest if it has none, from what storage holds, and note the end."""
        with bound(job=job), self._alone(job) as progress:
            if progress is None:
                return
            try:
                folder = self._catalog.folder(output)
                manifest = folder.read_manifest() or self._write_manifest(progress)
                if manifest is not None and not self._is_latest_settled(manifest):
                    return
            except ServiceUnavailable:
                raise
            except Transient as error:  # the sweep asks for the end again
                event(_log, "finish_failed", logging.WARNING, error=error.message)
            except Exception as error:  # noqa: BLE001 (decided by class; a job always ends)
                self._failed(progress, error)
            else:
                if manifest is not None:
                    self._ended(job, output, manifest)

    @contextmanager
    def _alone(self, job: str) -> Iterator[Progress | None]:
        """Yield the progress of a job that this process alone may end now; None of any other job.

        Nor can the job's plan be written inside the block.
        """
        if self._due(job) is None:
            yield None
            return
        with self._state.locks.alone(f"finish:{job}", self._name, self._settings.lease_s) as is_alone:
            yield self._due(job) if is_alone else None

    def _due(self, job: str) -> Progress | None:
        progress = self._state.jobs.progress(job)
        return progress if progress is not None and progress.finishable else None

    def _write_manifest(self, progress: Progress) -> Manifest | None:
        """Write the job's manifest. Return None if Redis was lost while the parts were read: the job may go on."""
        job, failed = job_of(progress.job, self._catalog), self._state.jobs.failed_shards(progress.job)
        folder = self._catalog.folder_of(job)
        give_up = partial(self._is_over, progress.job, "parts", _LOOKS)
        made = build_manifest(job, progress, failed, folder, give_up)
        if self._due(progress.job) is None:
            return None
        if made.parts:
            write_card(job, folder, self._name)
        return folder.write_manifest(made, self._name)

    def _is_latest_settled(self, manifest: Manifest) -> bool:
        """Let the pointer to the newest results name those of a job that succeeded.

        Return False if it is to be tried again. What can't be written is logged: the results stand without it.
        """
        try:
            written = point_to(job_of(manifest.job, self._catalog), manifest, self._catalog.storage)
        except NightshiftError as error:
            may_try_again = isinstance(error, Transient | AccessDenied)
            if may_try_again and not self._is_over(manifest.job, "latest", self._settings.max_transient):
                event(_log, "latest_put_off", logging.WARNING, error=error.message)
                return False
            event(_log, "latest_not_written", logging.WARNING, error=error.message)
        else:
            if written:
                event(_log, "latest_written")
        return True

    def _is_over(self, job: str, what: str, most: int) -> bool:
        return self._patience.tries(job, what, most) is not None

    def _ended(self, job: str, output: str, manifest: Manifest) -> None:
        notify = self._wants_webhook(job)
        if notify:  # before the end is noted: until then the sweep has all of this done again
            self._state.webhooks.add(job, output)
        else:  # a job with a webhook is marked once that is settled
            self._mark_ended(job, output)
        self._state.jobs.finish(job, manifest.status)
        event(_log, "job_ended", status=manifest.status, rows=manifest.rows, error_rows=manifest.error_rows)
        if notify:
            self.notify(job, output)

    def _failed(self, progress: Progress, error: Exception) -> None:
        """End a job that can't have a manifest, unless the fault may pass: then the sweep asks for the end again."""
        if not isinstance(error, NightshiftError):
            _log.exception("unexpected_error")
        event(_log, "finish_failed", logging.ERROR, error=message_of(error))
        if isinstance(error, Damaged) or self._is_over(progress.job, "finish", self._settings.max_transient):
            self._end_without_manifest(progress, error)

    def _end_without_manifest(self, progress: Progress, error: Exception) -> None:
        status = JobStatus.CANCELLED if progress.status is JobStatus.CANCELLING else JobStatus.FAILED
        cause = progress.error
        before = f"{cause.message}. " if cause is not None else ""
        why = ErrorInfo(
            code=code_of(error) if cause is None else cause.code,
            message=f"{before}The job has no manifest: {message_of(error)}",
        )
        self._mark_ended(progress.job)
        self._state.jobs.finish(progress.job, status, why)
        event(_log, "job_ended", logging.ERROR, status=status, error=why.message)

    def _wants_webhook(self, job: str) -> bool:
        try:
            return job_of(job, self._catalog).spec.notify is not None
        except Permanent:  # a damaged entry names no URL
            return False
        except NightshiftError:  # the notifier finds out, once the catalog can be read
            return True

    def _mark_ended(self, job: str, output: str | None = None) -> None:
        """Mark the job in the catalog, with a digest of the manifest at the output."""
        try:
            self._catalog.mark_ended(job, None if output is None else self._catalog.folder(output))
        except NightshiftError as error:  # marked when Redis is rebuilt
            event(_log, "end_not_marked", logging.WARNING, error=error.message)

    def notify(self, job: str, output: str) -> None:
        """Start sending the job's webhook, unless it is settled, and return at once."""
        self._notifier.submit(job, output)

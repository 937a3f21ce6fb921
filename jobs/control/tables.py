"""How does control bring a job's parts into its table? After the manifest, until the table has them or refuses.

A store or a catalog that is away is waited out for as long as it takes: the results are final, and the job is ended by
a commit, a refusal or a cancel. Faults that no code foresaw count, and are a refusal in the end.
"""

import logging
from datetime import UTC, datetime

from jobs.control.job_of import job_of
from jobs.control.patience import Patience, message_of
from jobs.logs import event
from jobs.settings import Settings
from jobs.state import Progress, State
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder
from jobs.tables import commit_apart
from schemas.errors import AccessDenied, Permanent, Transient
from schemas.job import AcceptedJob
from schemas.manifest import TABLE_REFUSED, ErrorInfo, JobStatus, Manifest, TableRefusal
from schemas.table import TableCommit

_log = logging.getLogger(__name__)


class Tables:
    """Commits jobs that succeeded to their tables. `name` is the process's own."""

    def __init__(self, settings: Settings, state: State, catalog: Catalog, name: str) -> None:
        self._settings = settings
        self._state = state
        self._catalog = catalog
        self._name = name
        self._patience = Patience(state, name)

    def commit(self, progress: Progress, manifest: Manifest, folder: JobFolder) -> None:
        """Commit the parts of a job that has this manifest, unless that is known to be done. Leave a note of the end.

        There is no note if the commit is to be tried again: the sweep asks for it.
        """
        job = job_of(progress.job, self._catalog)
        table = job.spec.output.table
        if table is None or folder.table_notes.commit() is not None:
            return
        if progress.status is JobStatus.CANCELLING:
            self._refuse(job, folder, "the job was cancelled while its commit waited")
        if progress.status is JobStatus.CANCELLING or self._patience.rests(job.id, "table"):
            return
        try:
            version = commit_apart(job, self._settings.io_timeout_s)
        except Permanent as error:
            self._refuse(job, folder, error.message)
        except Exception as error:  # noqa: BLE001 (decided by class; what no code foresaw is counted)
            self._wait(job, folder, error)
        else:
            commit = TableCommit(
                job=job.id,
                table=table,
                version=version,
                parts=len(manifest.parts),
                rows=manifest.rows,
                committed_at=datetime.now(UTC),
            )
            folder.table_notes.write_commit(commit, self._name)
            event(_log, "table_committed", table=str(table), version=version, parts=commit.parts)

    def _wait(self, job: AcceptedJob, folder: JobFolder, error: Exception) -> None:
        """Have the commit tried again later, or refuse it if it failed too often for a reason that nobody knows."""
        message = message_of(error)
        event(_log, "table_not_committed", logging.WARNING, error=message)
        tries = self._patience.tries(job.id, "table", self._settings.max_transient)
        if tries is None or isinstance(error, Transient | AccessDenied):
            self._state.jobs.explain(job.id, ErrorInfo(code="table_waits", message=f"waits for its table: {message}"))
        else:
            self._refuse(job, folder, f"{message} (tried {tries} times)")

    def _refuse(self, job: AcceptedJob, folder: JobFolder, why: str) -> None:
        event(_log, "table_refused", logging.ERROR, error=why)
        way_out = f"The results are complete; to commit them once that is mended: nightshift resume {job.output}"
        error = ErrorInfo(code=TABLE_REFUSED, message=f"{why}. {way_out}")
        folder.table_notes.write_refusal(
            TableRefusal(job=job.id, error=error, refused_at=datetime.now(UTC)), self._name
        )

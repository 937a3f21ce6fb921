"""How is a job followed to its end? By its progress in Redis; if Redis doesn't know it, by its manifest."""

import logging
import time
from collections.abc import Callable, Iterator

from jobs.logs import event
from jobs.state import Progress, State
from jobs.storage.job_folder import JobFolder
from schemas.errors import Permanent, ServiceUnavailable, StateLost
from schemas.job import AcceptedJob
from schemas.manifest import Manifest

_log = logging.getLogger(__name__)

POLL_S = 0.25
#: How long Redis may be away, or not know the job, before following gives up.
PATIENCE_S = 60.0


def follow(
    job: AcceptedJob, state: State, folder: JobFolder, alive: Callable[[], None] = lambda: None
) -> Iterator[Progress | Manifest]:
    """Yield the job's progress a few times a second, and at last its manifest. `alive` may raise to end it.

    Raise Permanent if it ended and has no manifest, StateLost if Redis was emptied and not rebuilt in a minute,
    ServiceUnavailable if it is away for a minute.
    """
    unavailable_since: float | None = None
    unknown_since: float | None = None
    while True:
        alive()
        try:
            progress = state.jobs.progress(job.id)
            unavailable_since = None
        except ServiceUnavailable:
            if unavailable_since is None:
                unavailable_since = time.monotonic()
                event(_log, "redis_away", logging.WARNING, waiting_s=PATIENCE_S)
            if not _within_patience(unavailable_since):
                raise
            time.sleep(1)
            continue
        if progress is None or progress.status.final:
            manifest = folder.read_manifest()
            if manifest is None and progress is not None and progress.error is not None:
                raise Permanent(f"job {job.id} {progress.status}: {progress.error.message}", code=progress.error.code)
            if manifest is None and _within_patience(unknown_since := unknown_since or time.monotonic()):
                time.sleep(1)  # a worker that finds Redis emptied enters the job again
                continue
            if manifest is None:
                raise StateLost(
                    f"Redis no longer knows job {job.id}; nothing is lost: go on with nightshift resume {job.output}"
                )
            if progress is not None:
                yield progress
            yield manifest
            return
        unknown_since = None
        yield progress
        time.sleep(POLL_S)


def _within_patience(since: float) -> bool:
    return time.monotonic() - since <= PATIENCE_S

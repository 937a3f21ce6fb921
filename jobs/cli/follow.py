"""Watching a job: its progress from Redis, or what storage knows where Redis doesn't, until it ends."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jobs.logs import event
from jobs.state import Progress, State
from jobs.storage import Storage
from jobs.storage.job_folder import read_manifest
from schemas.errors import NightshiftError, ServiceUnavailable
from schemas.job import AcceptedJob
from schemas.manifest import Manifest

_log = logging.getLogger(__name__)

POLL_S = 0.25
#: How long Redis may be away, or not know the job, before watching gives up.
PATIENCE_S = 60.0


class StateLost(NightshiftError):
    """Redis has forgotten a job that has not ended."""

    code = "state_lost"


@dataclass(frozen=True)
class Rate:
    """Records a second since the first shard began, and the seconds left at that rate; None where unknown yet."""

    rows_per_s: float | None
    left_s: float | None


def rate_of(progress: Progress) -> Rate:
    rows = progress.rows_done + progress.rows_live - progress.rows_before
    elapsed = (progress.ended or progress.now) - progress.started if progress.started else 0.0
    if not rows or elapsed <= 0:
        return Rate(None, None)
    speed = rows / elapsed
    return Rate(speed, (progress.rows - progress.rows_before - rows) / speed)


def watch(
    job: AcceptedJob, state: State, storage: Storage, alive: Callable[[], None] = lambda: None
) -> Iterator[Progress | Manifest]:
    """The job's progress, a few times a second, and at last its manifest. `alive` may raise to end the watch.

    Raises StateLost where Redis was emptied and not rebuilt in a minute, ServiceUnavailable where it is away for one.
    """
    unavailable_since: float | None = None
    unknown_since: float | None = None
    while True:
        alive()
        try:
            progress = state.progress(job.id)
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
            manifest = read_manifest(job.output, storage)
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

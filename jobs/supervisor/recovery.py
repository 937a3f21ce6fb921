"""How is a lost Redis rebuilt? Every job of the catalog that has not ended is entered again, and goes on.

Read are the catalog's listings, and of each job that isn't marked as ended its entry, its file and whether it has a
manifest. The parts of a job are read when it is planned again.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from jobs.broker import Broker
from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.settings import Settings
from jobs.state import State
from jobs.storage.catalog import Catalog
from jobs.submission.accept import enqueue
from schemas.errors import Damaged, LinkRefused, NightshiftError, Transient
from schemas.job import AcceptedJob
from schemas.manifest import Manifest

_log = logging.getLogger(__name__)
#: Jobs that are read at once.
_READERS = 32


class Standing(StrEnum):
    """What the catalog and a job's files say of it.

    `entered` and `known` are jobs that have not ended; `untold` has ended, and its webhook may not have been sent.
    """

    UNFINISHED = "unfinished"
    ENTERED = "entered"
    KNOWN = "known"
    EMBEDDED = "embedded"
    ENDED = "ended"
    UNTOLD = "untold"
    NEVER_ACCEPTED = "never accepted"
    UNREADABLE = "unreadable"
    AWAY = "away"


@dataclass(frozen=True)
class Seen:
    """A job that isn't marked as ended. `why` says what is wrong if it can't be read, or not now.

    `cancelled` is one that was to be cancelled: Redis may have been lost before it was.
    """

    id: str
    output: str
    standing: Standing
    job: AcceptedJob | None = None
    why: str = ""
    cancelled: bool = False


def unfinished(catalog: Catalog) -> Iterator[Seen]:
    """Yield the jobs of the catalog that aren't marked as ended, oldest first.

    A job that has a manifest is marked now, unless its webhook must be sent first.
    """
    yield from parallel_map(partial(_read, catalog), catalog.not_marked(), _READERS)


def _read(catalog: Catalog, id: str) -> Seen:
    output = ""
    try:
        entry = catalog.find(id)
        if entry is None:
            return Seen(id, "", Standing.NEVER_ACCEPTED, why="its entry is gone")
        output = entry.output
        folder = catalog.folder(output)
        there = folder.read_job()
        if there is None:
            # Perhaps being accepted at this moment: not marked.
            return Seen(id, output, Standing.NEVER_ACCEPTED, why="it has no _job.json")
        if there.id != id:
            catalog.mark_ended(id)
            return Seen(id, output, Standing.NEVER_ACCEPTED, why=f"job {there.id} came first")
        job = entry.job or there
        if folder.has_ended(job):
            if job.spec.notify is not None and not entry.embedded:
                return Seen(id, output, Standing.UNTOLD, job)
            catalog.mark_ended(id, folder)
            return Seen(id, output, Standing.ENDED, job)
        standing = Standing.EMBEDDED if entry.embedded else Standing.UNFINISHED
        return Seen(id, output, standing, job, cancelled=catalog.is_cancelled(id))
    except (Damaged, LinkRefused) as error:
        return Seen(id, output, Standing.UNREADABLE, why=error.message)
    except NightshiftError as error:  # a store that refuses may be set right
        return Seen(id, output, Standing.AWAY, why=error.message)


def _manifest(catalog: Catalog, output: str) -> Manifest | None:
    try:
        return catalog.folder(output).read_manifest()
    except NightshiftError:  # reported when the job is read with the rest of the catalog
        return None


def _end_what_ended(state: State, catalog: Catalog) -> None:
    """End in Redis what has a manifest: a Redis restored from a snapshot may run a job that has ended since."""
    known = [progress for progress in map(state.jobs.progress, state.jobs.active()) if progress is not None]
    ends = parallel_map(partial(_manifest, catalog), [progress.output for progress in known], _READERS)
    for progress, manifest in zip(known, ends, strict=True):
        if manifest is not None:
            state.jobs.finish(progress.job, manifest.status)


def rebuild(state: State, broker: Broker, catalog: Catalog) -> Iterator[Seen]:
    """Enter every unfinished job of the catalog; yield each when it is done. A job that Redis knows goes on as it is.

    After the last one Redis counts as whole, unless a job's storage was away or Redis was emptied meanwhile. May run
    twice, or at once elsewhere. Raise ServiceUnavailable if Redis is away, Transient if the catalog is.
    """
    begun = state.epoch.begin()
    _end_what_ended(state, catalog)
    whole = True
    for seen in unfinished(catalog):
        if seen.standing is Standing.UNFINISHED and seen.job is not None:
            entered = enqueue(seen.job, state, broker)
            if seen.cancelled and state.jobs.cancel(seen.id):
                broker.finish_job(seen.id, seen.output)
            yield Seen(seen.id, seen.output, Standing.ENTERED if entered else Standing.KNOWN, seen.job)
        else:
            if seen.standing is Standing.UNTOLD:
                state.webhooks.add(seen.id, seen.output)
            whole = whole and seen.standing is not Standing.AWAY
            yield seen
    if whole:
        state.epoch.end(begun)


def rebuild_if_new(state: State, broker: Broker, catalog: Catalog, settings: Settings, name: str) -> None:
    """Rebuild a Redis that was emptied, restarted or replaced, unless another process does so.

    Raise Transient if the storage of a job is away: then it is to be done again.
    """
    if state.epoch.is_whole():
        return
    with state.locks.alone("rebuild", name, settings.lease_s) as is_alone:
        if not is_alone or state.epoch.is_whole():
            return
        counts: Counter[Standing] = Counter()
        for seen in rebuild(state, broker, catalog):
            counts[seen.standing] += 1
            if seen.why:
                event(_log, "job_not_rebuilt", logging.WARNING, job=seen.id, standing=seen.standing, why=seen.why)
        event(_log, "redis_rebuilt", **{standing.name.lower(): count for standing, count in counts.items()})
        if counts[Standing.AWAY]:
            raise Transient(f"the storage of {counts[Standing.AWAY]} jobs is away")

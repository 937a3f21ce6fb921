"""Redis rebuilt from the catalog: every job that has not ended is entered again, and goes on from what storage holds.

Reads the catalog's listings, and of each job that isn't marked as ended its pointer, its file and whether it has a
manifest. What a job has done is read when it is planned again.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from jobs.broker import Broker
from jobs.logs import event
from jobs.parallel_map import ahead
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import find_in_catalog, mark_ended, not_marked
from jobs.storage.job_folder import read_job, read_manifest
from jobs.submission.accept import enqueue
from schemas.errors import NightshiftError, NotFound, ServiceUnavailable, Transient
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST, child
from schemas.manifest import Manifest

_log = logging.getLogger(__name__)
#: Jobs that are looked at at once.
_READERS = 32


class Standing(StrEnum):
    """What the catalog and a job's files say of it. `entered` and `known` are of a job that has not ended, `untold` of
    one that has ended and whose webhook may not have been sent."""

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
    """A job that isn't marked as ended; `why` says what is wrong with one that can't be read (now)."""

    id: str
    output: str
    standing: Standing
    job: AcceptedJob | None = None
    why: str = ""


def unfinished(storage: Storage, catalog: str) -> Iterator[Seen]:
    """The jobs of the catalog that aren't marked as ended, oldest first. One that has a manifest gets its mark now,
    unless a webhook is to tell of it first."""
    yield from ahead(partial(_look, storage, catalog), not_marked(storage, catalog), _READERS)


def _look(storage: Storage, catalog: str, id: str) -> Seen:
    output = ""
    try:
        pointer = find_in_catalog(id, storage, catalog)
        if pointer is None:
            return Seen(id, "", Standing.NEVER_ACCEPTED, why="its pointer is gone")
        output = pointer.output
        job = read_job(output, storage)
        if job is None:
            # Perhaps being accepted at this moment: not marked.
            return Seen(id, output, Standing.NEVER_ACCEPTED, why="it has no _job.json")
        if job.id != id:
            mark_ended(id, storage, catalog)
            return Seen(id, output, Standing.NEVER_ACCEPTED, why=f"job {job.id} came first")
        if _has_manifest(output, storage):
            if job.spec.notify is not None and not pointer.embedded:
                return Seen(id, output, Standing.UNTOLD, job)
            mark_ended(id, storage, catalog)
            return Seen(id, output, Standing.ENDED, job)
        return Seen(id, output, Standing.EMBEDDED if pointer.embedded else Standing.UNFINISHED, job)
    except (Transient, ServiceUnavailable) as error:
        return Seen(id, output, Standing.AWAY, why=error.message)
    except NightshiftError as error:
        return Seen(id, output, Standing.UNREADABLE, why=error.message)


def _has_manifest(output: str, storage: Storage) -> bool:
    try:
        storage.stat(child(output, MANIFEST))
    except NotFound:
        return False
    return True


def _over(storage: Storage, output: str) -> Manifest | None:
    try:
        return read_manifest(output, storage)
    except NightshiftError:  # looked at with the rest of the catalog, where that says so
        return None


def _end_what_ended(state: State, storage: Storage) -> None:
    """End in Redis what has a manifest: one restored from a snapshot may run a job that has ended since."""
    known = [progress for progress in map(state.jobs.progress, state.jobs.active()) if progress is not None]
    ends = ahead(partial(_over, storage), [progress.output for progress in known], _READERS)
    for progress, manifest in zip(known, ends, strict=True):
        if manifest is not None:
            state.jobs.finish(progress.job, manifest.status)


def rebuild(state: State, broker: Broker, storage: Storage, settings: Settings) -> Iterator[Seen]:
    """Enter every unfinished job of the catalog; each as it is done with. One that Redis knows goes on as it is.

    Once all are through, Redis counts as whole, unless a job's storage was away or Redis was emptied meanwhile.
    May run twice, or at once elsewhere. Raises ServiceUnavailable where Redis is away, Transient where the catalog is.
    """
    begun = state.epoch.begin()
    _end_what_ended(state, storage)
    whole = True
    for seen in unfinished(storage, settings.catalog_uri):
        if seen.standing is Standing.UNFINISHED and seen.job is not None:
            entered = enqueue(seen.job, state, broker)
            yield Seen(seen.id, seen.output, Standing.ENTERED if entered else Standing.KNOWN, seen.job)
        else:
            if seen.standing is Standing.UNTOLD:
                state.webhooks.add(seen.id, seen.output)
            whole = whole and seen.standing is not Standing.AWAY
            yield seen
    if whole:
        state.epoch.end(begun)


def rebuild_if_new(state: State, broker: Broker, storage: Storage, settings: Settings, name: str) -> None:
    """Rebuild a Redis that was emptied, restarted or replaced, where nobody else is at it.

    Raises Transient where the storage of a job is away: then it is to be done again.
    """
    if state.epoch.is_whole():
        return
    with state.locks.alone("rebuild", name, settings.lease_s) as is_alone:
        if not is_alone or state.epoch.is_whole():
            return
        counts: Counter[Standing] = Counter()
        for seen in rebuild(state, broker, storage, settings):
            counts[seen.standing] += 1
            if seen.why:
                event(_log, "job_not_rebuilt", logging.WARNING, job=seen.id, standing=seen.standing, why=seen.why)
        event(_log, "redis_rebuilt", **{standing.name.lower(): count for standing, count in counts.items()})
        if counts[Standing.AWAY]:
            raise Transient(f"the storage of {counts[Standing.AWAY]} jobs is away")

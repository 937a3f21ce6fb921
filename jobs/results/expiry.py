"""Which jobs have expired, and how are they removed? Their outputs and what the catalog has of them; nothing else.

A job is only removed if it has ended, is of the tenant that was named, and neither a retry that stays, a pointer to the
newest results nor a table needs it. A removal that was interrupted is gone on with the next time: the catalog keeps its
note until all else is gone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from jobs.parallel_map import parallel_map
from jobs.storage import ObjectInfo
from jobs.storage.catalog import Catalog
from jobs.storage.job_folder import JobFolder, read_report
from jobs.storage.latest import read_latest
from schemas.errors import AccessDenied, Damaged, NotFound, Permanent
from schemas.job import AcceptedJob
from schemas.layout import CARD, JOB, MANIFEST, PLAN, TABLE, TABLE_REFUSALS, shard_of
from schemas.manifest import JobStatus, Part

#: Jobs that are looked at, and objects that are removed, at once.
_THREADS = 16


@dataclass(frozen=True)
class Policy:
    """Which ended jobs expire: those to which all of this applies. None doesn't ask.

    `keep_latest` keeps so many of the newest that succeeded of each series: the runs of one schedule, or jobs of one
    task, model and labels.
    """

    tenant: str = ""
    older_than: timedelta | None = None
    statuses: frozenset[JobStatus] = frozenset()
    keep_latest: int | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ended:
    """A job that has ended. One without a manifest ended as failed, when its job was accepted as far as is known."""

    job: AcceptedJob
    status: JobStatus
    at: datetime
    rows: int = 0
    bytes: int = 0
    is_in_table: bool = False

    @property
    def series(self) -> tuple[object, ...]:
        spec, run = self.job.spec, self.job.run
        if run is not None:  # whose labels say the time
            return (run.schedule,)
        return spec.task, spec.model, tuple(sorted(spec.labels.items()))


@dataclass(frozen=True)
class Kept:
    """A job that would have expired, and the reason why it stays."""

    job: AcceptedJob
    why: str


def ended_jobs(catalog: Catalog, tenant: str) -> Iterator[Ended]:
    """Yield the jobs of a tenant that have ended, oldest first; of the jobs without a tenant for an empty name."""
    found = parallel_map(lambda id: _ended(catalog, id, tenant), catalog.ids(tenant or None), _THREADS)
    return (one for one in found if one is not None)


def _ended(catalog: Catalog, id: str, tenant: str) -> Ended | None:
    """Return a job if it has ended; None if not, if it is another tenant's, or if that can't be told."""
    try:
        job = catalog.job(id) if catalog.is_marked(id) else None
        if job is None or job.tenant != tenant:
            return None
        folder = catalog.folder_of(job)
        there = folder.read_job()
        manifest = folder.read_manifest() if there is not None and there.id == id else None
    except (Damaged, AccessDenied):
        return None
    if manifest is None or manifest.job != id:
        return Ended(job, JobStatus.FAILED, job.accepted_at)
    size = sum(part.bytes for part in manifest.parts)
    return Ended(job, manifest.status, manifest.ended_at, manifest.rows, size, manifest.table_version is not None)


def expired(ended: Iterable[Ended], policy: Policy, now: datetime, catalog: Catalog) -> tuple[list[Ended], list[Kept]]:
    """Return the jobs to remove, and those that stay although the policy would have them removed.

    A retry is listed before the job that it retries.
    """
    jobs = list(ended)
    chosen = {one.job.id: one for one in jobs if _applies(one, policy, now)}
    for id in _newest(jobs, policy):
        chosen.pop(id, None)
    kept: list[Kept] = []
    pointers: dict[str, str | None] = {}
    for one in list(chosen.values()):
        latest = one.job.spec.output.latest
        if latest is not None and latest not in pointers:
            pointers[latest] = _pointed_at(latest, catalog)
        if latest is not None and pointers[latest] == one.job.id:
            kept.append(Kept(one.job, f"{latest} names it"))
            del chosen[one.job.id]
        elif one.is_in_table:
            kept.append(Kept(one.job, "its parts are files of its table: expire the rows there"))
            del chosen[one.job.id]
    removed: list[Ended] = []
    for one in sorted(chosen.values(), key=lambda one: one.job.id, reverse=True):  # a retry is younger than its parent
        needed = [retry.id for retry in catalog.retries_of(one.job.id) if retry.id not in {r.job.id for r in removed}]
        needed = [id for id in needed if catalog.find(id) is not None]
        if needed:
            kept.append(Kept(one.job, f"its retry {needed[0]} stays"))
        else:
            removed.append(one)
    return removed, kept


def _applies(one: Ended, policy: Policy, now: datetime) -> bool:
    old = policy.older_than is None or now - one.at > policy.older_than
    status = not policy.statuses or one.status in policy.statuses
    return old and status and all(one.job.spec.labels.get(name) == value for name, value in policy.labels)


def _newest(jobs: list[Ended], policy: Policy) -> set[str]:
    """Return the jobs that `keep_latest` keeps."""
    if policy.keep_latest is None:
        return set()
    series: dict[object, list[Ended]] = {}
    for one in jobs:
        if one.status is JobStatus.SUCCEEDED:
            series.setdefault(one.series, []).append(one)
    newest = (
        sorted(found, key=lambda one: (one.job.accepted_at, one.job.id))[-policy.keep_latest :]
        for found in series.values()
    )
    return {one.job.id for found in newest for one in found if policy.keep_latest}


def _pointed_at(latest: str, catalog: Catalog) -> str | None:
    try:
        return read_latest(latest, catalog.storage).job
    except (NotFound, Damaged):
        return None


def remove(job: AcceptedJob, catalog: Catalog) -> list[str]:
    """Remove a job: its objects, then what the catalog has of it. Return what else lies at its output, which stays.

    Raise AccessDenied or Transient; then it may be removed again.
    """
    catalog.mark_removed(job.id)
    folder = catalog.folder_of(job)
    there = folder.read_job()
    left: list[str] = []
    # Otherwise another job has the location, or a removal was interrupted after the job's file was gone.
    if there is not None and there.id == job.id:
        objects = list(folder.storage.list(folder.uri("")))
        named = {folder.part_uri(part.name) for part in _parts(folder, job)}
        # The file by which the rest is found last.
        own = [folder.uri(name) for name in (CARD, PLAN, TABLE, MANIFEST, JOB)]
        refusals = folder.uri(TABLE_REFUSALS)
        doomed = [
            info
            for info in objects
            if info.uri not in own
            and (info.uri in named or info.uri.startswith(refusals) or _is_part(info, job, folder))
        ]
        for _ in parallel_map(lambda info: folder.storage.delete(info.uri), doomed, _THREADS):
            pass
        gone = {*own, *(info.uri for info in doomed)}
        left = [info.uri for info in objects if info.uri not in gone]
        for uri in own:
            folder.storage.delete(uri)
    catalog.remove(job)
    return left


def _parts(folder: JobFolder, job: AcceptedJob) -> list[Part]:
    try:
        manifest = folder.read_manifest()
    except Damaged:
        return []
    return manifest.parts if manifest is not None and manifest.job == job.id else []


def _is_part(info: ObjectInfo, job: AcceptedJob, folder: JobFolder) -> bool:
    """Return whether an object is a part of this job that its manifest doesn't name."""
    if shard_of(info.uri.removeprefix(folder.part_uri(""))) is None:
        return False
    try:
        return read_report(info, folder.storage).job == job.id
    except Permanent:
        return False

"""How does a spec become a job? It is made durable in storage, then entered in Redis to be planned.

Written in this order: the idempotency key if there is one, the catalog's entry, `_job.json`, Redis. Only then is the
submission answered. The job that runs is the catalog's: `_job.json` lies where others may write, and says no more than
which job has the location.
"""

import getpass
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from jobs.broker import Broker
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import BoundKey, Catalog
from jobs.storage.job_folder import JobFolder
from jobs.submission.resolve_model import model_source
from schemas import __version__
from schemas.errors import Permanent, SpecError
from schemas.job import AcceptedJob, JobSpec, Parent, ResolvedModel, RunOf
from schemas.layout import Layout
from schemas.manifest import Manifest

#: The letters of an id, in the order that they sort in. Those that look like others are left out.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


class Found(Enum):
    """What was at the output location when a spec was accepted."""

    NOTHING = "nothing"
    UNFINISHED = "unfinished"
    ENDED = "ended"


@dataclass(frozen=True)
class Accepted:
    """The job of a spec: a new one, or the one of the same spec that had the output location already."""

    job: AcceptedJob
    found: Found
    manifest: Manifest | None

    @property
    def ended(self) -> bool:
        return self.found is Found.ENDED

    @property
    def is_new(self) -> bool:
        return self.found is Found.NOTHING


@dataclass(frozen=True)
class Submitter:
    """Accepts jobs: for the command line, or for a tenant of the API.

    `embedded` says that the jobs run on a Redis of this process alone, and that its user's rights are all they have.
    `sees` tells whether a tenant's jobs exist for the submitter.
    """

    catalog: Catalog
    embedded: bool
    tenant: str = ""
    sees: Callable[[str], bool] = lambda tenant: True

    def accept(self, spec: JobSpec, new: Callable[[], AcceptedJob], key: str | None = None) -> Accepted:
        """Return the job of a spec, durable: the one that the key is bound to, the one that is there, or a new one.

        `new` is called only if a new job is needed. It validates the spec, and may refuse it. Raise SpecError if the
        key was sent with another spec, and as `find` and `create` do.
        """
        bound = None if key is None else self.catalog.key(self.tenant, key)
        job: AcceptedJob | None = None
        if bound is None:
            found = self.find(spec)
            if key is None:
                return self.create(new()) if found is None else found
            job = new() if found is None else found.job
            bound = self.catalog.bind_key(self.tenant, key, BoundKey.of(spec, job.id))
        if not bound.is_for(spec):
            raise SpecError.of("Idempotency-Key", "this key was sent with another spec before; use a new one")
        there = self.catalog.job(bound.job_id)
        if there is not None and self._has_location(there):
            return found_job(there, self.catalog.storage)
        # Nothing, or not all of it, was written: by a request that came first, or whose server died.
        job = there or bound.job or (job or new()).model_copy(update={"id": bound.job_id})
        return self.create(job)

    def find(self, spec: JobSpec) -> Accepted | None:
        """Return the job that has the spec's output location, if it asks for the same; None if the location is empty.

        The spec need not be valid: a job that is done is found even if its input or model is gone. Raise SpecError if
        another job's results, or foreign data, lie there.
        """
        there = self.occupant(spec)
        return None if there is None else self._same(there, spec)

    def occupant(self, spec: JobSpec) -> AcceptedJob | None:
        """Return the job that has the spec's output location; None if the location is empty.

        Raise SpecError if foreign data lie there, or a job that can't be used.
        """
        there = self._job_at(spec)
        if there is not None:
            return there
        foreign = self.catalog.folder(spec.output.uri).any_object()
        if foreign is None:
            return None
        there = self._job_at(spec)  # written between the two looks, it may be
        if there is None:
            raise self._taken(spec, f"is not empty: it holds {foreign.uri!r}")
        return there

    def _job_at(self, spec: JobSpec) -> AcceptedJob | None:
        """Return the job that has the spec's output location; None if no job has it.

        A job of another catalog can be gone on with in an embedded run of the same spec: nothing else of its file
        counts. Otherwise raise SpecError for it.
        """
        folder = self.catalog.folder(spec.output.uri)
        try:
            return self.catalog.job_at(spec.output.uri)
        except Permanent as error:
            there = folder.read_job() if self.embedded and error.code == "unknown_job" else None
            if there is None or not _asks_the_same(there, spec):
                raise self._taken(spec, f"holds a job file that can't be used ({error.message})") from None
        adopted = there.model_copy(update={"spec": spec, "allowed_inputs": None})
        return self.catalog.add(adopted, self.embedded)

    def create(self, job: AcceptedJob) -> Accepted:
        """Write a new job. Return the job of the same spec that has the location, if that came first.

        Raise SpecError if a job of another spec came first, or the store can't create objects conditionally.
        """
        there = self.write(job)
        return Accepted(there, Found.NOTHING, None) if there.id == job.id else self._same(there, job.spec)

    def write(self, job: AcceptedJob) -> AcceptedJob:
        """Write the catalog's entry and `_job.json`: from here on the job exists, whatever happens to Redis.

        Return the job that has the location: another one if that came first. Raise SpecError if the store can't create
        objects conditionally.
        """
        folder = self.catalog.folder(job.output)
        job = self.catalog.add(job, self.embedded)
        if folder.write_job(job).id != job.id:
            return self._job_at(job.spec) or job
        try:
            check_store(job, folder)
        except SpecError:
            self.catalog.mark_ended(job.id)  # so that it isn't run when Redis is rebuilt
            raise
        return job

    def _has_location(self, job: AcceptedJob) -> bool:
        there = self.catalog.folder(job.output).read_job()
        return there is not None and there.id == job.id

    def _taken(self, spec: JobSpec, why: str) -> SpecError:
        """Return the refusal of a location. A tenant isn't told what lies there: it may be another's."""
        why = "is not empty" if self.tenant else why
        return SpecError.of("output.uri", f"{spec.output.uri!r} {why}; name another location")

    def _same(self, there: AcceptedJob, spec: JobSpec) -> Accepted:
        if not self.sees(there.tenant):
            raise self._taken(spec, "is not empty")
        if there.parent is not None:
            raise SpecError.of(
                "output.uri",
                f"{there.output!r} belongs to job {there.id}, which retries job {there.parent.job}; name another "
                f"location, or go on with it: nightshift resume {there.output}",
            )
        if there.fingerprint != spec.fingerprint():
            raise SpecError.of(
                "output.uri",
                f"{there.output!r} belongs to job {there.id}, which has another spec "
                f"({_differences(there.spec, spec)}); name another location",
            )
        return found_job(there, self.catalog.storage)


def found_job(job: AcceptedJob, storage: Storage) -> Accepted:
    """Return a job that is in storage already, with its manifest if it has ended.

    Raise SpecError if it hasn't, and was refused for its store.
    """
    folder = JobFolder.of(job, storage)
    manifest = folder.read_manifest()
    if manifest is not None and manifest.is_refused:
        manifest = None  # what is missing is the commit
    if manifest is None:
        check_store(job, folder)
    return Accepted(job, Found.UNFINISHED if manifest is None else Found.ENDED, manifest)


def check_store(job: AcceptedJob, folder: JobFolder) -> None:
    """Raise SpecError if the store of the job's output can't create objects conditionally: two parts might mix."""
    if not folder.refuses_overwrite():
        raise SpecError.of(
            "output.uri",
            f"the store of {job.output!r} overwrites objects in spite of If-None-Match, which commits rely on; use a "
            "store that honours conditional writes, for uploads in pieces too",
        )


def new_job(
    spec: JobSpec,
    model: ResolvedModel,
    parent: Parent | None = None,
    accepted_by: str | None = None,
    allowed_inputs: tuple[str, ...] | None = None,
    max_priority: int | None = None,
    layout: Layout = Layout.DATA,
    run: RunOf | None = None,
) -> AcceptedJob:
    """Return a new job of a validated spec. It is written nowhere yet."""
    return AcceptedJob(
        id=new_job_id(),
        spec=spec,
        fingerprint=spec.fingerprint(),
        model=model,
        accepted_at=datetime.now(UTC),
        accepted_by=user_name() if accepted_by is None else accepted_by,
        version=__version__,
        parent=parent,
        allowed_inputs=allowed_inputs,
        max_priority=max_priority,
        layout=layout,
        run=run,
    )


def _asks_the_same(there: AcceptedJob, spec: JobSpec) -> bool:
    """Return whether a job file, which anyone may have written, is one that the spec could have made."""
    same_model = (there.model.kind, there.model.source) == model_source(spec.model)
    return same_model and there.parent is None and there.spec.fingerprint() == spec.fingerprint()


def _differences(there: JobSpec, here: JobSpec) -> str:
    ours, theirs = _flat(here.model_dump(mode="json")), _flat(there.model_dump(mode="json"))
    names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    return "; ".join(f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} here" for name in names)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def enqueue(job: AcceptedJob, state: State, broker: Broker, is_new: bool = False) -> bool:
    """Enter an accepted job in Redis and ask for its plan. Return False if Redis knows it: it goes on as it is.

    `is_new` says that no worker can have had a shard of it: it was accepted just now.
    """
    spec = job.spec
    accepted = job.accepted_at.timestamp()
    entered = state.jobs.add(
        job.id, spec.task, job.output, spec.priority, accepted, job.tenant, job.model_key, job.reach, is_new
    )
    if not entered:
        return False
    broker.plan_job(job.id, job.output)
    return True


def user_name() -> str:
    """Return the login name of this process's user; the number if there is no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def new_job_id() -> str:
    """Return an id such as `20261120-031500-k3v9x2`. Ids sort by time.

    Two of the six letters are the part of the second, about a millisecond; four are chance.
    """
    now = datetime.now(UTC)
    part = now.microsecond * len(_LETTERS) ** 2 // 1_000_000
    time = _LETTERS[part // len(_LETTERS)] + _LETTERS[part % len(_LETTERS)]
    return f"{now:%Y%m%d-%H%M%S}-{time}{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def job_id_of(at: datetime, digest: bytes) -> str:
    """Return an id like those of `new_job_id`, all of its letters from a digest: equal ones give the same id."""
    number = int.from_bytes(digest[:8], "big")
    letters = "".join(_LETTERS[number >> 5 * place & 31] for place in range(6))
    return f"{at.astimezone(UTC):%Y%m%d-%H%M%S}-{letters}"

"""Submission: from a spec to an accepted job, durable in storage, and entered in Redis to be planned."""

import getpass
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from jobs.broker import Broker
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.catalog import add_to_catalog
from jobs.storage.job_folder import read_job, read_manifest, write_job
from jobs.submission.validate import Validated
from schemas import __version__
from schemas.errors import SpecError
from schemas.job import AcceptedJob, JobSpec, Parent, ResolvedModel
from schemas.layout import JOB, child
from schemas.manifest import Manifest

#: Of an id: in the order that they sort in, without those that are taken for others.
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


class Found(Enum):
    """What stood at the output location when a spec was accepted."""

    NOTHING = "nothing"
    UNFINISHED = "unfinished"
    ENDED = "ended"


@dataclass(frozen=True)
class Accepted:
    """The job of a spec: a new one, or the one of the same spec that has the output location already."""

    job: AcceptedJob
    found: Found
    manifest: Manifest | None


def check_output(spec: JobSpec, storage: Storage, sees: Callable[[str], bool] = lambda tenant: True) -> Accepted | None:
    """The job that has the spec's output location, if it asks for the same. Needs no validated spec, so that a job
    that is done is found done even where its input or model is gone.

    Raises SpecError where another job's results, or foreign data, lie there; who doesn't see the jobs of their tenant
    isn't told whose.
    """
    output = spec.output.uri
    there = read_job(output, storage)
    if there is not None and not sees(there.tenant):
        raise SpecError.of("output.uri", f"{output!r} is not empty; name another location")
    if there is not None:
        return _same(there, spec, storage)
    foreign = next(iter(storage.list(output)), None)
    if foreign is not None:
        raise SpecError.of("output.uri", f"{output!r} is not empty: it holds {foreign.uri!r}; name another location")
    return None


def accept(validated: Validated, storage: Storage, settings: Settings) -> Accepted:
    """Write the catalog's pointer and `_job.json`: from here on the job exists, whatever happens to Redis.

    Raises SpecError where another job came first, or where the store can't create objects conditionally.
    """
    job = accepted_job(validated)
    there = write_accepted(job, storage, settings)
    if there.id != job.id:
        return _same(there, validated.spec, storage)
    return Accepted(job, Found.NOTHING, None)


def write_accepted(job: AcceptedJob, storage: Storage, settings: Settings) -> AcceptedJob:
    """Write the catalog's pointer and `_job.json`; the job that has the location: another one where that came first.

    Raises SpecError where the store can't create objects conditionally.
    """
    add_to_catalog(job, storage, settings.catalog_uri, embedded=settings.redis_url is None)
    there = write_job(job, storage)
    if there.id == job.id and not storage.refuses_overwrite(child(job.output, JOB)):
        raise SpecError.of(
            "output.uri",
            f"the store of {job.output!r} overwrites objects in spite of If-None-Match, which commits rely on; use a "
            "store that honours conditional writes",
        )
    return there


def accepted_job(validated: Validated) -> AcceptedJob:
    """A new job of this spec, written nowhere yet."""
    return new_job(validated.spec, validated.model)


def new_job(
    spec: JobSpec,
    model: ResolvedModel,
    parent: Parent | None = None,
    allowed_inputs: tuple[str, ...] | None = None,
) -> AcceptedJob:
    return AcceptedJob(
        id=new_job_id(),
        spec=spec,
        fingerprint=spec.fingerprint(),
        model=model,
        accepted_at=datetime.now(UTC),
        accepted_by=_user(),
        version=__version__,
        parent=parent,
        allowed_inputs=allowed_inputs,
    )


def _same(there: AcceptedJob, spec: JobSpec, storage: Storage) -> Accepted:
    if there.parent is not None:
        raise SpecError.of(
            "output.uri",
            f"{there.output!r} belongs to job {there.id}, which retries job {there.parent.job}; name another location, "
            f"or go on with it: nightshift resume {there.output}",
        )
    if there.fingerprint != spec.fingerprint():
        raise SpecError.of(
            "output.uri",
            f"{there.output!r} belongs to job {there.id}, which has another spec ({_differences(there.spec, spec)}); "
            "name another location",
        )
    return found_job(there, storage)


def found_job(job: AcceptedJob, storage: Storage) -> Accepted:
    """A job that stands in storage already."""
    manifest = read_manifest(job.output, storage)
    return Accepted(job, Found.UNFINISHED if manifest is None else Found.ENDED, manifest)


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


def enqueue(job: AcceptedJob, state: State, broker: Broker) -> bool:
    """Enter an accepted job in Redis and ask for its plan. False where it is known there: it goes on as it is."""
    spec = job.spec
    accepted = job.accepted_at.timestamp()
    if not state.jobs.add(job.id, spec.task, job.output, spec.priority, accepted, job.tenant, job.model_key):
        return False
    broker.plan_job(job.id, job.output)
    return True


def _user() -> str:
    """Who accepted the job: a login name, or a number where the user has none, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def new_job_id() -> str:
    """An id that sorts by time, two of its letters by the millisecond, four are chance: `20261120-031500-k3v9x2`."""
    now = datetime.now(UTC)
    part = now.microsecond * len(_LETTERS) ** 2 // 1_000_000
    time = _LETTERS[part // len(_LETTERS)] + _LETTERS[part % len(_LETTERS)]
    return f"{now:%Y%m%d-%H%M%S}-{time}{''.join(secrets.choice(_LETTERS) for _ in range(4))}"

"""Idempotency keys: one submission, however often it is sent, from however many threads, to however many servers.

`<catalog>/keys/<hash of tenant and key>.json` is created once, before the job's own files, and holds the whole job: who
comes second, or comes back after a server died in between, writes that very job, which is created once itself.
"""

import hashlib
import json

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.storage import Storage
from schemas.errors import AlreadyExists, NotFound, Permanent
from schemas.job import AcceptedJob, JobSpec
from schemas.layout import child


class Kept(BaseModel):
    """What a key stands for: the job, and a hash of what was asked for."""

    model_config = ConfigDict(frozen=True)

    asked: str
    job: AcceptedJob


def asked_for(spec: JobSpec) -> str:
    """A hash of the whole spec, what doesn't decide its results included."""
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def kept(tenant: str, key: str, storage: Storage, catalog: str) -> Kept | None:
    """What this tenant's key stands for; None where it was never used."""
    uri = _uri(tenant, key, catalog)
    try:
        return Kept.model_validate_json(storage.read(uri))
    except NotFound:
        return None
    except ValidationError as error:
        raise Permanent(f"{uri} is damaged: {error}", code="bad_key") from None


def keep(tenant: str, key: str, value: Kept, storage: Storage, catalog: str) -> Kept:
    """Let the key stand for this; what it does stand for, which is another job where that came first."""
    try:
        storage.create(_uri(tenant, key, catalog), value.model_dump_json().encode(), owner=value.job.id)
    except AlreadyExists:
        there = kept(tenant, key, storage, catalog)
        if there is None:
            raise
        return there
    return value


def _uri(tenant: str, key: str, catalog: str) -> str:
    name = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
    return child(catalog, f"keys/{name}.json")

"""Which jobs are there, and where are their files? The catalog says so with Redis gone. Its objects are written once.

jobs/<id>.json                a pointer to the job's output
ended/<id>.json               written once the job has ended and its webhook is settled; then recovery skips the job
retries/<parent>/<id>.json    a pointer to a retry, under the id of the job that it retries
tenants/<tenant>/<id>.json    a pointer to a tenant's job, so that their list is read without those of others
keys/<hash>.json              an idempotency key of a tenant, with the whole job that it is bound to
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from schemas.errors import AlreadyExists, NotFound, Permanent
from schemas.job import AcceptedJob, JobSpec
from schemas.layout import child

#: A job's id, as `jobs.submission.accept.new_job_id` makes it.
JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-z]{6}")


class Pointer(BaseModel):
    """The output location of a job. `embedded` means that a command ran the job itself, on a Redis of its own."""

    model_config = ConfigDict(frozen=True)

    id: str
    output: str
    embedded: bool = False


class BoundKey(BaseModel):
    """The job that an idempotency key is bound to, and a hash of the spec that was sent with the key."""

    model_config = ConfigDict(frozen=True)

    asked: str
    job: AcceptedJob

    @classmethod
    def of(cls, spec: JobSpec, job: AcceptedJob) -> "BoundKey":
        return cls(asked=_hash(spec), job=job)

    def is_for(self, spec: JobSpec) -> bool:
        """Return whether the key was sent with this very spec, parts that don't decide its results included."""
        return self.asked == _hash(spec)


@dataclass(frozen=True)
class Catalog:
    """The catalog at `uri`."""

    uri: str
    storage: Storage

    def folder(self, output: str) -> JobFolder:
        """Return the objects of the job at this output location."""
        return JobFolder(output, self.storage)

    def check(self) -> None:
        """Raise NotFound, AccessDenied or Transient if the catalog can't be read."""
        next(iter(self.storage.list(self._uri("jobs/"))), None)

    def add(self, job: AcceptedJob, embedded: bool) -> None:
        """Write the job's pointers. Those that this job has already are left as they are."""
        pointer = Pointer(id=job.id, output=job.output, embedded=embedded)
        names = [f"jobs/{job.id}.json"]
        names += [f"retries/{job.parent.job}/{job.id}.json"] if job.parent is not None else []
        names += [f"{_tenant_folder(job.tenant)}{job.id}.json"] if job.tenant else []
        for name in names:
            uri = self._uri(name)
            try:
                self.storage.create(uri, pointer.model_dump_json().encode(), owner=job.id)
            except AlreadyExists:
                if self._pointer(uri) != pointer:
                    raise

    def find(self, id: str) -> Pointer | None:
        """Return the pointer to a job; None if the catalog has no such job."""
        try:
            return self._pointer(self._uri(f"jobs/{id}.json"))
        except NotFound:
            return None

    def retries_of(self, job: str) -> list[Pointer]:
        """Return the retries of a job, oldest first."""
        return [self._pointer(info.uri) for info in self.storage.list(self._uri(f"retries/{job}/"))]

    def ids(self, tenant: str | None = None, start: str = "") -> Iterator[str]:
        """Yield the ids of all jobs, or of one tenant's, that begin with `start`. They come in order."""
        folder = "jobs/" if tenant is None else _tenant_folder(tenant)
        for name in self._names(folder, start):
            id = name.removesuffix(".json")
            if JOB_ID.fullmatch(id):
                yield id

    def mark_ended(self, id: str) -> None:
        """Note that a job has ended. A second note changes nothing."""
        with suppress(AlreadyExists):
            self.storage.create(self._uri(f"ended/{id}.json"), b"{}", owner=id)

    def is_marked(self, id: str) -> bool:
        """Return whether `mark_ended` was called for the job."""
        try:
            self.storage.stat(self._uri(f"ended/{id}.json"))
        except NotFound:
            return False
        return True

    def not_marked(self) -> Iterator[str]:
        """Yield the ids of the jobs that may not have ended, oldest first.

        Both listings are read side by side, in bounded memory.
        """
        ended = self._names("ended/")
        mark = next(ended, None)
        for name in self._names("jobs/"):
            while mark is not None and mark < name:
                mark = next(ended, None)
            if mark != name:
                yield name.removesuffix(".json")

    def key(self, tenant: str, key: str) -> BoundKey | None:
        """Return what a tenant's idempotency key is bound to; None if it was never used."""
        uri = self._key_uri(tenant, key)
        try:
            return BoundKey.model_validate_json(self.storage.read(uri))
        except NotFound:
            return None
        except ValidationError as error:
            raise Permanent(f"{uri} is damaged: {error}", code="bad_key") from None

    def bind_key(self, tenant: str, key: str, bound: BoundKey) -> BoundKey:
        """Bind the key to this job. Return the job already bound if another request won the race.

        The key is bound before the job's own files are written, and holds the whole job. So a request that comes
        second, or comes back after its server died in between, writes that very job.
        """
        try:
            self.storage.create(self._key_uri(tenant, key), bound.model_dump_json().encode(), owner=bound.job.id)
        except AlreadyExists:
            there = self.key(tenant, key)
            if there is None:
                raise
            return there
        return bound

    def _uri(self, name: str) -> str:
        return child(self.uri, name)

    def _key_uri(self, tenant: str, key: str) -> str:
        name = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
        return self._uri(f"keys/{name}.json")

    def _names(self, folder: str, start: str = "") -> Iterator[str]:
        prefix = self._uri(folder)
        names = (info.uri.removeprefix(prefix) for info in self.storage.list(prefix + start))
        return (name for name in names if name.endswith(".json"))

    def _pointer(self, uri: str) -> Pointer:
        try:
            return Pointer.model_validate_json(self.storage.read(uri))
        except ValidationError as error:
            raise Permanent(f"{uri} is no pointer to a job: {error}", code="bad_pointer") from None


def _tenant_folder(tenant: str) -> str:
    """Return the folder of a tenant's jobs. A label may hold any text, and a name in a store may not."""
    return f"tenants/{quote(tenant, safe='').replace('.', '%2E')}/"


def _hash(spec: JobSpec) -> str:
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

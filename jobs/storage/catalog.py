"""Which jobs are there, and what was accepted? The catalog says so with Redis gone. Its objects are written once.

Tenants can write to the outputs of their jobs, and not to the catalog. So what runs is what stands here: `_job.json` in
an output is for people and other programs to read, and says which job has the location.

jobs/<id>.json                the whole job as it was accepted
ended/<id>.json               written once the job has ended and its webhook is settled; then recovery skips the job
cancelled/<id>.json           written before Redis is told of a cancel; if Redis is lost, recovery cancels the job
retries/<parent>/<id>.json    a pointer to a retry, under the id of the job that it retries
tenants/<tenant>/<id>.json    a pointer to a tenant's job, so that their list is read without those of others
keys/<hash>.json              an idempotency key of a tenant, with the id of the job that it is bound to
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from jobs.storage.stored import parse_stored
from schemas.errors import AccessDenied, AlreadyExists, NotFound, Permanent
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


class Entry(Pointer):
    """A job of the catalog. `job` is None if a version that kept it in `_job.json` alone accepted it."""

    job: AcceptedJob | None = None


class BoundKey(BaseModel):
    """The id of the job that an idempotency key is bound to, and a hash of the spec that was sent with the key.

    `job` is the whole job in the keys of earlier versions, which had no `id`.
    """

    model_config = ConfigDict(frozen=True)

    asked: str
    id: str = ""
    job: AcceptedJob | None = None

    @classmethod
    def of(cls, spec: JobSpec, id: str) -> "BoundKey":
        return cls(asked=_hash(spec), id=id)

    @property
    def job_id(self) -> str:
        return self.id if self.job is None else self.job.id

    def is_for(self, spec: JobSpec) -> bool:
        """Return whether the key was sent with this very spec, parts that don't decide its results included."""
        return self.asked == _hash(spec)


Content = TypeVar("Content", bound=Pointer)


@dataclass(frozen=True)
class Catalog:
    """The catalog at `uri`."""

    uri: str
    storage: Storage

    def folder(self, output: str) -> JobFolder:
        """Return the objects of the job at this output location, but for its parts: see `folder_of`."""
        return JobFolder(output, self.storage)

    def folder_of(self, job: AcceptedJob) -> JobFolder:
        """Return the objects of this job."""
        return JobFolder.of(job, self.storage)

    def check(self) -> None:
        """Raise NotFound, AccessDenied or Transient if the catalog can't be read."""
        next(iter(self.storage.list(self._uri("jobs/"))), None)

    def add(self, job: AcceptedJob, embedded: bool) -> AcceptedJob:
        """Write the job and the pointers to it. Return the job that stands: another request's if that came first.

        Requests with one idempotency key write a job of one id, at a location that the key's spec names.
        """
        entry = Entry(id=job.id, output=job.output, embedded=embedded, job=job)
        stands = self._create(f"jobs/{job.id}.json", entry, Entry)
        pointer = Pointer(id=job.id, output=job.output, embedded=embedded)
        if job.parent is not None:
            self._create(f"retries/{job.parent.job}/{job.id}.json", pointer, Pointer)
        if job.tenant:
            self._create(f"{_tenant_folder(job.tenant)}{job.id}.json", pointer, Pointer)
        return stands.job or job

    def find(self, id: str) -> Entry | None:
        """Return the entry of a job; None if the catalog has no such job."""
        try:
            return self._read(self._uri(f"jobs/{id}.json"), Entry)
        except NotFound:
            return None

    def job(self, id: str) -> AcceptedJob | None:
        """Return a job as it was accepted; None if the catalog has no such job."""
        entry = self.find(id)
        if entry is None or entry.job is not None:
            return None if entry is None else entry.job
        there = self.folder(entry.output).read_job()
        return there if there is not None and there.id == id else None

    def job_at(self, output: str) -> AcceptedJob | None:
        """Return the job that has an output location, as it was accepted; None if no job has it.

        Raise Permanent (code `unknown_job`) if the location has a job file that isn't of a job of this catalog.
        """
        there = self.folder(output).read_job()
        job = None if there is None else self.job(there.id)
        if there is not None and (job is None or job.output != output.rstrip("/") + "/"):
            raise Permanent(f"the job at {output!r} isn't in the catalog at {self.uri}", code="unknown_job")
        return job

    def came_second(self, job: AcceptedJob) -> bool:
        """Return whether another job has the job's location: of two that were submitted at once, one comes second."""
        try:
            there = self.folder(job.output).read_job()
        except (Permanent, AccessDenied):
            return False
        return there is not None and there.id != job.id

    def retries_of(self, job: str) -> list[Pointer]:
        """Return the retries of a job, oldest first."""
        return [self._read(info.uri, Pointer) for info in self.storage.list(self._uri(f"retries/{job}/"))]

    def ids(self, tenant: str | None = None, start: str = "") -> Iterator[str]:
        """Yield the ids of all jobs, or of one tenant's, that begin with `start`. They come in order."""
        folder = "jobs/" if tenant is None else _tenant_folder(tenant)
        for name in self._names(folder, start):
            id = name.removesuffix(".json")
            if JOB_ID.fullmatch(id):
                yield id

    def mark_ended(self, id: str) -> None:
        """Note that a job has ended. A second note changes nothing."""
        self._mark("ended", id)

    def is_marked(self, id: str) -> bool:
        """Return whether `mark_ended` was called for the job."""
        return self._has_mark("ended", id)

    def mark_cancelled(self, id: str) -> None:
        """Note that a job is to be cancelled. A second note changes nothing."""
        self._mark("cancelled", id)

    def is_cancelled(self, id: str) -> bool:
        """Return whether `mark_cancelled` was called for the job."""
        return self._has_mark("cancelled", id)

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
            data = self.storage.read(uri)
        except NotFound:
            return None
        return parse_stored(BoundKey, data, uri, "bad_key", "use another key")

    def bind_key(self, tenant: str, key: str, bound: BoundKey) -> BoundKey:
        """Bind the key to this job. Return the job already bound if another request won the race.

        The key is bound before the job is written. So a request that comes second, or comes back after its server died
        in between, writes a job of that very id.
        """
        try:
            self.storage.create(self._key_uri(tenant, key), bound.model_dump_json().encode(), owner=bound.id)
        except AlreadyExists:
            there = self.key(tenant, key)
            if there is None:
                raise
            return there
        return bound

    def _mark(self, mark: str, id: str) -> None:
        with suppress(AlreadyExists):
            self.storage.create(self._uri(f"{mark}/{id}.json"), b"{}", owner=id)

    def _has_mark(self, mark: str, id: str) -> bool:
        try:
            self.storage.stat(self._uri(f"{mark}/{id}.json"))
        except NotFound:
            return False
        return True

    def _uri(self, name: str) -> str:
        return child(self.uri, name)

    def _key_uri(self, tenant: str, key: str) -> str:
        name = hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()
        return self._uri(f"keys/{name}.json")

    def _names(self, folder: str, start: str = "") -> Iterator[str]:
        prefix = self._uri(folder)
        names = (info.uri.removeprefix(prefix) for info in self.storage.list(prefix + start))
        return (name for name in names if name.endswith(".json"))

    def _create(self, name: str, content: Content, kind: type[Content]) -> Content:
        """Write a pointer or an entry. Return the one that stands: one of this id and location if that came first."""
        uri = self._uri(name)
        try:
            # Not the id alone: requests with one idempotency key write different jobs of one id.
            self.storage.create(uri, content.model_dump_json().encode(), f"{content.id}-{secrets.token_hex(8)}")
        except AlreadyExists:
            there = self._read(uri, kind)
            if (there.id, there.output, there.embedded) != (content.id, content.output, content.embedded):
                raise
            return there
        return content

    def _read(self, uri: str, kind: type[Content]) -> Content:
        way_out = "restore it, or submit the job again at another location"
        return parse_stored(kind, self.storage.read(uri), uri, "bad_pointer", way_out)


def _tenant_folder(tenant: str) -> str:
    """Return the folder of a tenant's jobs. A label may hold any text, and a name in a store may not."""
    return f"tenants/{quote(tenant, safe='').replace('.', '%2E')}/"


def _hash(spec: JobSpec) -> str:
    return hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

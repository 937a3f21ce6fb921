"""The catalog: where the jobs of a deployment lie, so that each is found with Redis gone. Written once, read back.

jobs/<id>.json                a pointer to the job's output
ended/<id>.json               beside it once the job has ended, and its webhook is settled: it needs no second look
retries/<parent>/<id>.json    a pointer to a retry, under the id of the job that it retries
tenants/<tenant>/<id>.json    a pointer to a tenant's job, so that their list is read without anybody else's
"""

from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.storage import Storage
from schemas.errors import AlreadyExists, NotFound, Permanent
from schemas.job import AcceptedJob
from schemas.layout import child


class Pointer(BaseModel):
    """Where the files of a job lie. `embedded` says that its own command ran it, on a Redis of that command's."""

    model_config = ConfigDict(frozen=True)

    id: str
    output: str
    embedded: bool = False


def add_to_catalog(job: AcceptedJob, storage: Storage, catalog: str, embedded: bool) -> None:
    """Write the job's pointers; one that stands already, of the same job, is left as it is."""
    pointer = Pointer(id=job.id, output=job.output, embedded=embedded)
    names = [f"jobs/{job.id}.json"]
    names += [f"retries/{job.parent.job}/{job.id}.json"] if job.parent is not None else []
    names += [f"{tenant_folder(job.tenant)}{job.id}.json"] if job.tenant else []
    for name in names:
        uri = child(catalog, name)
        try:
            storage.create(uri, pointer.model_dump_json().encode(), owner=job.id)
        except AlreadyExists:
            if _read(uri, storage) != pointer:
                raise


def tenant_folder(tenant: str) -> str:
    """Where in the catalog a tenant's jobs are listed: a label may hold any text, and a name in a store may not."""
    return f"tenants/{quote(tenant, safe='').replace('.', '%2E')}/"


def find_in_catalog(id: str, storage: Storage, catalog: str) -> Pointer | None:
    try:
        return _read(child(catalog, f"jobs/{id}.json"), storage)
    except NotFound:
        return None


def retries_of(job: str, storage: Storage, catalog: str) -> list[Pointer]:
    """The retries of a job that were asked for, oldest first."""
    return [_read(info.uri, storage) for info in storage.list(child(catalog, f"retries/{job}/"))]


def mark_ended(id: str, storage: Storage, catalog: str) -> None:
    """Note that a job runs no more. Whoever comes second changes nothing."""
    with suppress(AlreadyExists):
        storage.create(child(catalog, f"ended/{id}.json"), b"{}", owner=id)


def is_marked(id: str, storage: Storage, catalog: str) -> bool:
    try:
        storage.stat(child(catalog, f"ended/{id}.json"))
    except NotFound:
        return False
    return True


def not_marked(storage: Storage, catalog: str) -> Iterator[str]:
    """The ids of the jobs that may not have ended, oldest first: both listings side by side, in bounded memory."""
    ended = _names(child(catalog, "ended/"), storage)
    mark = next(ended, None)
    for name in _names(child(catalog, "jobs/"), storage):
        while mark is not None and mark < name:
            mark = next(ended, None)
        if mark != name:
            yield name.removesuffix(".json")


def _names(prefix: str, storage: Storage) -> Iterator[str]:
    names = (info.uri.removeprefix(prefix) for info in storage.list(prefix))
    return (name for name in names if name.endswith(".json"))


def _read(uri: str, storage: Storage) -> Pointer:
    try:
        return Pointer.model_validate_json(storage.read(uri))
    except ValidationError as error:
        raise Permanent(f"{uri} is no pointer to a job: {error}", code="bad_pointer") from None

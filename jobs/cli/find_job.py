"""How is a job found by the name that a person gives it? By its id, its location or a pointer to the latest."""

from jobs.storage.base import normalized
from jobs.storage.catalog import JOB_ID, Catalog
from jobs.storage.latest import read_latest
from schemas.errors import NotFound, Permanent
from schemas.job import AcceptedJob
from schemas.manifest import Latest


def find_job(name: str, catalog: Catalog) -> AcceptedJob:
    """Return the job, as the catalog has it. Raise NotFound if there is none.

    Raise Permanent if the location's job isn't in the catalog: what its file says to read and run isn't trusted.
    """
    pointer = _pointed_at(name, catalog)
    if pointer is not None:
        return find_job(pointer.job, catalog)
    if JOB_ID.fullmatch(name):
        job = catalog.job(name)
        if job is None:
            raise NotFound(f"the catalog at {catalog.uri} has no job {name!r}; name its output location instead")
        return job
    try:
        job = catalog.job_at(normalized(name, "job"))
    except Permanent as error:
        if error.code != "unknown_job":
            raise
        hint = "set NIGHTSHIFT_CATALOG to the catalog that has it, or run its spec again with `nightshift run`"
        raise Permanent(f"{error.message}; {hint}", code=error.code) from None
    if job is None:
        raise NotFound(f"there is no job at {name!r}: no {name.rstrip('/')}/_job.json")
    return job


def _pointed_at(name: str, catalog: Catalog) -> Latest | None:
    """Return what a `latest` pointer names; None if the name isn't that of one."""
    return read_latest(normalized(name, "job"), catalog.storage) if name.endswith(".json") else None


def find_job_to_read(name: str, catalog: Catalog) -> AcceptedJob:
    """Return the job, or one that the catalog doesn't have as its file tells it: for showing it alone."""
    pointer = _pointed_at(name, catalog)
    name = name if pointer is None else pointer.output
    try:
        return find_job(name, catalog)
    except Permanent as error:
        there = catalog.folder(normalized(name, "job")).read_job() if error.code == "unknown_job" else None
        if there is None:
            raise
        return there

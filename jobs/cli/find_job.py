"""How is a job found by the name that a person gives it? By its id or its output location."""

from jobs.storage.base import normalized
from jobs.storage.catalog import JOB_ID, Catalog
from schemas.errors import NotFound, Permanent
from schemas.job import AcceptedJob


def find_job(name: str, catalog: Catalog) -> AcceptedJob:
    """Return the job, as the catalog has it. Raise NotFound if there is none.

    Raise Permanent if the location's job isn't in the catalog: what its file says to read and run isn't trusted.
    """
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


def find_job_to_read(name: str, catalog: Catalog) -> AcceptedJob:
    """Return the job, or one that the catalog doesn't have as its file tells it: for showing it alone."""
    try:
        return find_job(name, catalog)
    except Permanent as error:
        there = catalog.folder(normalized(name, "job")).read_job() if error.code == "unknown_job" else None
        if there is None:
            raise
        return there

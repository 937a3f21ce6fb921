"""How is a job found by the name that a person gives it? By its id or its output location."""

from jobs.storage.base import normalized
from jobs.storage.catalog import JOB_ID, Catalog
from schemas.errors import NotFound
from schemas.job import AcceptedJob


def find_job(name: str, catalog: Catalog) -> AcceptedJob:
    """Return the job. Raise NotFound if there is none."""
    output = name
    if JOB_ID.fullmatch(name):
        pointer = catalog.find(name)
        if pointer is None:
            raise NotFound(f"the catalog at {catalog.uri} has no job {name!r}; name its output location instead")
        output = pointer.output
    job = catalog.folder(normalized(output, "job")).read_job()
    if job is None:
        raise NotFound(f"there is no job at {output!r}: no {output.rstrip('/')}/_job.json")
    return job

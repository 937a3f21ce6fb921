"""A job by what a person calls it: its id, or its output location."""

import re

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.base import normalized
from jobs.storage.catalog import find_in_catalog
from jobs.storage.job_folder import read_job
from schemas.errors import NotFound
from schemas.job import AcceptedJob

_ID = re.compile(r"\d{8}-\d{6}-[0-9a-z]{6}")


def find_job(name: str, storage: Storage, settings: Settings) -> AcceptedJob:
    """The job. Raises NotFound where there is none."""
    output = name
    if _ID.fullmatch(name):
        pointer = find_in_catalog(name, storage, settings.catalog_uri)
        if pointer is None:
            raise NotFound(
                f"the catalog at {settings.catalog_uri} has no job {name!r}; name its output location instead"
            )
        output = pointer.output
    job = read_job(normalized(output, "job"), storage)
    if job is None:
        raise NotFound(f"there is no job at {output!r}: no {output.rstrip('/')}/_job.json")
    return job

"""Which job is it that control was asked to plan or to end? The catalog has it."""

from jobs.storage.catalog import Catalog
from schemas.errors import Damaged
from schemas.job import AcceptedJob


def job_of(id: str, catalog: Catalog) -> AcceptedJob:
    """Return the job. Raise Damaged if the catalog doesn't have it any more."""
    accepted = catalog.job(id)
    if accepted is None:
        raise Damaged(
            f"the catalog at {catalog.uri} has no job {id}; restore its entry, or submit the job again at another "
            "location",
            code="job_gone",
        )
    return accepted

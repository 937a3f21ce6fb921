"""How is a job run again? What it could not do becomes a job of its own; nothing of the first job changes.

Its plan is cut from the first job's: see `jobs.planning.retry_planner`.
"""

from itertools import count

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.base import normalized
from jobs.storage.job_folder import JobFolder
from jobs.submission.accept import Accepted, Found, Submitter, found_job, new_job
from jobs.submission.validate import check_locations
from schemas.errors import NotFinished, SpecError
from schemas.job import AcceptedJob, OutputSpec, Parent
from schemas.manifest import JobStatus, Manifest


def nothing_to_retry(manifest: Manifest) -> bool:
    """Return whether every record of the job has an answer."""
    complete = manifest.status is JobStatus.SUCCEEDED or 0 < manifest.shards == len(manifest.parts)
    return complete and not manifest.error_rows


def accept_retry(parent: AcceptedJob, output: str | None, submitter: Submitter, settings: Settings) -> Accepted:
    """Return a job of what the parent could not do, at `output` or beside the parent's. A retry begun there goes on.

    It has the parent's spec without `max_errors`, which is about all of the parent's records. Raise NotFinished if the
    parent has not ended, SpecError if the output can't be used.
    """
    storage = submitter.catalog.storage
    if JobFolder(parent.output, storage).read_manifest() is None:
        raise NotFinished(f"job {parent.id} has not ended: its errors can be retried when it has")
    found: Accepted | None = None
    if output is None:
        output, found = _free_output(parent, storage)
    else:
        output = normalized(output, "output").rstrip("/") + "/"
        there = JobFolder(output, storage).read_job()
        if there is not None and _is_retry_of(there, parent):
            found = found_job(there, storage)
    if found is not None:
        return found
    spec = parent.spec.model_copy(update={"output": OutputSpec(uri=output), "max_errors": None})
    check_locations(spec, settings)
    if submitter.find(spec) is not None:
        raise SpecError.of("output", f"{output!r} holds the job that is to be retried; name another location")
    job = new_job(spec, parent.model, Parent(job=parent.id, output=parent.output), allowed_inputs=parent.allowed_inputs)
    there = submitter.write(job)
    if there.id == job.id:
        return Accepted(job, Found.NOTHING, None)
    if not _is_retry_of(there, parent):
        raise SpecError.of("output", f"{output!r} belongs to job {there.id}; name another location")
    return found_job(there, storage)


def _is_retry_of(job: AcceptedJob, parent: AcceptedJob) -> bool:
    return job.parent is not None and job.parent.job == parent.id


def _free_output(parent: AcceptedJob, storage: Storage) -> tuple[str, Accepted | None]:
    """Return the first location beside the parent's that is empty, or has an unfinished retry of it; and that retry."""
    for number in count(1):
        output = f"{parent.output.rstrip('/')}-retry-{number}/"
        folder = JobFolder(output, storage)
        there = folder.read_job()
        if there is not None and _is_retry_of(there, parent):
            found = found_job(there, storage)
            if found.found is Found.UNFINISHED:
                return output, found
        elif there is None and folder.any_object() is None:
            return output, None
    raise AssertionError("unreachable")

"""How is a job run again? What it could not do becomes a job of its own; nothing of the first job changes.

Its plan is cut from the first job's: see `jobs.planning.retry_planner`.
"""

from collections.abc import Iterator

from jobs.settings import Settings
from jobs.storage.base import normalized
from jobs.storage.job_folder import JobFolder
from jobs.submission.accept import Accepted, Found, Submitter, found_job, new_job
from jobs.submission.validate import check_locations
from schemas.errors import NotFinished, SpecError
from schemas.job import AcceptedJob, Parent
from schemas.manifest import JobStatus, Manifest

#: Retries of a job that are put beside it, if no location is named.
MAX_RETRIES = 1000


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
    if JobFolder.of(parent, storage).read_manifest() is None:
        raise NotFinished(f"job {parent.id} has not ended: its errors can be retried when it has")
    given = None if output is None else normalized(output, "output").rstrip("/") + "/"
    for location in beside(parent.output) if given is None else [given]:
        # Not the table: it has the parent's rows, the ones with an error too.
        place = parent.spec.output.model_copy(update={"uri": location, "table": None})
        spec = parent.spec.model_copy(update={"output": place, "max_errors": None})
        check_locations(spec, settings)
        try:
            there = submitter.occupant(spec)
        except SpecError:
            if given is None:
                continue
            raise
        if there is None:
            break
        if _is_retry_of(there, parent):
            found = found_job(there, storage)
            if given is not None or found.found is Found.UNFINISHED:
                return found
        elif given is not None:
            raise _taken(location)
    else:
        raise SpecError.of("output", f"the locations beside {parent.output!r} are all in use; name one with `output`")
    job = new_job(
        spec,
        parent.model,
        Parent(job=parent.id, output=parent.output),
        allowed_inputs=parent.allowed_inputs,
        max_priority=parent.max_priority,
        layout=settings.layout,
        run=parent.run,
    )
    there = submitter.write(job)
    if there.id == job.id:
        return Accepted(there, Found.NOTHING, None)
    if not _is_retry_of(there, parent):
        raise _taken(location)
    return found_job(there, storage)


def _taken(output: str) -> SpecError:
    return SpecError.of("output", f"{output!r} belongs to another job; name another location")


def _is_retry_of(job: AcceptedJob, parent: AcceptedJob) -> bool:
    return job.parent is not None and job.parent.job == parent.id


def beside(output: str) -> Iterator[str]:
    """Yield the locations of retries beside a job's own."""
    return (f"{output.rstrip('/')}-retry-{number}/" for number in range(1, MAX_RETRIES + 1))

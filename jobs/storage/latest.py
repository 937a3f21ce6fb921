"""What does a `latest` pointer name? The newest results of several jobs. It is written anew, and never backwards."""

from jobs.storage import Storage
from jobs.storage.stored import parse_stored
from schemas.job import AcceptedJob
from schemas.manifest import JobStatus, Latest, Manifest


def read_latest(uri: str, storage: Storage) -> Latest:
    """Return what the pointer at `uri` names. Raise NotFound if there is none, Damaged if it can't be read."""
    return _parsed(storage.read(uri), uri)


def point_to(job: AcceptedJob, manifest: Manifest, storage: Storage) -> bool:
    """Let the job's pointer, if it has one, name its output: if it succeeded, and no job that began later did before.

    Return whether it was written. Raise Damaged if something else lies there.
    """
    uri = job.spec.output.latest
    if uri is None or manifest.status is not JobStatus.SUCCEEDED:
        return False
    new = Latest(job=job.id, output=job.output, accepted=job.accepted_at, ended=manifest.ended_at)
    written = False

    def change(there: bytes | None) -> bytes | None:
        nonlocal written
        written = there is None or new.is_newer(_parsed(there, uri))
        return new.model_dump_json(indent=2).encode() if written else None

    storage.update(uri, change, job.id)
    return written


def _parsed(data: bytes, uri: str) -> Latest:
    return parse_stored(Latest, data, uri, "bad_pointer", "name another location in output.latest, or move it away")

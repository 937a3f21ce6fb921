"""The files of a job under its output location: written once, read back."""

from collections.abc import Iterator

from pydantic import ValidationError

from jobs.storage import ObjectInfo, Storage
from schemas.errors import AlreadyExists, NotFound, Permanent, SpecError
from schemas.job import AcceptedJob
from schemas.layout import JOB, MANIFEST, child, shard_of
from schemas.manifest import Manifest


def read_job(output: str, storage: Storage) -> AcceptedJob | None:
    """The job whose results lie, or will lie, at this location; None where there is none."""
    uri = child(output, JOB)
    try:
        return AcceptedJob.model_validate_json(storage.read(uri))
    except NotFound:
        return None
    except (ValidationError, SpecError) as error:
        raise Permanent(
            f"{uri} is not a job file of this version of Nightshift: {error}", code="bad_job_file"
        ) from None


def write_job(job: AcceptedJob, storage: Storage) -> AcceptedJob:
    """Write `_job.json`; the job that has the location, which is another one where that came first."""
    try:
        storage.create(child(job.output, JOB), job.model_dump_json(indent=2).encode(), owner=job.id)
    except AlreadyExists:
        there = read_job(job.output, storage)
        if there is None:
            raise
        return there
    return job


def read_manifest(output: str, storage: Storage) -> Manifest | None:
    """The manifest; None where the job hasn't ended."""
    try:
        return Manifest.model_validate_json(storage.read(child(output, MANIFEST)))
    except NotFound:
        return None
    except (ValidationError, SpecError) as error:
        raise Permanent(f"{child(output, MANIFEST)} is damaged: {error}", code="bad_manifest") from None


def write_manifest(manifest: Manifest, output: str, storage: Storage, owner: str) -> Manifest:
    """Write `_manifest.json`; the manifest that stands, which is another's where that came first."""
    try:
        storage.create(child(output, MANIFEST), manifest.model_dump_json(indent=2).encode(), owner)
    except AlreadyExists:
        there = read_manifest(output, storage)
        if there is None:
            raise
        return there
    return manifest


def list_parts(output: str, storage: Storage) -> Iterator[tuple[int, ObjectInfo]]:
    """Shard and object of each part under an output location."""
    prefix = child(output, "part-")
    for info in storage.list(prefix):
        shard = shard_of(info.uri.rsplit("/", 1)[-1])
        if shard is not None:
            yield shard, info

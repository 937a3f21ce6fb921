"""Which files does a job bring to its table? The parts that its manifest names, if they are what it says."""

import pyarrow as pa

from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import JobFolder, open_part
from jobs.tables.base import File, Table, refused
from schemas.errors import Permanent, Transient
from schemas.job import AcceptedJob
from schemas.manifest import Manifest
from schemas.table import TableSpec


def table_of(spec: TableSpec) -> Table:
    """Return the table that a spec names. Raise Transient if its format's library is not installed here."""
    try:
        if spec.format == "delta":
            from jobs.tables.delta import DeltaCommits

            return DeltaCommits(spec)
        from jobs.tables.iceberg import IcebergCommits

        return IcebergCommits(spec)
    except ModuleNotFoundError as error:  # another machine may have it
        raise Transient(
            f"this machine can't commit to the {spec}: {error}; pip install 'nightshift-inference[{spec.format}]'"
        ) from None


def commit_job(job: AcceptedJob, storage: Storage) -> str | None:
    """Add the parts of a job that succeeded to its table, unless they were added before. Return the table's version.

    The version is None if the job has no parts, or the table has forgotten it. Raise Permanent (`table_mismatch`) if a
    part is not what the manifest says, and as a table's `commit` does.
    """
    spec = job.spec.output.table
    folder = JobFolder.of(job, storage)
    manifest = folder.written_manifest()
    if spec is None or manifest is None:
        raise Permanent(f"job {job.id} has no table, or no manifest", code="no_table")
    if not manifest.parts:
        return None
    infos = _infos(folder, manifest)
    files = [File(info.uri, info.size, part.rows) for info, part in zip(infos, manifest.parts, strict=True)]
    with open_part(infos[0], folder.storage) as part:
        columns = part.schema_arrow.remove_metadata()
    return table_of(spec).commit(job.id, files, columns, int(manifest.ended_at.timestamp() * 1000))


def check_job(job: AcceptedJob, columns: pa.Schema) -> None:
    """Raise as `commit_job` would for these columns of its parts, before any is computed."""
    spec = job.spec.output.table
    if spec is not None:
        table_of(spec).check(columns)


def _infos(folder: JobFolder, manifest: Manifest) -> list[ObjectInfo]:
    """Return the manifest's parts as they lie in storage."""
    there = {info.uri.rsplit("/", 1)[-1]: info for _, info in folder.parts()}
    found = []
    for part in manifest.parts:
        info = there.get(part.name)
        if info is None or (info.etag, info.size) != (part.etag, part.bytes):
            what = "is gone" if info is None else "is not the one that the manifest names"
            raise refused(f"{part.name} of {folder.output} {what}, so nothing is committed; submit the job again")
        found.append(info)
    return found

"""How do many small parts become few large ones? As new objects at another location; a job's own stay as they are.

A reader of either folder sees each row once. `_compacted.json` is written last: once it exists, all rows are there.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.results.export import GROUP_ROWS, grouped
from jobs.storage import ObjectInfo, Storage
from jobs.storage.checksum import RowChecksum
from jobs.storage.job_folder import JobFolder, open_part
from schemas import __version__
from schemas.errors import AlreadyExists, NotFinished, NotFound, Permanent, SpecError
from schemas.job import AcceptedJob
from schemas.layout import Layout, child, part_name
from schemas.manifest import Manifest, Part

COMPACTED = "_compacted.json"
#: Under this key, a file's footer says what is in it.
_KEY = b"nightshift.compacted"
_ROWS = 4096
#: Files of a compaction have names as wide as those of so many parts.
_NAMES = 100_000


class CompactedFile(BaseModel):
    """One file of a compaction: the job that its rows are of, and their number and checksum."""

    model_config = ConfigDict(frozen=True)

    job: str
    name: str
    rows: int
    checksum: str


class Compaction(BaseModel):
    """`_compacted.json`. `manifest` is the SHA-256 of the job's manifest, whose parts these files hold."""

    model_config = ConfigDict(frozen=True)

    job: str
    output: str
    manifest: str
    parts: int
    rows: int
    files: list[CompactedFile]
    at: datetime
    version: str


@dataclass(frozen=True)
class Compactor:
    """Compacts the parts of a job into files of about `size` bytes at `location`, which ends in a slash."""

    job: AcceptedJob
    location: str
    storage: Storage
    size: int

    def run(self) -> Compaction:
        """Write the files that aren't there yet, and what they are. An interrupted compaction is gone on with.

        Raise NotFinished if the job has not ended, SpecError if something else lies at the location, Permanent if a
        part isn't what the manifest says.
        """
        folder = JobFolder.of(self.job, self.storage)
        manifest, digest = folder.read_manifest(), folder.manifest_digest()
        if manifest is None or digest is None:
            raise NotFinished(f"job {self.job.id} has not ended: it can be compacted when it has")
        there = self._finished()
        if there is not None:
            if (there.job, there.manifest) != (self.job.id, digest):
                raise SpecError.of("to", f"{self.location!r} holds the rows of job {there.job}; name another location")
            return there
        files = list(self._written(folder, manifest))
        rows = sum(file.rows for file in files)
        if rows != manifest.rows:
            raise Permanent(f"the parts have {rows:,} rows, the manifest says {manifest.rows:,}", code="part_missing")
        made = Compaction(
            job=self.job.id,
            output=self.job.output,
            manifest=digest,
            parts=len(manifest.parts),
            rows=rows,
            files=files,
            at=datetime.now(UTC),
            version=__version__,
        )
        self.storage.create(child(self.location, COMPACTED), made.model_dump_json(indent=2).encode(), self.job.id)
        return made

    def _finished(self) -> Compaction | None:
        uri = child(self.location, COMPACTED)
        try:
            return Compaction.model_validate_json(self.storage.read(uri), extra="allow")
        except NotFound:
            return None
        except ValidationError as error:
            raise SpecError.of("to", f"{uri} can't be read: {error}; name another location") from None

    def _written(self, folder: JobFolder, manifest: Manifest) -> Iterator[CompactedFile]:
        groups = grouped(self._checked(folder, manifest), GROUP_ROWS)
        first = next(groups, None)
        number = 0
        while first is not None:
            name = part_name(number, _NAMES)
            with tempfile.TemporaryFile(prefix="nightshift-compact-") as body:
                file, first = self._fill(body, name, first, groups)
                self._create(file, cast(BinaryIO, body))
            yield file
            number += 1

    def _fill(
        self, body: object, name: str, first: pa.Table, more: Iterator[pa.Table]
    ) -> tuple[CompactedFile, pa.Table | None]:
        """Write row groups until the file is large enough. Return it, and the row group that comes next."""
        checksum, rows = RowChecksum(first.schema), 0
        group: pa.Table | None = first
        with pq.ParquetWriter(body, first.schema, compression="zstd") as writer:
            while group is not None:
                group = group.cast(first.schema)
                checksum.add(group)
                rows += group.num_rows
                writer.write_table(group, row_group_size=GROUP_ROWS)
                group = next(more, None)
                if body.tell() >= self.size:  # type: ignore[attr-defined]
                    break
            file = CompactedFile(job=self.job.id, name=name, rows=rows, checksum=str(checksum))
            writer.add_key_value_metadata({_KEY: file.model_dump_json().encode()})
        return file, group

    def _create(self, file: CompactedFile, body: BinaryIO) -> None:
        uri = Layout.DATA.parts_in(self.location) + file.name
        try:
            self.storage.create(uri, body, f"{self.job.id}-compact")
        except AlreadyExists:
            if self._file_at(self.storage.stat(uri)) != file:
                raise SpecError.of("to", f"{uri!r} is something else; name another location") from None

    def _file_at(self, info: ObjectInfo) -> CompactedFile | None:
        with open_part(info, self.storage) as part:
            said = (part.metadata.metadata or {}).get(_KEY)
        return None if said is None else CompactedFile.model_validate_json(said)

    def _checked(self, folder: JobFolder, manifest: Manifest) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the parts. Raise Permanent after those of one that isn't what the manifest says."""
        for part in sorted(manifest.parts, key=lambda part: part.shard):
            rows = 0
            with open_part(folder.part(part.name), folder.storage) as file:
                checksum = RowChecksum(file.schema_arrow)
                for batch in file.iter_batches(_ROWS):
                    checksum.add(batch)
                    rows += batch.num_rows
                    yield batch
            _check(part, rows, str(checksum), folder)


def _check(part: Part, rows: int, checksum: str, folder: JobFolder) -> None:
    if rows != part.rows or part.checksum not in (None, checksum):
        raise Permanent(
            f"{folder.part_uri(part.name)} isn't what the manifest says; see: nightshift verify {folder.output}",
            code="part_changed",
        )

"""How do many small parts become few large ones? As new objects at another location; a job's own stay as they are.

A reader of either folder sees each row once. `_compacted.json` is written last: once it exists, all rows are there.
With a column to partition by, the files lie in folders such as `data/country=DE/`, as Hive has them.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.results.export import GROUP_BYTES, GROUP_ROWS, grouped
from jobs.storage import ObjectInfo, Storage
from jobs.storage.checksum import RowChecksum
from jobs.storage.job_folder import JobFolder, open_part
from schemas import __version__
from schemas.errors import AlreadyExists, NotFinished, NotFound, Permanent, SpecError
from schemas.job import AcceptedJob
from schemas.layout import Layout, child, part_name
from schemas.manifest import Manifest, Part
from schemas.task import is_text

COMPACTED = "_compacted.json"
#: Under this key, a file's footer says what is in it.
_KEY = b"nightshift.compacted"
_ROWS = 4096
#: Files of a compaction have names as wide as those of so many parts.
_NAMES = 100_000
#: Values of a column that is partitioned by, at most: each has a file that is being written.
_MOST_VALUES = 1000
#: What Hive calls the folder of nulls.
_NULL = "__HIVE_DEFAULT_PARTITION__"


class CompactedFile(BaseModel):
    """One file of a compaction: the job that its rows are of, and their number and checksum."""

    model_config = ConfigDict(frozen=True)

    job: str
    name: str
    rows: int
    checksum: str


class Compaction(BaseModel):
    """`_compacted.json`. `manifest` is the SHA-256 of the job's manifest, whose parts these files hold.

    The values of the column `partition_by` are in the names of folders, and not in the files.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    output: str
    manifest: str
    partition_by: str | None = None
    parts: int
    rows: int
    files: list[CompactedFile]
    at: datetime
    version: str


@dataclass(frozen=True)
class Compactor:
    """Compacts the parts of a job into files of about `size` bytes at `location`, which ends in a slash.

    If `partition_by` names a column, rows with different values there are in different folders.
    """

    job: AcceptedJob
    location: str
    storage: Storage
    size: int
    partition_by: str | None = None

    def run(self) -> Compaction:
        """Write the files that aren't there yet, and what they are. An interrupted compaction is gone on with.

        Raise NotFinished if the job has not ended, SpecError if something else lies at the location or the rows can't
        be partitioned so, Permanent if a part isn't what the manifest says.
        """
        folder = JobFolder.of(self.job, self.storage)
        manifest, digest = folder.read_manifest(), folder.manifest_digest()
        if manifest is None or digest is None:
            raise NotFinished(f"job {self.job.id} has not ended: it can be compacted when it has")
        there = self._finished()
        if there is not None:
            if (there.job, there.manifest) != (self.job.id, digest):
                raise SpecError.of("to", f"{self.location!r} holds the rows of job {there.job}; name another location")
            if there.partition_by != self.partition_by:
                raise SpecError.of(
                    "to",
                    f"{self.location!r} is partitioned by {there.partition_by or 'nothing'}; name another location",
                )
            return there
        files = list(self._written(folder, manifest))
        rows = sum(file.rows for file in files)
        if rows != manifest.rows:
            raise Permanent(f"the parts have {rows:,} rows, the manifest says {manifest.rows:,}", code="part_missing")
        made = Compaction(
            job=self.job.id,
            output=self.job.output,
            manifest=digest,
            partition_by=self.partition_by,
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
        written: Counter[str] = Counter()
        open_files: dict[str, _OpenFile] = {}
        with ExitStack() as stack:
            for table in grouped(self._checked(folder, manifest), GROUP_ROWS):
                for place, rows in self._partitions(table):
                    if place not in open_files:
                        self._check_count(len(open_files))
                        open_files[place] = stack.enter_context(_OpenFile(rows.schema))
                    open_files[place].add(rows)
                    if open_files[place].size >= self.size:
                        yield self._closed(place, written, open_files.pop(place))
                if sum(file.waiting_bytes for file in open_files.values()) > 4 * GROUP_BYTES:
                    for file in open_files.values():
                        file.end_row_group()
            for place in sorted(open_files):
                yield self._closed(place, written, open_files[place])

    def _closed(self, place: str, written: Counter[str], open_file: "_OpenFile") -> CompactedFile:
        name = place + part_name(written[place], _NAMES)
        written[place] += 1
        with open_file:
            file, body = open_file.close(self.job.id, name)
            self._create(file, body)
        return file

    def _partitions(self, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yield the rows by the folder that they belong in, in order."""
        name = self.partition_by
        if name is None:
            yield "", table
            return
        _check_column(name, table.schema)
        column, rest = table[name], table.drop_columns([name])
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        for value in pc.unique(column):
            same = pc.equal(column, value) if value.is_valid else pc.is_null(column)
            yield f"{quote(name, safe='')}={_folder_of(value.as_py())}/", rest.filter(same)

    def _check_count(self, values: int) -> None:
        if values >= _MOST_VALUES:
            raise SpecError.of(
                "partition-by",
                f"{self.partition_by!r} has more than {_MOST_VALUES:,} values; partition by a column that has fewer",
            )

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


class _OpenFile:
    """A file that is being written. Its rows wait until they are a row group."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._body = tempfile.TemporaryFile(prefix="nightshift-compact-")  # noqa: SIM115 (see __exit__)
        self._writer = pq.ParquetWriter(self._body, schema, compression="zstd")
        self._checksum = RowChecksum(schema)
        self._rows = 0
        self._waiting: list[pa.Table] = []
        self.waiting_bytes = 0

    def __enter__(self) -> "_OpenFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._body.close()

    @property
    def size(self) -> int:
        """Bytes of the row groups that are written."""
        return self._body.tell()

    def add(self, rows: pa.Table) -> None:
        rows = rows.cast(self._schema)
        self._checksum.add(rows)
        self._rows += rows.num_rows
        self._waiting.append(rows)
        self.waiting_bytes += rows.nbytes
        if sum(map(len, self._waiting)) >= GROUP_ROWS or self.waiting_bytes >= GROUP_BYTES:
            self.end_row_group()

    def end_row_group(self) -> None:
        """Write the rows that wait."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).unify_dictionaries(), row_group_size=GROUP_ROWS)
            self._waiting, self.waiting_bytes = [], 0

    def close(self, job: str, name: str) -> tuple[CompactedFile, BinaryIO]:
        """Return what the file is, and its body."""
        self.end_row_group()
        file = CompactedFile(job=job, name=name, rows=self._rows, checksum=str(self._checksum))
        self._writer.add_key_value_metadata({_KEY: file.model_dump_json().encode()})
        self._writer.close()
        return file, cast(BinaryIO, self._body)


def _check_column(name: str, schema: pa.Schema) -> None:
    """Raise SpecError unless the column is there and has values that names of folders can say."""
    if name not in schema.names:
        raise SpecError.of("partition-by", f"the rows have no column {name!r}; they have {', '.join(schema.names)}")
    kind = schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_date32(kind) or pa.types.is_boolean(kind) or is_text(kind)):
        raise SpecError.of("partition-by", f"{name!r} is {kind}; partition by texts, integers, dates or booleans")


def _folder_of(value: Any) -> str:
    """Return a value as Hive has it in the name of a folder. An empty text is read as null."""
    if value is None or value == "":
        return _NULL
    return quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")


def _check(part: Part, rows: int, checksum: str, folder: JobFolder) -> None:
    if rows != part.rows or part.checksum not in (None, checksum):
        raise Permanent(
            f"{folder.part_uri(part.name)} isn't what the manifest says; see: nightshift verify {folder.output}",
            code="part_changed",
        )

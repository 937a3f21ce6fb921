"""Is a part the one that the manifest names, with the rows that its shard's slices have?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.input_rows import InputRows
from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from jobs.storage.checksum import RowChecksum
from jobs.storage.job_folder import JobFolder, open_part, report_of
from schemas.errors import AccessDenied, InputChanged, NightshiftError, NotFound, Transient
from schemas.job import AcceptedJob
from schemas.manifest import Part
from schemas.output import OwnColumns
from schemas.plan import Shard, Slice, shard_fingerprint
from schemas.report import ShardReport

_ROWS = 4096


@dataclass
class SeenPart:
    """A part as it is: what is wrong with it, what can't be verified, and the checksum of its rows if they were read.

    `changed_inputs` are files of the input that are no longer what was planned.
    """

    part: Part
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changed_inputs: set[str] = field(default_factory=set)
    info: ObjectInfo | None = None
    report: ShardReport | None = None
    rows: int = 0
    checksum: str | None = None


@dataclass(frozen=True)
class PartVerifier:
    """Verifies the parts of a job. `kept` are the columns to compare with the input: none to leave that out."""

    job: AcceptedJob
    folder: JobFolder
    kept: tuple[str, ...]
    inputs: Storage
    settings: Settings

    def verify(self, part: Part, shard: Shard | None) -> SeenPart:
        """Read the whole part. `shard` is the plan's. Raise Transient or AccessDenied if it can't be read now."""
        seen = SeenPart(part)
        try:
            seen.info = self.folder.part(part.name)
        except NotFound:
            seen.problems.append("is missing")
            return seen
        if (seen.info.size, seen.info.etag) != (part.bytes, part.etag):
            sizes = f"{seen.info.size:,} bytes, {part.bytes:,} then" if seen.info.size != part.bytes else "another etag"
            seen.problems.append(f"was written again since the job ended ({sizes})")
        try:
            self._read(seen, shard)
        except (Transient, AccessDenied):
            raise
        except NightshiftError as error:
            seen.problems.append(error.message)
        return seen

    def _read(self, seen: SeenPart, shard: Shard | None) -> None:
        assert seen.info is not None
        errors: Counter[str] = Counter()
        own = OwnColumns.of(self.job.spec)
        with open_part(seen.info, self.folder.storage) as file:
            seen.report = report_of(seen.info, file.metadata.metadata or {})
            seen.problems += _against_report(seen, self.job, shard)
            checksum = RowChecksum(file.schema_arrow)
            places = _Places(shard.slices if shard is not None else (), own)
            with InputRows(self.job, shard.slices if shard else (), self.inputs, self.settings) as source:
                kept = _Kept(self.kept, source, own)
                for batch in file.iter_batches(_ROWS):
                    checksum.add(batch)
                    seen.rows += batch.num_rows
                    errors.update(batch[own.error].field("code").drop_null().to_pylist())
                    places.check(batch)
                    if places.wrong is None:
                        kept.check(batch)
        seen.checksum = str(checksum)
        seen.problems += _against_data(seen, errors)
        if shard is not None and seen.rows != shard.rows:
            seen.problems.append(f"has {seen.rows:,} rows, the plan {shard.rows:,}")
        if places.wrong is not None and shard is not None:
            seen.problems.append(places.wrong)
        seen.problems += kept.problems
        seen.changed_inputs = kept.changed


def _against_report(seen: SeenPart, job: AcceptedJob, shard: Shard | None) -> Iterator[str]:
    report, part = seen.report, seen.part
    assert report is not None
    if report.job != job.id:
        yield f"is a part of job {report.job}"
    elif report.shard != part.shard:
        yield f"is the part of shard {report.shard}"
    elif shard is not None and report.fingerprint != shard_fingerprint(job.fingerprint, job.model.revision, shard):
        yield "is of other rows, or of another spec or model, than the plan and the job say"


def _against_data(seen: SeenPart, errors: Counter[str]) -> Iterator[str]:
    """Compare what was read with the part's own report and with the manifest, which one edit may have left alone."""
    report, part = seen.report, seen.part
    assert report is not None
    if seen.rows != part.rows:
        yield f"has {seen.rows:,} rows, the manifest {part.rows:,}"
    if errors.total() != part.error_rows:
        yield f"has {errors.total():,} error rows, the manifest {part.error_rows:,}"
    if seen.rows != report.rows or errors != Counter(report.errors):
        yield "has other rows or errors than its report says"
    if part.checksum is None:
        seen.notes.append("has no checksum in the manifest, as an earlier version wrote it: its values aren't verified")
    elif seen.checksum != part.checksum:
        yield "its rows have another checksum than the manifest says"
    elif seen.problems:
        yield "its rows are the same"
    if report.checksum is not None and seen.checksum != report.checksum:
        yield "its rows have another checksum than its report says"


class _Places:
    """Compares where rows say that they are from with a shard's slices, in order."""

    def __init__(self, slices: Sequence[Slice], own: OwnColumns) -> None:
        self._own = own
        self._expected = ((part.uri, part.source_row + row) for part in slices for row in range(part.rows))
        self._row = 0
        self.wrong: str | None = None

    def check(self, batch: pa.RecordBatch) -> None:
        if self.wrong is not None:
            return
        own = self._own
        uris = pc.cast(batch[own.source_uri], pa.string()).to_pylist()
        for uri, row, planned in zip(
            uris, batch[own.source_row].to_pylist(), islice(self._expected, batch.num_rows), strict=False
        ):
            if (uri, row) != planned:
                self.wrong = f"row {self._row:,} is of {uri} row {row}, by the plan of {planned[0]} row {planned[1]}"
                return
            self._row += 1


class _Kept:
    """Compares kept columns with the input, by checksums of both."""

    def __init__(self, names: tuple[str, ...], source: InputRows, own: OwnColumns) -> None:
        self._own = own
        self._names = names
        self._source = source
        self.problems: list[str] = []
        self.changed: set[str] = set()

    def check(self, batch: pa.RecordBatch) -> None:
        if not self._names or self.problems or self.changed:
            return
        own = self._own
        answered = batch.filter(pc.is_null(batch[own.error]))  # of an error row, a text that can't be read is null
        ours = answered.select([name for name in batch.schema.names if name in self._names])
        uris = pc.cast(answered[own.source_uri], pa.string()).to_pylist()
        rows = answered[own.source_row].to_pylist()
        if not rows:
            return
        try:
            theirs = self._source.read(uris, rows, ours.schema)
        except (InputChanged, NotFound):
            self.changed.update(uris)
            return
        for name in ours.schema.names:
            if _checksum(ours.select([name])) != _checksum(theirs.select([name])):
                self.problems.append(f"its column {name!r} isn't the input's")


def _checksum(rows: pa.RecordBatch | pa.Table) -> str:
    found = RowChecksum(rows.schema)
    found.add(rows)
    return str(found)

"""Which objects does a job have, and what is in them? All under its output location, each written once.

_job.json                  the job as it was accepted
_plan.pq                   its shards, one a row
data/part-00042.parquet    the output rows of one shard, with a report in the footer
_README.md                 what the data are, for people and for the Hugging Face hub
_manifest.json             how the job ended; its existence makes the results final
_table.json                of a job with a table: its parts are in it

In a job of the layout `flat` the parts lie beside the other files.
"""

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.parallel_map import parallel_map
from jobs.storage import ObjectInfo, Storage
from jobs.storage.parquet import READ_BUFFER, open_parquet, translated
from jobs.storage.stored import Content, parse_stored
from jobs.storage.table_notes import TableNotes
from schemas.errors import AlreadyExists, Damaged, NotFound, Permanent
from schemas.job import AcceptedJob
from schemas.layout import CARD, JOB, MANIFEST, PLAN, Layout, child, part_name, shard_of
from schemas.manifest import Manifest
from schemas.plan import (
    PLAN_ROW_GROUP,
    PLAN_SLICES,
    Planned,
    Shard,
    find_row_group,
    from_batch,
    input_schema,
    plan_schema,
    skipped_files,
    skipped_metadata,
    to_batch,
)
from schemas.report import REPORT_KEY, ShardReport

#: Footers of parts that are read at once.
_READERS = 32
#: What reading a damaged file raises if pyarrow finds it in order, and its content is not: names, types and values.
_WRONG_VALUES = (ValueError, KeyError, TypeError, AttributeError)
#: Rows of a plan that are decoded at once.
_PLAN_ROWS = 100
#: What a slice that was lost is told by.
LOST_SLICE = pa.struct(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
    ]
)
_LOST_COLUMNS = tuple(f".{field.name}" for field in LOST_SLICE)


@dataclass(frozen=True)
class PlanSize:
    """How large a plan is. `bytes` are uncompressed."""

    shards: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Committed:
    """The shards of a job whose parts are in storage."""

    shards: list[int]
    rows: int
    errors: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """One version of a job's `_plan.pq`. Every method raises Damaged if the file can't be read."""

    info: ObjectInfo
    storage: Storage

    def columns(self) -> pa.Schema:
        """Return the schema of the input columns that the job reads."""
        with self._opened() as file:
            return input_schema(file.schema_arrow)

    def skipped(self) -> dict[str, int]:
        """Return how many files were no records, by reason."""
        with self._opened() as file:
            return skipped_files(file.metadata.metadata or {})

    def size(self) -> PlanSize:
        with self._opened() as file:
            table = file.read(columns=["rows", "bytes"])
            total = {name: pc.sum(table[name]).as_py() or 0 for name in ("rows", "bytes")}
            return PlanSize(shards=table.num_rows, **total)

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """Yield the shards in order, from number `first` on. Row groups before it are not read."""
        with self._opened() as file:
            start = find_row_group(file.metadata, first)
            if start is None:
                return
            groups = range(start, file.num_row_groups)
            for batch in file.iter_batches(batch_size=_PLAN_ROWS, row_groups=groups):
                yield from (shard for shard in from_batch(batch) if shard.shard >= first)

    def slices_of(self, shards: Collection[int]) -> Iterator[tuple[int, pa.StructArray]]:
        """Yield those of these shards that the plan has, in order, each with its slices as an array of LOST_SLICE.

        Neither the other columns nor the other row groups are read.
        """
        with self._opened() as file:
            paths = [file.schema.column(place).path for place in range(len(file.schema))]
            columns = [path for path in paths if path.partition(".")[0] == "slices" and path.endswith(_LOST_COLUMNS)]
            places = (find_row_group(file.metadata, number) for number in shards)
            groups = sorted({place for place in places if place is not None})
            for batch in file.iter_batches(_PLAN_ROWS, groups, columns=["shard", *columns]):
                listed = batch["slices"].cast(pa.list_(LOST_SLICE))
                if listed.null_count or listed.flatten().null_count:
                    raise ValueError("a shard without slices")
                for place, number in enumerate(batch["shard"].to_pylist()):
                    if number in shards:
                        yield number, listed[place].values

    def row_group_of(self, number: int) -> list[Shard]:
        """Return the shards of the row group that holds this one. Raise Permanent if no row group does."""
        with self._opened() as file:
            group = find_row_group(file.metadata, number)
            if group is None:
                raise Permanent(f"{self.info.uri} has no shard {number}", code="plan_broken")
            return list(from_batch(file.read_row_group(group)))

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self.storage.open(self.info) as source, translated(source, self._damaged):
            yield open_parquet(source)

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(f"{self.info.uri} is damaged: {error}", code="plan_broken")


@dataclass(frozen=True)
class JobFolder:
    """The objects of the job whose output location is `output`. A link in it leads nowhere else.

    Where the parts lie is known of a job alone (`of`). With an output location alone, only the other objects are.
    """

    output: str
    storage: Storage
    layout: Layout | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", self.storage.within([self.output.rstrip("/") + "/"]))

    @classmethod
    def of(cls, job: AcceptedJob, storage: Storage) -> "JobFolder":
        """Return the objects of this job."""
        return cls(job.output, storage, job.layout)

    def uri(self, name: str) -> str:
        """Return the URI of one of the job's objects that is no part."""
        return child(self.output, name)

    def part_uri(self, name: str) -> str:
        """Return the URI of a part."""
        if self.layout is None:
            raise AssertionError(f"where the parts of {self.output} lie is known of its job: use JobFolder.of")
        return self.layout.parts_in(self.output) + name

    def any_object(self) -> ObjectInfo | None:
        """Return an object that lies at the location, a job's or not; None if it is empty."""
        return next(iter(self.storage.list(self.output)), None)

    def refuses_overwrite(self) -> bool:
        """Return whether the store refuses to create `_job.json` again. So it did before if the file is gone now."""
        try:
            return self.storage.refuses_overwrite(self.uri(JOB))
        except NotFound:
            return True

    def read_job(self) -> AcceptedJob | None:
        """Return the job that has the location; None if there is none."""
        return self._read(JOB, AcceptedJob, "bad_job_file", "name another location")

    def write_job(self, job: AcceptedJob) -> AcceptedJob:
        """Write `_job.json`. Return the job that has the location: another one if that came first.

        Readers of the results see the file, so secrets in the URL of `notify` are masked in it.
        """
        return self._write(JOB, job.shown(), job.id, self.read_job)

    def read_manifest(self) -> Manifest | None:
        """Return the manifest; None if the job hasn't ended.

        A job with a table has ended once its parts are committed, or refused: then it failed, for the table's reason.
        """
        written = self.written_manifest()
        return None if written is None else self.table_notes.told(written)

    @property
    def table_notes(self) -> TableNotes:
        """What became of the commit to the job's table."""
        return TableNotes(self.output, self.storage)

    def written_manifest(self) -> Manifest | None:
        """Return the manifest as it was written, whatever became of the commit to the job's table; None without one."""
        way_out = f"move it away, and go on with: nightshift resume {self.output}"
        return self._read(MANIFEST, Manifest, "bad_manifest", way_out)

    def write_manifest(self, manifest: Manifest, owner: str) -> Manifest:
        """Write `_manifest.json`. Return the manifest that stands: another writer's if that came first."""
        return self._write(MANIFEST, manifest, owner, self.written_manifest)

    def write_card(self, text: str, owner: str) -> None:
        """Write `_README.md`, unless there is one."""
        with suppress(AlreadyExists):
            self.storage.create(self.uri(CARD), text.encode(), owner)

    def manifest_bytes(self) -> bytes:
        """Return `_manifest.json` as it is. Raise NotFound if the job hasn't ended."""
        return self.storage.read(self.uri(MANIFEST))

    def has_ended(self, job: AcceptedJob) -> bool:
        """Return whether the job has ended. The manifest of one without a table is not read for it."""
        if job.spec.output.table is not None:
            return self.read_manifest() is not None
        try:
            self.storage.stat(self.uri(MANIFEST))
        except NotFound:
            return False
        return True

    def plan(self) -> Plan:
        """Return the job's plan. Raise NotFound if the job has none."""
        return Plan(self.storage.stat(self.uri(PLAN)), self.storage)

    def find_plan(self) -> Plan | None:
        """Return the job's plan; None if it has none, or none yet."""
        try:
            return self.plan()
        except NotFound:
            return None

    def write_plan(self, planned: Planned, owner: str, guard: AbstractContextManager[None] | None = None) -> PlanSize:
        """Write `_plan.pq` in bounded memory. Return the size of the plan that stands: another's if that came first.

        The object is created inside `guard`, which may raise to prevent it.
        """
        arrow = plan_schema(planned.columns)
        with tempfile.TemporaryFile(prefix="nightshift-plan-") as file:
            with pq.ParquetWriter(file, arrow, compression="zstd") as writer:
                for shards in row_groups(planned.shards):
                    writer.write_batch(to_batch(shards, arrow), row_group_size=PLAN_ROW_GROUP)
                writer.add_key_value_metadata(skipped_metadata(planned.skipped))
            with guard or nullcontext(), suppress(AlreadyExists):
                self.storage.create(self.uri(PLAN), file, owner)
        return self.plan().size()

    def part(self, name: str) -> ObjectInfo:
        """Return a part, by the name that the manifest gives it. Raise NotFound if it is gone."""
        return self.storage.stat(self.part_uri(name))

    def write_part(self, name: str, body: BinaryIO, owner: str) -> None:
        """Create a part. Raise AlreadyExists if there is one of this name."""
        self.storage.create(self.part_uri(name), body, owner)

    def find_report(self, name: str, job: str) -> ShardReport | None:
        """Return the report in a part; None if there is no such part. Raise Permanent if it is another job's."""
        found = self.find_part(name, job)
        return None if found is None else found[1]

    def find_part(self, name: str, job: str) -> tuple[ObjectInfo, ShardReport] | None:
        """Return a part and the report in it; None if there is no such part. Raise Permanent if it is another job's."""
        try:
            info = self.part(name)
        except NotFound:
            return None
        report = read_report(info, self.storage)
        if report.job != job:
            raise Permanent(f"{info.uri} belongs to job {report.job}; move it away", code="foreign_part")
        if report.shard != shard_of(name):
            raise _foreign(info)
        return info, report

    def parts(self) -> Iterator[tuple[int, ObjectInfo]]:
        """Yield shard and object of each part, in order."""
        folder = self.part_uri("")
        for info in self.storage.list(folder + "part-"):
            shard = shard_of(info.uri.removeprefix(folder))
            if shard is not None:
                yield shard, info

    def reports(self, job: str, shards: int) -> Iterator[tuple[ObjectInfo, ShardReport | None]]:
        """Yield each part in order, with the report in its footer; None for a file that isn't a part of this job.

        The job's plan has `shards` shards; 0 if that isn't known. A few parts are read at a time.
        """

        def read(info: ObjectInfo) -> tuple[ObjectInfo, ShardReport | None]:
            try:
                report = read_report(info, self.storage)
            except Permanent:
                return info, None
            return info, report if _is_own(info, report, job, shards) else None

        return parallel_map(read, (info for _, info in self.parts()), _READERS)

    def committed(self, job: str, of: int) -> Committed:
        """Return what is done of the job, whose plan has so many shards.

        Raise Permanent if a file has a part's name and isn't a part of this job.
        """
        shards: list[int] = []
        rows = 0
        errors: dict[str, int] = {}
        for info, report in self.reports(job, of):
            if report is None:
                raise _foreign(info)
            shards.append(report.shard)
            rows += report.rows
            for code, count in report.errors.items():
                errors[code] = errors.get(code, 0) + count
        return Committed(shards, rows, errors)

    def _read(self, name: str, model: type[Content], code: str, way_out: str) -> Content | None:
        try:
            data = self.storage.read(self.uri(name))
        except NotFound:
            return None
        return parse_stored(model, data, self.uri(name), code, way_out)

    def _write(self, name: str, content: Content, owner: str, read: Callable[[], Content | None]) -> Content:
        try:
            self.storage.create(self.uri(name), content.model_dump_json(indent=2).encode(), owner)
        except AlreadyExists:
            there = read()
            if there is None:
                raise
            return there
        return content


@contextmanager
def open_part(info: ObjectInfo, storage: Storage) -> Iterator[pq.ParquetFile]:
    """Open a part. Raise Permanent, here or while it is read, if it is damaged."""

    def damaged(error: Exception) -> Permanent:
        return Permanent(f"{info.uri}, a part of a job's output, can't be read: {error}", code="foreign_part")

    with storage.open(info) as source, translated(source, damaged):
        yield open_parquet(source, pre_buffer=False, buffer_size=READ_BUFFER)


def read_report(info: ObjectInfo, storage: Storage) -> ShardReport:
    """Return the report in a part's footer. Raise Permanent if Nightshift didn't write the file."""
    with open_part(info, storage) as part:
        metadata = part.metadata.metadata or {}
    if REPORT_KEY not in metadata:
        raise _foreign(info)
    try:
        return ShardReport.from_metadata(metadata)
    except _WRONG_VALUES as error:
        raise Permanent(f"the report in {info.uri} is damaged: {error}", code="foreign_part") from None


def _is_own(info: ObjectInfo, report: ShardReport, job: str, shards: int) -> bool:
    """Return whether a part is of this job, and has the name that the job gave it: it may be a copy of another one."""
    name = info.uri.rsplit("/", 1)[-1]
    right = name == part_name(report.shard, shards) if shards else shard_of(name) == report.shard
    return right and report.job == job


def _foreign(info: ObjectInfo) -> Permanent:
    return Permanent(f"{info.uri} is no part of this job; move it away", code="foreign_part")


def row_groups(shards: Iterable[Shard]) -> Iterator[list[Shard]]:
    """Group shards into row groups of a plan. A shard of many objects is heavy, so slices are limited too."""
    rows: list[Shard] = []
    slices = 0
    for shard in shards:
        rows.append(shard)
        slices += len(shard.slices)
        if len(rows) >= PLAN_ROW_GROUP or slices >= PLAN_SLICES:
            yield rows
            rows, slices = [], 0
    if rows:
        yield rows

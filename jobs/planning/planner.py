"""Planning: from the footers of a Parquet input, or a listing of media, to shards of about a minute's work each.

Small files are joined into a shard, large row groups are split; input order holds within and across shards.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.logs import event
from jobs.parallel_map import ahead
from jobs.planning.input_files import MEDIA, PARQUET, FileKind, InputFiles
from jobs.planning.parquet_footers import Footer, read_footer
from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from schemas.errors import AlreadyExists, Permanent, SpecError, Unreadable
from schemas.job import JobSpec
from schemas.layout import PLAN, child
from schemas.output import read_schema
from schemas.plan import (
    NO_COLUMNS,
    NO_ROW_GROUP,
    OBJECT,
    PLAN_ROW_GROUP,
    PLAN_SLICES,
    Shard,
    Slice,
    plan_schema,
    skipped_metadata,
    to_batch,
)
from schemas.task import is_text

_log = logging.getLogger(__name__)

#: Uncompressed input bytes a shard at most, where the spec names no other number.
SHARD_BYTES = 64 << 20
#: About a minute of work, as rows, stays within these bounds whatever rate was measured.
MIN_ROWS, MAX_ROWS = 64, 100_000
#: Footers that are read at once.
FOOTER_READERS = 16


@dataclass(frozen=True)
class BrokenFile:
    """An input file whose footer can't be read."""

    info: ObjectInfo


@dataclass(frozen=True)
class Limits:
    """Where a shard is cut: at so many rows, or so many uncompressed bytes, whichever comes first."""

    rows: int
    bytes: int


def shard_limits(spec: JobSpec, rows_per_s: float | None) -> Limits:
    """The spec's own limits; else a minute at the rate last measured for this model, else the task's guess at it."""
    minute = spec.task_schema.shard_rows if rows_per_s is None else int(60 * rows_per_s)
    rows = spec.shard.rows or min(max(minute, MIN_ROWS), MAX_ROWS)
    return Limits(rows, spec.shard.bytes or SHARD_BYTES)


def plan_shards(footers: Iterable[Footer | BrokenFile], columns: set[str], limits: Limits) -> Iterator[Shard]:
    """Cut the files' row groups into shards, in order. Files without rows vanish.

    A broken file becomes a shard of its own, without rows, so that whoever runs it reports it and the rest goes on.
    """
    slices: list[Slice] = []
    rows = size = shard = 0
    for footer in footers:
        if isinstance(footer, BrokenFile):
            if slices:
                yield Shard(shard=shard, slices=tuple(slices), rows=rows, bytes=size)
                slices, rows, size, shard = [], 0, 0, shard + 1
            yield Shard(shard=shard, slices=(_slice(footer.info, NO_ROW_GROUP, 0, 0, 0),), rows=0, bytes=0)
            shard += 1
            continue
        for group in footer.row_groups(columns):
            start = 0
            while start < group.rows:
                row_bytes = group.bytes / group.rows
                room = limits.rows - rows
                if row_bytes:
                    room = min(room, int((limits.bytes - size) / row_bytes))
                take = min(group.rows - start, max(room, 0 if slices else 1))
                if take:
                    slices.append(_slice(footer.info, group.index, start, take, group.first_row))
                    start, rows, size = start + take, rows + take, size + int(take * row_bytes)
                if take == 0 or rows >= limits.rows or size + row_bytes > limits.bytes:
                    yield Shard(shard=shard, slices=tuple(slices), rows=rows, bytes=size)
                    slices, rows, size, shard = [], 0, 0, shard + 1
    if slices:
        yield Shard(shard=shard, slices=tuple(slices), rows=rows, bytes=size)


def plan_objects(objects: Iterable[ObjectInfo], limits: Limits) -> Iterator[Shard]:
    """Cut a listing into shards, in order; one object too large for a shard is one of its own."""
    slices: list[Slice] = []
    size = shard = 0
    for info in objects:
        if slices and (len(slices) >= limits.rows or size + info.size > limits.bytes):
            yield Shard(shard=shard, slices=tuple(slices), rows=len(slices), bytes=size)
            slices, size, shard = [], 0, shard + 1
        slices.append(_slice(info, OBJECT, 0, 1, 0))
        size += info.size
    if slices:
        yield Shard(shard=shard, slices=tuple(slices), rows=len(slices), bytes=size)


def _slice(info: ObjectInfo, row_group: int, start: int, rows: int, first_row: int) -> Slice:
    return Slice(
        uri=info.uri,
        etag=info.etag,
        size=info.size,
        row_group=row_group,
        start=start,
        rows=rows,
        source_row=first_row + start,
    )


@dataclass(frozen=True)
class Planned:
    """The columns to read (NO_COLUMNS of objects), the shards, and once these are read what was no record, by why."""

    columns: pa.Schema
    shards: Iterator[Shard]
    skipped: dict[str, int]


def planned(spec: JobSpec, columns: pa.Schema | None, storage: Storage, settings: Settings, limits: Limits) -> Planned:
    """The input, cut into shards. `columns` is the schema to read where it is known already.

    Raises Permanent (code `bad_input`) for a file that can't be read or doesn't fit the first one.
    """
    try:
        if input_format(spec, storage) == "media":
            assert spec.task_schema.media is not None
            listed = InputFiles(storage, spec.input.uris, MEDIA[spec.task_schema.media.kind])
            return Planned(NO_COLUMNS, plan_objects(listed, limits), listed.skipped)
        files = InputFiles(storage, spec.input.uris, PARQUET)
        schema, shards = _planned_tables(spec, files, columns, storage, settings, limits)
        return Planned(schema, shards, files.skipped)
    except SpecError as error:
        raise Permanent(error.message, code="bad_input") from None


def _planned_tables(
    spec: JobSpec, files: InputFiles, columns: pa.Schema | None, storage: Storage, settings: Settings, limits: Limits
) -> tuple[pa.Schema, Iterator[Shard]]:
    def footer(info: ObjectInfo) -> Footer | BrokenFile:
        try:
            return read_footer(storage, info, settings.max_footer_mb << 20)
        except Unreadable as error:
            event(_log, "input_file_broken", logging.WARNING, uri=info.uri, error=error.message)
            return BrokenFile(info)

    footers = ahead(footer, files, FOOTER_READERS)
    before = list(_until_readable(footers))
    first = before[-1]
    if isinstance(first, BrokenFile):
        raise Permanent("none of the input files can be read as Parquet", code="bad_input")
    schema = columns if columns is not None else read_schema(spec, first.schema)
    checked = (_fitting(footer, schema, first.info.uri) for footer in chain(before, footers))
    return schema, plan_shards(checked, set(schema.names), limits)


def input_format(spec: JobSpec, storage: Storage) -> str:
    """`parquet` or `media`: as the spec says, else by the files that its first URI has.

    Raises SpecError where the task reads no media, or there is nothing of either kind.
    """
    media = spec.task_schema.media
    if media is None:
        if spec.input.format == "media":
            raise SpecError.of("input.format", f"{spec.task} reads parquet, not media")
        return "parquet"
    if spec.input.format is not None:
        return spec.input.format
    own = MEDIA[media.kind]
    either = FileKind(f"parquet or {own.name}", PARQUET.suffixes + own.suffixes)
    first = next(iter(InputFiles(storage, spec.input.uris[:1], either)))
    return "parquet" if PARQUET.has(first.uri) else "media"


def _until_readable(footers: Iterator[Footer | BrokenFile]) -> Iterator[Footer | BrokenFile]:
    """The files up to and with the first that can be read."""
    for footer in footers:
        yield footer
        if isinstance(footer, Footer):
            return


def _fitting(footer: Footer | BrokenFile, schema: pa.Schema, first: str) -> Footer | BrokenFile:
    if isinstance(footer, BrokenFile):
        return footer
    for field in schema:
        if field.name not in footer.schema.names:
            raise Permanent(
                f"{footer.info.uri} has no column {field.name!r}, which {first} has: give inputs of one schema, or "
                "leave the column out of input.keep",
                code="bad_input",
            )
        found = footer.schema.field(field.name).type
        if found != field.type and not (is_text(found) and is_text(field.type)):
            raise Permanent(
                f"column {field.name!r} of {footer.info.uri} is {found}, of {first} {field.type}: give inputs of one "
                "schema, or leave the column out of input.keep",
                code="bad_input",
            )
    return footer


@dataclass(frozen=True)
class PlanSize:
    shards: int
    rows: int
    bytes: int


def write_plan(output: str, plan: Planned, storage: Storage, owner: str) -> PlanSize:
    """Write `_plan.pq`, in bounded memory; where another planner was first, its plan stands."""
    arrow = plan_schema(plan.columns)
    with tempfile.TemporaryFile(prefix="nightshift-plan-") as file:
        with pq.ParquetWriter(file, arrow, compression="zstd") as writer:
            for rows in row_groups(plan.shards):
                writer.write_batch(to_batch(rows, arrow), row_group_size=PLAN_ROW_GROUP)
            writer.add_key_value_metadata(skipped_metadata(plan.skipped))
        with suppress(AlreadyExists):
            storage.create(child(output, PLAN), file, owner)
    return read_plan_size(output, storage)


def row_groups(shards: Iterable[Shard]) -> Iterator[list[Shard]]:
    """The shards, as many at once as a row group of the plan has: one of many objects weighs more than others."""
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


def read_plan_size(output: str, storage: Storage) -> PlanSize:
    """Shards, rows and bytes of a job's plan. Raises NotFound where it has none."""
    with storage.open(storage.stat(child(output, PLAN))) as source:
        table = pq.read_table(source, columns=["rows", "bytes"])
    total = {name: pc.sum(table[name]).as_py() or 0 for name in ("rows", "bytes")}
    return PlanSize(shards=table.num_rows, **total)

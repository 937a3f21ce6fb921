"""How is an input cut into shards? By the footers of Parquet files, or a listing of media, into a minute's work each.

Small files are joined into a shard, large row groups are split. Input order holds within and across shards.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from jobs.logs import event
from jobs.parallel_map import parallel_map
from jobs.planning.input_files import MEDIA, PARQUET, InputFiles, input_format
from jobs.planning.parquet_footers import BrokenFile, Footer, read_footer
from jobs.planning.unseen import Unseen, with_keys
from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from schemas.errors import Permanent, SpecError, Unreadable
from schemas.job import JobSpec
from schemas.output import read_schema
from schemas.plan import NO_COLUMNS, NO_ROW_GROUP, OBJECT, Planned, Shard, Slice
from schemas.task import is_text

_log = logging.getLogger(__name__)

#: Uncompressed input bytes of a shard at most, unless the spec names another number.
SHARD_BYTES = 64 << 20
#: Rows of a shard, whatever rate was measured.
MIN_ROWS, MAX_ROWS = 64, 100_000
#: Shards of a plan, unless the settings name another number.
MAX_SHARDS = 1_000_000
#: Footers that are read at once.
FOOTER_READERS = 16
#: Files whose column of keys is read at once.
KEY_READERS = 4


@dataclass(frozen=True)
class Limits:
    """The size of a shard: so many rows, or so many uncompressed bytes, whichever comes first. And of a plan."""

    rows: int
    bytes: int
    shards: int = MAX_SHARDS


def shard_limits(spec: JobSpec, rows_per_s: float | None, max_shards: int = MAX_SHARDS) -> Limits:
    """Return the spec's own limits, or else a minute's work: at the rate last measured, or at the task's guess."""
    minute = spec.task_schema.shard_rows if rows_per_s is None else int(60 * rows_per_s)
    rows = spec.shard.rows or min(max(minute, MIN_ROWS), MAX_ROWS)
    return Limits(rows, spec.shard.bytes or SHARD_BYTES, max_shards)


def plan_shards(footers: Iterable[Footer | BrokenFile], columns: set[str], limits: Limits) -> Iterator[Shard]:
    """Cut the files' row groups into shards, in order. Files without rows vanish.

    A broken file becomes a shard of its own, without rows: its worker reports the fault, and the other shards go on.
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
            # Before the first of them: cutting a million takes half a minute.
            by_bytes = min(group.rows, group.bytes // limits.bytes)
            _check_count(shard + max(group.rows // limits.rows, by_bytes), limits)
            start = 0
            while start < group.rows:
                row_bytes = group.bytes / group.rows
                room = limits.rows - rows
                if row_bytes:
                    room = min(room, int((limits.bytes - size) / row_bytes))
                take = min(group.rows - start, max(room, 0 if slices else 1))
                if take:
                    slices.append(_slice(footer.info, group.index, group.start + start, take, group.first_row))
                    start, rows, size = start + take, rows + take, size + int(take * row_bytes)
                if take == 0 or rows >= limits.rows or size + row_bytes > limits.bytes:
                    yield Shard(shard=shard, slices=tuple(slices), rows=rows, bytes=size)
                    slices, rows, size, shard = [], 0, 0, shard + 1
    if slices:
        yield Shard(shard=shard, slices=tuple(slices), rows=rows, bytes=size)


def plan_objects(objects: Iterable[ObjectInfo], limits: Limits) -> Iterator[Shard]:
    """Cut a listing into shards, in order. An object that is too large for a shard becomes one of its own."""
    slices: list[Slice] = []
    size = shard = 0
    for info in objects:
        if slices and (len(slices) >= limits.rows or size + info.size > limits.bytes):
            yield Shard(shard=shard, slices=tuple(slices), rows=len(slices), bytes=size)
            slices, size, shard = [], 0, shard + 1
        _check_count(shard, limits)
        slices.append(_slice(info, OBJECT, 0, 1, 0))
        size += info.size
    if slices:
        yield Shard(shard=shard, slices=tuple(slices), rows=len(slices), bytes=size)


def _check_count(shards: int, limits: Limits) -> None:
    if shards > limits.shards:
        raise Permanent(
            f"the plan would have more than {limits.shards:,} shards, which max_shards allows: "
            f"shards have {limits.rows:,} rows and {limits.bytes:,} bytes at most; raise shard.rows or shard.bytes",
            code="bad_input",
        )


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


def planned(
    spec: JobSpec,
    columns: pa.Schema | None,
    storage: Storage,
    settings: Settings,
    limits: Limits,
    check: Callable[[], None] = lambda: None,
    unseen: Unseen | None = None,
) -> Planned:
    """Cut the input into shards. `columns` is the schema to read, if it is known already.

    `unseen` leaves out what earlier runs of the job's series have annotated. `check` is called for each object that is
    listed and for each shard, and may raise to end this. Raise Permanent (code `bad_input`) if a file can't be read or
    doesn't fit the first one.
    """
    storage = storage.within(settings.allowed_inputs)
    may_be_empty, run = spec.missing_input == "empty", None if unseen is None else unseen.run
    try:
        if input_format(spec, storage, check) == "media":
            assert spec.task_schema.media is not None
            listed = InputFiles(storage, spec.input.uris, MEDIA[spec.task_schema.media.kind], check, may_be_empty)
            objects = listed if unseen is None else unseen.objects(listed, listed.skipped)
            return Planned(NO_COLUMNS, checked(plan_objects(objects, limits), check), listed.skipped, run)
        files = InputFiles(storage, spec.input.uris, PARQUET, check, may_be_empty)
        schema, shards = _planned_tables(spec, files, columns, storage, settings, limits, unseen)
        return Planned(schema, checked(shards, check), files.skipped, run)
    except SpecError as error:
        raise Permanent(error.message, code="bad_input") from error


def checked(shards: Iterator[Shard], check: Callable[[], None]) -> Iterator[Shard]:
    """Yield the shards, with a call of `check` for each."""
    for shard in shards:
        check()
        yield shard


def _planned_tables(
    spec: JobSpec,
    files: InputFiles,
    columns: pa.Schema | None,
    storage: Storage,
    settings: Settings,
    limits: Limits,
    unseen: Unseen | None,
) -> tuple[pa.Schema, Iterator[Shard]]:
    """Return the schema to read, and the shards. An input without a file that is to be read has NO_COLUMNS."""
    key = None if unseen is None else unseen.key

    def footer(info: ObjectInfo) -> Footer | BrokenFile:
        try:
            found = read_footer(storage, info, settings.max_footer_mb << 20)
            return found if key is None else with_keys(found, key, storage)
        except Unreadable as error:
            event(_log, "input_file_broken", logging.WARNING, uri=info.uri, error=error.message)
            return BrokenFile(info)

    infos = files if unseen is None else unseen.files(files, files.skipped)
    footers = parallel_map(footer, infos, FOOTER_READERS if key is None else KEY_READERS)
    before = list(_until_readable(footers))
    if not before:
        return NO_COLUMNS, iter(())
    first = before[-1]
    if isinstance(first, BrokenFile):
        raise Permanent("none of the input files can be read as Parquet", code="bad_input")
    schema = read_schema(spec, first.schema) if columns is None or columns == NO_COLUMNS else columns
    fitting = (_fitting(footer, schema, first.info.uri) for footer in chain(before, footers))
    wanted = fitting if unseen is None else unseen.rows(fitting, files.skipped)
    return schema, plan_shards(wanted, set(schema.names), limits)


def _until_readable(footers: Iterator[Footer | BrokenFile]) -> Iterator[Footer | BrokenFile]:
    """Yield the files up to the first that can be read, and that one."""
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

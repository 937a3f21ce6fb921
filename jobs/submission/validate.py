"""What can be judged of a job spec before anything is queued?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import pyarrow as pa

from jobs.planning.input_files import MEDIA, PARQUET, InputFiles, input_format
from jobs.planning.parquet_footers import read_footer
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.base import is_path, normalized
from jobs.submission.resolve_model import check_model_path, resolve_model
from jobs.webhooks.policy import check_notify
from schemas.errors import Problem, SpecError, Unreadable
from schemas.input_uris import MAX_GLOBS, MAX_URIS, MAX_WILDCARDS, glob_pattern, is_glob, wildcards
from schemas.job import JobSpec, ResolvedModel
from schemas.layout import Layout, child, part_name
from schemas.output import read_schema
from schemas.plan import NO_COLUMNS
from schemas.table import TableSpec

T = TypeVar("T")


@dataclass(frozen=True)
class Validated:
    """A spec with its URIs written out in full, its model pinned, and the schema of the columns it reads."""

    spec: JobSpec
    model: ResolvedModel
    columns: pa.Schema


def validate(
    spec: JobSpec, storage: Storage, settings: Settings, check: Callable[[], None] = lambda: None
) -> Validated:
    """Judge the whole spec. Raise SpecError with every problem found, Transient if a store is away.

    `check` is called for each object that is listed, and may raise to end this.
    """
    spec = with_full_uris(spec)
    problems: list[Problem] = []

    def judged(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except SpecError as error:
            problems.extend(error.problems)
            return None

    judged(lambda: check_locations(spec, settings))
    if spec.notify is not None:
        notify = str(spec.notify)
        judged(lambda: check_notify(notify, settings))
    model = judged(lambda: resolve_model(spec, storage, settings))
    inputs = storage.within(settings.allowed_inputs)
    columns = judged(lambda: _input_columns(spec, inputs, settings, check)) if not problems or model is None else None
    if problems or model is None or columns is None:
        raise SpecError(problems)
    return Validated(spec, model, columns)


def with_full_uris(spec: JobSpec) -> JobSpec:
    """Return the spec with every location absolute, as other machines need it. Raise SpecError for a foreign scheme."""
    uri = spec.input.uri
    inputs = (
        normalized(uri, "input.uri")
        if isinstance(uri, str)
        else [normalized(one, f"input.uri.{i}") for i, one in enumerate(uri)]
    )
    output: dict[str, Any] = {"uri": _full_folder(spec.output.uri, "output.uri")}
    if spec.output.latest is not None:
        output["latest"] = normalized(spec.output.latest, "output.latest")
    if spec.output.table is not None:
        location = _full_folder(spec.output.table.location, "output.table.location")
        output["table"] = spec.output.table.model_copy(update={"location": location})
    update: dict[str, Any] = {
        "input": spec.input.model_copy(update={"uri": inputs}),
        "output": spec.output.model_copy(update=output),
    }
    if spec.incremental is not None and spec.incremental.series is not None:
        series = _full_folder(spec.incremental.series, "incremental.series")
        update["incremental"] = spec.incremental.model_copy(update={"series": series})
    if isinstance(spec.reuse, str):
        update["reuse"] = _full_folder(spec.reuse, "reuse")
    return spec.model_copy(update=update)


def _full_folder(uri: str, field: str) -> str:
    return normalized(uri, field).rstrip("/") + "/"


def own_folders(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield the folders that the job writes to, beside its output: each with the field that names it."""
    if spec.incremental is not None and spec.incremental.series is not None:
        yield "incremental.series", spec.incremental.series
    if isinstance(spec.reuse, str):
        yield "reuse", spec.reuse


def check_paths(spec: JobSpec, settings: Settings) -> None:
    """Raise SpecError for a local path if none is allowed. It is quoted as written: in full it would say too much."""
    inputs = [("input.uri", uri) for uri in spec.input.uris]
    outputs = [("output.uri", spec.output.uri), ("output.latest", spec.output.latest or "s3://"), *own_folders(spec)]
    table = [] if spec.output.table is None else [("output.table.location", spec.output.table.location)]
    for field, uri in [*inputs, *outputs, *table]:
        if is_path(uri):
            settings.check_path(uri, field)
    check_model_path(spec.model, settings)


def check_locations(spec: JobSpec, settings: Settings) -> None:
    """Raise SpecError if a location may not be used, or what the job writes lies inside the input.

    Raise it too if the job is incremental and names no series.
    """
    _check_count(spec.input.uris)
    output = spec.output.uri
    settings.check_allowed(output, settings.allowed_outputs, "output.uri")
    if _is_bucket(output):
        raise SpecError.of("output.uri", f"{output!r} is a whole bucket; name a prefix in it for this job alone")
    if spec.output.latest is not None:
        _check_latest(spec.output.latest, output, settings)
    if spec.incremental is not None and spec.incremental.series is None:
        raise SpecError.of(
            "incremental",
            "only a schedule has a folder of its own for its series; name one that all the runs share, such as "
            "incremental: {series: s3://BUCKET/PREFIX/}",
        )
    for field, folder in own_folders(spec):
        _check_own_folder(field, folder, spec, settings)
    if spec.output.table is not None:
        _check_table(spec.output.table, output, settings)
    for uri in spec.input.uris:
        settings.check_allowed(uri, settings.allowed_inputs, "input.uri")
        folder = uri.rstrip("/") + "/"
        if output.startswith(folder) or (is_glob(uri) and _matches_a_part(uri, output)):
            raise SpecError.of("output.uri", f"{output!r} lies inside the input {uri!r}; write it beside that")


def _check_latest(latest: str, output: str, settings: Settings) -> None:
    """Raise SpecError unless the pointer may be written, and can't be an object of a job."""
    settings.check_allowed(latest, settings.allowed_outputs, "output.latest")
    name = latest.rpartition("/")[2]
    if not name.endswith(".json") or name.startswith("_"):
        raise SpecError.of("output.latest", f"{latest!r} has to end in a name such as latest.json, without a leading _")
    if latest.startswith(output):
        raise SpecError.of("output.latest", f"{latest!r} lies inside the output {output!r}, which is this job's alone")


def _is_bucket(uri: str) -> bool:
    return uri.startswith("s3://") and uri.count("/") == 3


def _check_own_folder(field: str, folder: str, spec: JobSpec, settings: Settings) -> None:
    """Raise SpecError if a job may not keep its series, or answers to copy, in this folder."""
    settings.check_allowed(folder, settings.allowed_outputs, field)
    if _is_bucket(folder):
        raise SpecError.of(field, f"{folder!r} is a whole bucket; name a prefix in it")
    if folder.startswith(spec.output.uri):
        raise SpecError.of(field, f"{folder!r} lies inside the output, which is one job's; name a folder beside that")
    for uri in spec.input.uris:
        is_matched = is_glob(uri) and glob_pattern(uri).fullmatch(f"{folder}seen-00000001-{'0' * 16}.parquet")
        if folder.startswith(uri.rstrip("/") + "/") or is_matched:
            raise SpecError.of(field, f"{folder!r} lies inside the input {uri!r}; name a folder beside that")


def _check_table(table: TableSpec, output: str, settings: Settings) -> None:
    """Raise SpecError if the job may not commit to the table, or its parts would lie outside of it."""
    field = "output.table.location"
    settings.check_allowed(table.location, settings.allowed_outputs, field)
    if _is_bucket(table.location):
        raise SpecError.of(field, f"{table.location!r} is a whole bucket; name a prefix in it")
    if not output.startswith(table.location) or output == table.location:
        raise SpecError.of(
            field,
            f"the output {output!r} doesn't lie below the table's location {table.location!r}: parts are added to the "
            f"table as they are; write them to {child(table.location, 'NAME-OF-THE-RUN/')}",
        )
    # Both formats' libraries take these for parts of a URL; in the names below the table, they don't decode a `%`.
    for named, uri, taken in ((field, table.location, "%?#"), ("output.uri", output, "?#")):
        if set(taken) & set(uri):
            raise SpecError.of(named, f"{uri!r} has one of {' '.join(taken)} in it, which tables can't have in paths")
    if table.catalog is not None and not any(
        fnmatchcase(table.catalog, pattern) for pattern in settings.iceberg_catalogs
    ):
        allowed = ", ".join(settings.iceberg_catalogs) or "none"
        raise SpecError.of(
            "output.table.catalog",
            f"{table.catalog!r} is none of the catalogs that jobs may commit to here ({allowed}); the operator names "
            "them in NIGHTSHIFT_ICEBERG_CATALOGS",
        )


def _matches_a_part(glob: str, output: str) -> bool:
    """Return whether the glob would match a part of the job, in either layout."""
    pattern = glob_pattern(glob)
    return any(pattern.fullmatch(layout.parts_in(output) + part_name(0, 1)) for layout in Layout)


def _check_count(uris: list[str]) -> None:
    """Raise SpecError for more URIs, globs or wildcards than can be listed in reasonable time."""
    if len(uris) > MAX_URIS:
        raise SpecError.of("input.uri", f"{len(uris):,} URIs; {MAX_URIS:,} are allowed: name prefixes or globs instead")
    globs = [uri for uri in uris if is_glob(uri)]
    if len(globs) > MAX_GLOBS:
        raise SpecError.of("input.uri", f"{len(globs):,} globs; {MAX_GLOBS:,} are allowed")
    for uri in globs:
        if wildcards(uri) > MAX_WILDCARDS:
            raise SpecError.of("input.uri", f"{uri!r} has {wildcards(uri)} wildcards; {MAX_WILDCARDS} are allowed")


def _input_columns(spec: JobSpec, storage: Storage, settings: Settings, check: Callable[[], None]) -> pa.Schema:
    """Return the columns to read, by the first footer that can be read. Planning holds every other file to it.

    Return NO_COLUMNS if the input files are pictures or sound, or if there are none and needn't be.
    """
    media, may_be_empty = spec.task_schema.media, spec.missing_input == "empty"
    if input_format(spec, storage, check) == "media" and media is not None:
        key = spec.incremental is not None and spec.incremental.key
        named = {"input.columns": spec.input.columns, "input.keep": spec.input.keep, "incremental.key": key}
        field = next((name for name, value in named.items() if value), None)
        if field is not None:
            raise SpecError.of(field, f"{media.kind} files have no columns; leave it out")
        next(iter(InputFiles(storage, spec.input.uris, MEDIA[media.kind], check, may_be_empty)), None)
        return NO_COLUMNS
    broken: Unreadable | None = None
    for info in InputFiles(storage, spec.input.uris, PARQUET, check, may_be_empty):
        try:
            return read_schema(spec, read_footer(storage, info, settings.max_footer_mb << 20).schema)
        except Unreadable as error:
            broken = broken or error
    if broken is None and may_be_empty:
        return NO_COLUMNS
    raise SpecError.of("input.uri", broken.message if broken else "no input")

"""Inputs: from the URIs of a job spec to the files they name. A file, a prefix ending in `/`, a glob, or a list."""

import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import PurePosixPath

from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, NotFound, SpecError

_GLOB = re.compile(r"[*?\[]")
_SUFFIXES = {"parquet": (".parquet", ".parq", ".pq")}


def input_files(storage: Storage, uris: list[str], format: str) -> Iterator[ObjectInfo]:
    """The files of an input, in the order of the list and of their URIs, each once.

    Under a prefix only files of the format's suffixes count, and names that begin with `_` or `.` don't, as all readers
    of Parquet folders have it. A file named outright is taken as it is. Raises SpecError where nothing matches.
    """
    seen: set[str] = set()
    for index, uri in enumerate(uris):
        field = "input.uri" if len(uris) == 1 else f"input.uri.{index}"
        found = False
        for info in _matches(storage, uri, _SUFFIXES[format], field):
            found = True
            if info.uri not in seen:
                seen.add(info.uri)
                yield info
        if not found:
            raise SpecError.of(field, f"no {format} file matches {uri!r}")


def _matches(storage: Storage, uri: str, suffixes: tuple[str, ...], field: str) -> Iterator[ObjectInfo]:
    try:
        if _GLOB.search(uri):
            prefix = uri[: _GLOB.search(uri).start()]  # type: ignore[union-attr]
            pattern = _glob_pattern(uri)
            yield from (
                info for info in storage.list(prefix) if pattern.fullmatch(info.uri) and not info.uri.endswith("/")
            )
        elif uri.endswith("/"):
            yield from (info for info in storage.list(uri) if _counts(info, uri, suffixes))
        else:
            try:
                yield storage.stat(uri)
            except NotFound:
                yield from (info for info in storage.list(uri + "/") if _counts(info, uri, suffixes))
    except (NotFound, AccessDenied) as error:
        raise SpecError.of(field, error.message) from None


def _counts(info: ObjectInfo, prefix: str, suffixes: tuple[str, ...]) -> bool:
    inside = PurePosixPath(info.uri.removeprefix(prefix)).parts
    return info.uri.lower().endswith(suffixes) and not any(part.startswith(("_", ".")) for part in inside)


def _glob_pattern(uri: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` crosses folders."""
    pieces = []
    for piece in re.split(r"(\*\*/?|\*|\?)", uri):
        if piece.startswith("**"):
            pieces.append(".*")
        elif piece in ("*", "?"):
            pieces.append("[^/]" + ("*" if piece == "*" else ""))
        else:
            pieces.append(translate(piece).removeprefix("(?s:").removesuffix(")\\Z"))
    return re.compile("".join(pieces), re.DOTALL)


def check_allowed(uri: str, allowed: list[str], settings: Settings, field: str) -> None:
    """Raises SpecError where the settings don't allow this URI."""
    if not uri.startswith("s3://") and not settings.allow_files:
        raise SpecError.of(field, f"{uri!r}: local paths are not allowed here; use s3://")
    if "*" not in allowed and not any(uri.startswith(prefix) for prefix in allowed):
        raise SpecError.of(field, f"{uri!r} is outside of what is allowed here: {', '.join(allowed)}")

"""Inputs: from the URIs of a job spec to the files they name. A file, a prefix ending in `/`, a glob, or a list."""

import re
from collections.abc import Iterator
from fnmatch import translate
from itertools import islice

from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, NotFound, SpecError

_GLOB = re.compile(r"[*?\[]")
_SUFFIXES = {"parquet": (".parquet", ".parq", ".pq")}


def input_files(storage: Storage, uris: list[str], format: str) -> Iterator[ObjectInfo]:
    """The files of an input, in the order of the list and of their URIs, each once.

    Under a prefix only files of the format's suffixes count, and names that begin with `_` or `.` don't, as all readers
    of Parquet folders have it. A file named outright is taken as it is; a name with `[` in it is tried as it stands
    before it is taken for a glob. Raises SpecError where nothing matches.
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
        literal = list(islice(_literally(storage, uri, suffixes), 1))
        if literal or not _GLOB.search(uri):
            yield from _literally(storage, uri, suffixes)
            return
        prefix = re.split(_GLOB, uri, maxsplit=1)[0]
        pattern = glob_pattern(uri)
        for info in storage.list(prefix):
            if pattern.fullmatch(info.uri) and not info.uri.endswith("/") and not _hidden(info.uri, prefix):
                yield info
    except (NotFound, AccessDenied) as error:
        raise SpecError.of(field, error.message) from None


def _literally(storage: Storage, uri: str, suffixes: tuple[str, ...]) -> Iterator[ObjectInfo]:
    """The file of this name, else the files below a folder of this name."""
    if not uri.endswith("/"):
        try:
            yield storage.stat(uri)
            return
        except NotFound:
            uri += "/"
    yield from (
        info for info in storage.list(uri) if info.uri.lower().endswith(suffixes) and not _hidden(info.uri, uri)
    )


def _hidden(uri: str, prefix: str) -> bool:
    """Whether a name below the prefix begins with `_` or `.`, and so is no data to any reader of Parquet folders."""
    inside = uri.removeprefix(prefix).split("/")
    names = inside if prefix.endswith("/") else inside[1:]
    return any(name.startswith(("_", ".")) for name in names)


def glob_pattern(uri: str) -> re.Pattern[str]:
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

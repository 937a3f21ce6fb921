"""Inputs: from the URIs of a job spec to the files they name. A file, a prefix ending in `/`, a glob, or a list."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import islice

from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, NotFound, SpecError
from schemas.task import Kind

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FileKind:
    """Files of one kind, by the endings of their names."""

    name: str
    suffixes: tuple[str, ...]

    def has(self, uri: str) -> bool:
        return uri.lower().endswith(self.suffixes)


PARQUET = FileKind("parquet", (".parquet", ".parq", ".pq"))
MEDIA = {
    Kind.IMAGE: FileKind("image", (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")),
    Kind.AUDIO: FileKind("audio", (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a")),
}


@dataclass
class InputFiles:
    """The files of an input, in the order of the list and of their URIs, each once; iterated over page by page.

    Under a prefix, or a glob that names no ending, only files of the kind's suffixes count, and names that begin with
    `_` or `.` don't, as all readers of Parquet folders have it. A file named outright is taken as it is; a name with
    `[` in it is tried as it stands before it is taken for a glob.

    `skipped` counts what did not count, by why. Iterating raises SpecError where nothing matches.
    """

    storage: Storage
    uris: list[str]
    kind: FileKind
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[ObjectInfo]:
        self.skipped.clear()
        earlier: list[_Pattern] = []
        for index, uri in enumerate(self.uris):
            place = "input.uri" if len(self.uris) == 1 else f"input.uri.{index}"
            try:
                pattern = self._pattern(uri)
                found = False
                for info in self._list(pattern):
                    found = True
                    if not any(one.takes(info.uri) for one in earlier):
                        yield info
            except (NotFound, AccessDenied) as error:
                raise SpecError.of(place, error.message) from None
            if not found:
                seen = ", ".join(f"{count:,} {why}" for why, count in sorted(self.skipped.items()))
                other = f"; what is there: {seen}" if seen else ""
                raise SpecError.of(place, f"no {self.kind.name} file matches {uri!r}{other}")
            earlier.append(pattern)

    def _pattern(self, uri: str) -> "_Pattern":
        if not uri.endswith("/"):
            try:
                return _Pattern(uri, self.kind, file=self.storage.stat(uri))
            except NotFound:
                pass
        folder = _Pattern(uri.rstrip("/") + "/", self.kind)
        if _GLOB.search(uri) and not any(True for _ in islice(filter(folder.takes, self._uris(folder.uri)), 1)):
            return _Pattern(uri, self.kind, glob=glob_pattern(uri))
        return folder

    def _uris(self, prefix: str) -> Iterator[str]:
        return (info.uri for info in self.storage.list(prefix))

    def _list(self, pattern: "_Pattern") -> Iterator[ObjectInfo]:
        if pattern.file is not None:
            yield pattern.file
            return
        for info in self.storage.list(pattern.prefix):
            why = pattern.why_not(info.uri)
            if why is None:
                yield info
            elif why:
                self.skipped[why] += 1


@dataclass(frozen=True)
class _Pattern:
    """What one URI of an input stands for: a file, a glob, or else a folder."""

    uri: str
    kind: FileKind
    file: ObjectInfo | None = None
    glob: re.Pattern[str] | None = None

    @property
    def prefix(self) -> str:
        """What all its URIs begin with."""
        return self.uri if self.glob is None else re.split(_GLOB, self.uri, maxsplit=1)[0]

    def takes(self, uri: str) -> bool:
        return self.why_not(uri) is None

    def why_not(self, uri: str) -> str | None:
        """None for a file that counts; else why not, or "" for one that was not meant at all."""
        if self.file is not None:
            return None if uri == self.uri else ""
        if not (self.glob.fullmatch(uri) if self.glob is not None else uri.startswith(self.uri)):
            return ""
        if uri.endswith("/"):
            return "folder markers"
        if _hidden(uri, self.prefix):
            return "hidden files"
        names_ending = self.glob is not None and re.search(r"\.\w+$", self.uri)
        return None if names_ending or self.kind.has(uri) else "files of other kinds"


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

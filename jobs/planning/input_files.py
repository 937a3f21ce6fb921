"""Which files does an input name? Its URIs are files, prefixes ending in `/`, globs, or a list of these."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import islice

from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, NotFound, SpecError
from schemas.job import JobSpec
from schemas.task import Kind

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FileKind:
    """Files of one kind, recognised by the endings of their names."""

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
    """The files of an input, each once, in the order of the list and of their URIs. They are listed page by page.

    Under a prefix, or a glob without an ending, only files with the kind's suffixes are taken, and no names that begin
    with `_` or `.`, as with all readers of Parquet folders. A file that is named in full is always taken. A name with
    `[` in it is looked up as it is before it is read as a glob.

    Files of other kinds are skipped and counted in `skipped`, by reason. Iterating raises SpecError if nothing matches.
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


def input_format(spec: JobSpec, storage: Storage) -> str:
    """Return `parquet` or `media`: as the spec says, or else by the files that its first URI names.

    Raise SpecError if the task reads no media, or there are no files of either kind.
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


@dataclass(frozen=True)
class _Pattern:
    """One URI of an input: a file, a glob, or else a folder."""

    uri: str
    kind: FileKind
    file: ObjectInfo | None = None
    glob: re.Pattern[str] | None = None

    @property
    def prefix(self) -> str:
        """The part that all matching URIs begin with."""
        return self.uri if self.glob is None else re.split(_GLOB, self.uri, maxsplit=1)[0]

    def takes(self, uri: str) -> bool:
        return self.why_not(uri) is None

    def why_not(self, uri: str) -> str | None:
        """Return why a file is skipped: None if it is taken, "" if the pattern doesn't match it at all."""
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
    """Return whether a name below the prefix begins with `_` or `.`: readers of Parquet folders skip those."""
    inside = uri.removeprefix(prefix).split("/")
    names = inside if prefix.endswith("/") else inside[1:]
    return any(name.startswith(("_", ".")) for name in names)


def glob_pattern(uri: str) -> re.Pattern[str]:
    """Compile a glob. `*` and `?` stay within a folder, `**` crosses folders."""
    pieces = []
    for piece in re.split(r"(\*\*/?|\*|\?)", uri):
        if piece.startswith("**"):
            pieces.append(".*")
        elif piece in ("*", "?"):
            pieces.append("[^/]" + ("*" if piece == "*" else ""))
        else:
            pieces.append(translate(piece).removeprefix("(?s:").removesuffix(")\\Z"))
    return re.compile("".join(pieces), re.DOTALL)

"""Which files does an input name? Its URIs are files, prefixes ending in `/`, globs, or a list of these."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from jobs.parallel_map import parallel_map
from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, NotFound, SpecError
from schemas.input_uris import fixed_prefix, glob_pattern, is_glob
from schemas.job import JobSpec
from schemas.task import Kind

#: URIs of an input that are looked up at once.
_LOOKUPS = 16


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


def _no_check() -> None: ...


@dataclass
class InputFiles:
    """The files of an input, each once, in the order of the list and of their URIs. They are listed page by page.

    Under a prefix, or a glob without an ending, only files with the kind's suffixes are taken, and no names that begin
    with `_` or `.`, as with all readers of Parquet folders. A file that is named in full is always taken. A name with
    `[` in it is looked up as it is before it is read as a glob.

    Files of other kinds are skipped and counted in `skipped`, by reason. Iterating raises SpecError if nothing matches
    one of the URIs, unless they `may_be_empty`. `check` is called for each URI and each object that is listed: it
    raises if this has gone on for long enough.
    """

    storage: Storage
    uris: list[str]
    kind: FileKind
    check: Callable[[], None] = _no_check
    may_be_empty: bool = False
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[ObjectInfo]:
        self.skipped.clear()
        uris = dict.fromkeys(self.uris)
        patterns = parallel_map(self._pattern, uris, _LOOKUPS)
        earlier = _Earlier()
        for index, uri in enumerate(uris):
            place = "input.uri" if len(self.uris) == 1 else f"input.uri.{index}"
            try:
                pattern = next(patterns)
                found = False
                for info in self._list(pattern):
                    found = True
                    if not earlier.takes(info.uri):
                        yield info
            except (NotFound, AccessDenied) as error:
                raise SpecError.of(place, error.message) from error  # which says whether another try may go well
            if not found and not self.may_be_empty:
                seen = ", ".join(f"{count:,} {why}" for why, count in sorted(self.skipped.items()))
                other = f"; what is there: {seen}" if seen else ""
                raise SpecError.of(place, f"no {self.kind.name} file matches {uri!r}{other}")
            earlier.add(pattern)

    def _pattern(self, uri: str) -> "_Pattern":
        self.check()
        if not uri.endswith("/"):
            try:
                return _Pattern(uri, self.kind, file=self.storage.stat(uri))
            except NotFound:
                pass
        folder = _Pattern(uri.rstrip("/") + "/", self.kind)
        if is_glob(uri) and not any(True for _ in islice(filter(folder.takes, self._uris(folder.uri)), 1)):
            return _Pattern(uri, self.kind, glob=glob_pattern(uri))
        return folder

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in self.storage.list(prefix):
            self.check()
            yield info

    def _uris(self, prefix: str) -> Iterator[str]:
        return (info.uri for info in self._listed(prefix))

    def _list(self, pattern: "_Pattern") -> Iterator[ObjectInfo]:
        if pattern.file is not None:
            yield pattern.file
            return
        for info in self._listed(pattern.prefix):
            why = pattern.why_not(info.uri)
            if why is None:
                yield info
            elif why:
                self.skipped[why] += 1


class _Earlier:
    """The patterns of an input that were listed before, to ask whether they took a file already."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, _Pattern] = {}
        self._globs: list[_Pattern] = []

    def add(self, pattern: "_Pattern") -> None:
        if pattern.file is not None:
            self._files.add(pattern.uri)
        elif pattern.glob is not None:
            self._globs.append(pattern)
        else:
            self._folders[pattern.uri] = pattern

    def takes(self, uri: str) -> bool:
        if uri in self._files or any(glob.takes(uri) for glob in self._globs):
            return True
        ends = (place for place, char in enumerate(uri) if char == "/") if self._folders else ()
        folders = (self._folders.get(uri[: end + 1]) for end in ends)
        return any(folder is not None and folder.takes(uri) for folder in folders)


def input_format(spec: JobSpec, storage: Storage, check: Callable[[], None] = _no_check) -> str:
    """Return `parquet` or `media`: as the spec says, or else by the first file that its URIs name.

    Raise SpecError if the task reads no media, or there are no files of either kind and there must be.
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
    may_be_empty = spec.missing_input == "empty"
    uris = spec.input.uris if may_be_empty else spec.input.uris[:1]
    first = next(iter(InputFiles(storage, uris, either, check, may_be_empty)), None)
    return "parquet" if first is None or PARQUET.has(first.uri) else "media"


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
        return self.uri if self.glob is None else fixed_prefix(self.uri)

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

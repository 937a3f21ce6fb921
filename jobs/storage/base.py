"""What a store is, what it says of an object, and how URIs are written."""

import io
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from jobs.settings import Settings
from schemas.errors import NightshiftError, SpecError
from schemas.redaction import has_secret

#: Characters of a URI: keys of S3 have 1,024 bytes, paths of Linux 4,096.
MAX_URI = 5_000


@dataclass(frozen=True)
class ObjectInfo:
    """One object as it was seen: `etag` changes whenever its content does, `size` is in bytes."""

    uri: str
    size: int
    etag: str


class PinnedReader(io.RawIOBase):
    """A seekable reader of one version of an object.

    If a read fails, `failure` keeps the error: a library that reads through this file, such as pyarrow, may raise one
    of its own instead. `on_read` is called after each read that brought bytes.
    """

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__()
        self.info = info
        self.failure: NightshiftError | None = None
        self.on_read: Callable[[], None] = lambda: None
        self._position = 0

    @abstractmethod
    def _read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`, both inside the object."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.info.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.info.size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        try:
            data = self._read_at(self._position, length)
        except NightshiftError as error:
            self.failure = error
            raise
        self.on_read()
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class Store(Protocol):
    """See `Storage`, which has the same methods and says what each promises."""

    def stat(self, uri: str) -> ObjectInfo: ...
    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...
    def open(self, info: ObjectInfo) -> PinnedReader: ...
    def read(self, uri: str) -> bytes: ...
    def content(self, info: ObjectInfo) -> str: ...
    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo: ...
    def update(self, uri: str, change: Callable[[bytes | None], bytes | None], owner: str) -> None: ...
    def delete(self, uri: str) -> None: ...
    def refuses_overwrite(self, uri: str) -> bool: ...


def is_path(uri: str) -> bool:
    """Return whether a URI, as it was written, is a local path."""
    return "://" not in uri or uri.startswith("file:")


def normalized(uri: str, field: str) -> str:
    """Return the URI as Nightshift writes it: `s3://bucket/key`, or an absolute local path. A trailing slash stays.

    Raise SpecError, naming `field`, for any other scheme, and for a URI with a password or a signature in it, which
    would be kept with the job.
    """
    if len(uri) > MAX_URI:
        raise SpecError.of(field, f"{uri[:80]!r}… has {len(uri):,} characters; {MAX_URI:,} are allowed")
    if "\0" in uri:
        raise SpecError.of(field, f"{uri!r} has a zero byte in it, which no store allows")
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme == "s3":
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise SpecError.of(field, f"{uri!r} names no bucket; write s3://BUCKET/PREFIX/")
        if has_secret(uri):
            raise SpecError.of(
                field, f"{uri!r} has credentials in it; write s3://BUCKET/KEY alone, they come from AWS's own settings"
            )
        # Some stores and proxies would resolve them, behind every check of a prefix; some decode first, or twice.
        if {".", ".."} & {part for text in _decoded(uri) for part in text.split("/")}:
            raise SpecError.of(field, f"{uri!r} has a '.' or '..' in its path; write the location out")
        return f"s3://{bucket}/{key}"
    if scheme not in ("", "file"):
        raise SpecError.of(field, f"{uri!r}: {scheme}:// is not supported; use s3:// or a local path")
    path = unquote(urlsplit(uri).path) if scheme else uri
    try:
        absolute = str(Path(path).expanduser().absolute().resolve())
    except (RuntimeError, OSError, ValueError) as error:  # a loop of links, an unknown user's home, a zero byte
        raise SpecError.of(field, f"{uri!r} is no path: {error}") from None
    return absolute + "/" if path.endswith("/") and not absolute.endswith("/") else absolute


def _decoded(text: str) -> list[str]:
    """Return the text, and what percent-decoding it up to three times makes of it."""
    found = [text]
    while len(found) < 4 and (once := unquote(found[-1])) != found[-1]:
        found.append(once)
    return found


def named_in_row(uri: str, table: str, settings: Settings) -> str:
    """Return the URI in a table's row in full. One without a scheme or root is relative to the table's folder.

    Raise SpecError as `normalized` does, and for a URI that the settings don't allow as an input.
    """
    relative = "://" not in uri and not uri.startswith("/")
    full = normalized(table.rpartition("/")[0] + "/" + uri if relative else uri, "uri")
    settings.check_allowed(full, settings.allowed_inputs, "uri")
    return full

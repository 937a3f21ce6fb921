"""Local folders as a store. An object appears whole or not at all: written aside, synced, then hard-linked.

A store that is confined to some folders follows symbolic links only to files in these. So nobody reads a file through a
link that they may not read by its name.
"""

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO, FileIO
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from jobs.storage.base import ObjectInfo, PinnedReader
from schemas.errors import AccessDenied, AlreadyExists, InputChanged, LinkRefused, NotFound, Permanent, Transient

_CHUNK = 8 << 20
#: How the name of a file begins that is being written: it is no object yet, and not listed.
_ASIDE = "_tmp-"
#: Digests that are remembered, and seconds for which a file must have been left alone before its digest is.
_DIGESTS = 10_000
_SETTLED_S = 2


@contextmanager
def _translated(path: str) -> Iterator[None]:
    """Raise the operating system's errors as ours, by their class and errno."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except FileExistsError:
        raise AlreadyExists(f"{path} exists already") from None
    except PermissionError:
        raise AccessDenied(f"no permission for {path}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise NotFound(f"there is no file {path}: the name is too long") from None
        raise Transient(f"{path}: {error.strerror or error}") from error


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")


class _LocalReader(PinnedReader):
    def __init__(self, info: ObjectInfo, file: FileIO) -> None:
        super().__init__(info)
        self._file = file

    def _read_at(self, offset: int, length: int) -> bytes:
        with _translated(self.info.uri):
            data = os.pread(self._file.fileno(), length, offset)
            if _info(self.info.uri, os.fstat(self._file.fileno())) != self.info:
                raise InputChanged(f"{self.info.uri} was changed after the job was planned; submit a new job for it")
        return data

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class LocalStore:
    """The files of this machine. Links lead only into `roots`, prefixes of real paths, if there are any."""

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        self._roots = None if roots is None else tuple(roots)
        self._digests: dict[str, tuple[ObjectInfo, tuple[int, ...], str]] = {}

    def within(self, roots: Sequence[str]) -> "LocalStore":
        """Return the same files, confined to these roots."""
        confined = LocalStore(roots)
        confined._digests = self._digests
        return confined

    def _check(self, path: str) -> None:
        """Raise AccessDenied if a link on the path leads out of the roots."""
        if self._roots is not None:
            real = os.path.realpath(path)
            if not any(f"{real}/".startswith(root) for root in self._roots):
                raise LinkRefused(f"{path} is outside of what may be used here, or leads there by a symbolic link")

    def stat(self, uri: str) -> ObjectInfo:
        with _translated(uri):
            self._check(uri)
            status = Path(uri).stat()
            if not Path(uri).is_file():
                raise IsADirectoryError
            return _info(uri, status)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder, start = os.path.split(prefix)
        with _translated(prefix):
            if Path(folder).is_dir():
                self._check(folder)
                yield from self._walk(folder, start)

    def _walk(self, folder: str, start: str = "") -> Iterator[ObjectInfo]:
        """Yield the files below `folder` in the order of their URIs, as S3 lists keys."""
        with os.scandir(folder) as entries:
            found = [e for e in entries if e.name.startswith(start) and not e.name.startswith(_ASIDE)]
        for entry in sorted(found, key=lambda entry: entry.name + "/" * entry.is_dir()):
            if entry.is_symlink():
                self._check(entry.path)
            if entry.is_dir():
                yield from self._walk(entry.path)
            elif entry.is_file():
                yield _info(entry.path, entry.stat())

    def open(self, info: ObjectInfo) -> PinnedReader:
        try:
            return _LocalReader(info, self._opened(info.uri))
        except NotFound:
            raise InputChanged(f"{info.uri} is gone after the job was planned; submit a new job for it") from None

    def read(self, uri: str) -> bytes:
        with self._opened(uri) as file, _translated(uri):
            return file.readall()

    def _opened(self, path: str) -> FileIO:
        """Open a file to read. Raise AccessDenied if what was opened doesn't lie within the roots."""
        with _translated(path), ExitStack() as stack:
            file = stack.enter_context(Path(path).open("rb", buffering=0))
            self._check(path)
            if self._roots is not None:
                # A link may be changed between the two steps: then this is another file than the one that was checked.
                opened, now = os.fstat(file.fileno()), Path(os.path.realpath(path)).lstat()
                if (opened.st_dev, opened.st_ino) != (now.st_dev, now.st_ino):
                    raise AccessDenied(f"{path} was replaced while it was opened")
            stack.pop_all()
            return file

    def content(self, info: ObjectInfo) -> str:
        """A digest, since times differ between machines. A file is not read again while its inode's times stay, of
        which no program can set the second back; one written just now may be written again within a tick of the clock.
        """
        before, now = self._identity(info.uri), time.time_ns()
        known = self._digests.get(info.uri)
        if known is not None and known[:2] == (info, before):
            return known[2]
        digest = hashlib.sha256()
        with self.open(info) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        found = digest.hexdigest()
        if self._identity(info.uri) == before and now - max(before[-2:]) > _SETTLED_S * 1e9:
            if len(self._digests) >= _DIGESTS:
                self._digests.clear()
            self._digests[info.uri] = (info, before, found)
        return found

    @staticmethod
    def _identity(path: str) -> tuple[int, ...]:
        with _translated(path):
            status = Path(path).stat()
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        target = Path(uri)
        aside = target.with_name(f"{_ASIDE}{owner}-{secrets.token_hex(4)}")
        try:
            made = list(takewhile(lambda folder: not folder.exists(), (target.parent, *target.parent.parents)))
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AccessDenied(f"can't make the folder {target.parent}: {error.strerror}") from None
        self._check(str(target.parent))
        with _translated(uri):
            try:
                with aside.open("xb") as file:
                    source = BytesIO(body) if isinstance(body, bytes) else body
                    source.seek(0)
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    os.link(aside, target)
                except OSError as error:
                    if isinstance(error, FileExistsError):
                        raise
                    raise Permanent(f"{target.parent} can't hard-link files, which commits rely on: {error}") from error
                for folder in (target.parent, *(one.parent for one in made)):
                    self._sync_folder(folder)
                return _info(uri, target.stat())
            finally:
                aside.unlink(missing_ok=True)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def refuses_overwrite(self, uri: str) -> bool:
        return True

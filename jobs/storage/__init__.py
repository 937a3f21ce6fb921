"""Storage: one interface over S3 and local folders, chosen by a URI's scheme.

A store can stat, list, open for ranged reads pinned to an etag, and create once. It never overwrites.
"""

from collections.abc import Iterator
from typing import BinaryIO

from jobs.storage.base import ObjectInfo, PinnedReader, Store
from jobs.storage.local import LocalStore

__all__ = ["ObjectInfo", "PinnedReader", "Storage"]


class Storage:
    """The stores that this process uses; each is made at its first use. Threads may share one."""

    def __init__(self) -> None:
        self._local = LocalStore()
        self._s3: Store | None = None

    def _store(self, uri: str) -> Store:
        if not uri.startswith("s3://"):
            return self._local
        if self._s3 is None:
            from jobs.storage.s3 import S3Store  # boto3 takes a third of a second to import

            self._s3 = S3Store()
        return self._s3

    def stat(self, uri: str) -> ObjectInfo:
        """Size and etag of one object. Raises NotFound, AccessDenied, Transient."""
        return self._store(uri).stat(uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The objects whose URI begins with `prefix`, page by page, in order of URI. None is no error.

        Raises NotFound where the bucket doesn't exist, AccessDenied, Transient.
        """
        return self._store(prefix).list(prefix)

    def open(self, info: ObjectInfo) -> PinnedReader:
        """A seekable reader of exactly the object that `info` describes: InputChanged where it has changed since."""
        return self._store(info.uri).open(info)

    def read(self, uri: str) -> bytes:
        """A whole small object. Raises NotFound, AccessDenied, Transient."""
        return self._store(uri).read(uri)

    def content(self, info: ObjectInfo) -> str:
        """What stands for the content of an object, on whatever machine: in S3 its etag, of a local file a digest.

        Raises InputChanged where the object is another one by now, and as `read` does.
        """
        return self._store(info.uri).content(info)

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        """Create an object that must not exist yet; a file is read from its beginning.

        `owner` tells one creator from another: where the object exists and is this owner's own, of a request whose
        answer was lost, that counts as created. Raises AlreadyExists otherwise, AccessDenied, Transient.
        """
        return self._store(uri).create(uri, body, owner)

    def refuses_overwrite(self, uri: str) -> bool:
        """Whether the store at `uri`, where an object exists, refuses to create it again."""
        return self._store(uri).refuses_overwrite(uri)

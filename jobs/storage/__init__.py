"""Storage: one interface over S3 and local folders, chosen by a URI's scheme.

A store can stat, list, open for ranged reads pinned to an etag, and create once. What a job wrote is never overwritten:
only a pointer is, by a condition on what it was.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import BinaryIO

from jobs.storage.base import ObjectInfo, PinnedReader, Store
from jobs.storage.local import LocalStore

__all__ = ["ObjectInfo", "PinnedReader", "Storage"]


class Storage:
    """The stores that this process uses; each is made at its first use. Threads may share one."""

    def __init__(self) -> None:
        self._local = LocalStore()
        self._whole = self
        self._s3: Store | None = None

    def within(self, prefixes: Iterable[str]) -> "Storage":
        """Return the same stores, with symbolic links of local folders followed only into these prefixes.

        `*` among them confines nothing. In S3 there are no links. Which URIs may be used at all is checked elsewhere.
        """
        prefixes = list(prefixes)
        if "*" in prefixes:
            return self
        confined = copy(self)
        confined._local = self._local.within(prefixes)
        return confined

    def _store(self, uri: str) -> Store:
        if not uri.startswith("s3://"):
            return self._local
        whole = self._whole
        if whole._s3 is None:
            from jobs.storage.s3 import S3Store  # boto3 takes a third of a second to import

            whole._s3 = S3Store()
        return whole._s3

    def stat(self, uri: str) -> ObjectInfo:
        """Return size and etag of one object. Raise NotFound, AccessDenied or Transient."""
        return self._store(uri).stat(uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose URI begins with `prefix`, page by page, in order of URI. There may be no such object.

        Raise NotFound if the bucket doesn't exist, AccessDenied or Transient.
        """
        return self._store(prefix).list(prefix)

    def open(self, info: ObjectInfo) -> PinnedReader:
        """Return a seekable reader of exactly the object that `info` describes.

        Raise InputChanged, here or in a read, if the object has changed since.
        """
        return self._store(info.uri).open(info)

    def read(self, uri: str) -> bytes:
        """Return the bytes of a small object. Raise NotFound, AccessDenied or Transient."""
        return self._store(uri).read(uri)

    def content(self, info: ObjectInfo) -> str:
        """Return what identifies the object's content on every machine: its etag in S3, a digest of a local file.

        Raise InputChanged if the object has changed since, and what `read` raises.
        """
        return self._store(info.uri).content(info)

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        """Create an object that must not exist yet; a file is read from its beginning.

        `owner` tells one creator from another. If the object exists and this owner made it, in a request whose answer
        was lost, it counts as created. Raise AlreadyExists if another owner made it, AccessDenied or Transient.
        """
        return self._store(uri).create(uri, body, owner)

    def update(self, uri: str, change: Callable[[bytes | None], bytes | None], owner: str) -> None:
        """Write a small object anew in one step. `change` gets its bytes and returns the new ones.

        It gets None if there is no object, and returns None to leave all as it is. If another writer was first, it is
        called again. Raise what it raises, AccessDenied or Transient.
        """
        self._store(uri).update(uri, change, owner)

    def delete(self, uri: str) -> None:
        """Delete an object. There may be none. Raise AccessDenied or Transient."""
        self._store(uri).delete(uri)

    def refuses_overwrite(self, uri: str) -> bool:
        """Return whether the store refuses to create the object at `uri`, which exists, again."""
        return self._store(uri).refuses_overwrite(uri)

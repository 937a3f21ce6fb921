"""Storage of the simulated world: objects in memory, created once, seen through each machine's own faults."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from jobs.storage import ObjectInfo, PinnedReader, Storage
from schemas.errors import AlreadyExists, NotFound, Transient
from tests.simulation.world import World


class Objects:
    """What all machines share. `log` has each creation, in order."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.owner: dict[str, str] = {}
        self.log: list[tuple[float, str]] = []
        #: Until when each machine, or everyone ("") gets an error, which, and of objects that begin with what.
        self.faults: dict[str, tuple[float, type[Exception], str]] = {}
        #: The chance that the answer to a creation is lost.
        self.lost_answers = 0.0


class _Reader(PinnedReader):
    def __init__(self, info: ObjectInfo, data: bytes) -> None:
        super().__init__(info)
        self._data = data

    def _read_at(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]


class SimStore:
    """The store as one machine sees it."""

    def __init__(self, world: World, objects: Objects, host: str) -> None:
        self._world = world
        self._objects = objects
        self._host = host

    def within(self, roots: Sequence[str]) -> "SimStore":
        return self

    def _step(self, uri: str) -> None:
        self._world.step("storage")
        for name in (self._host, ""):
            until, kind, start = self._objects.faults.get(name, (0.0, Transient, ""))
            if until > self._world.now and self._world.process is not None and uri.startswith(start):
                raise kind(f"{uri} (simulated)")

    def _info(self, uri: str) -> ObjectInfo:
        data = self._objects.content.get(uri)
        if data is None:
            raise NotFound(f"there is no {uri}")
        return ObjectInfo(uri, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())

    def stat(self, uri: str) -> ObjectInfo:
        self._step(uri)
        return self._info(uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._step(prefix)
        for uri in sorted(self._objects.content):
            if uri.startswith(prefix):
                yield self._info(uri)

    def open(self, info: ObjectInfo) -> PinnedReader:
        self._step(info.uri)
        return _Reader(info, self._objects.content[info.uri])

    def read(self, uri: str) -> bytes:
        self._step(uri)
        self._info(uri)
        return self._objects.content[uri]

    def content(self, info: ObjectInfo) -> str:
        return info.etag

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        if isinstance(body, bytes):
            data = body
        else:
            body.seek(0)
            data = body.read()
        self._step(uri)
        if uri in self._objects.content:
            if self._objects.owner[uri] == owner:
                return self._info(uri)
            raise AlreadyExists(f"{uri} exists already")
        self._objects.content[uri] = data
        self._objects.owner[uri] = owner
        self._objects.log.append((self._world.now, uri))
        if self._world.random.random() < self._objects.lost_answers:
            raise Transient(f"{uri}: the answer was lost (simulated)")
        return self._info(uri)

    def refuses_overwrite(self, uri: str) -> bool:
        self._step(uri)
        return True


def storage_of(world: World, objects: Objects, host: str) -> Storage:
    storage = Storage()
    storage._local = SimStore(world, objects, host)  # type: ignore[assignment]
    return storage

"""Is one object denied, or are the credentials refused? A witness tells: an object of the same place, read before."""

from jobs.storage import ObjectInfo, Storage
from schemas.errors import AccessDenied, InputChanged

#: Places whose witness is remembered.
_REMEMBERED = 10_000


def place_of(uri: str) -> str:
    """Return the bucket of an object, or the folder of a local file."""
    parts = uri.split("/")
    return "/".join(parts[:3] if uri.startswith("s3://") else parts[:-1])


class Witnesses:
    """The object read last in each bucket or folder. Threads may share one."""

    def __init__(self) -> None:
        self._found: dict[str, ObjectInfo] = {}

    def note(self, info: ObjectInfo) -> None:
        """Remember that the object was read. An empty one is no witness: it is read without asking the store."""
        if info.size:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[place_of(info.uri)] = info

    def readable(self, place: str, storage: Storage) -> bool | None:
        """Return whether the witness of a place can be read now; None if there is no witness.

        Raise Transient if the store is away.
        """
        info = self._found.get(place)
        return None if info is None else not is_denied(info, storage)


def is_denied(info: ObjectInfo, storage: Storage) -> bool:
    """Return whether the store refuses to show the object. Raise Transient if the store is away."""
    try:
        with storage.open(info) as source:
            source.read(1)
    except AccessDenied:
        return True
    except InputChanged:  # the store says so only to those that may read there
        return False
    return False

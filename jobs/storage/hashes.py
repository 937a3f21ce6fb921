"""How are millions of things told apart in bounded memory? By hashes of 16 bytes, in sorted arrays."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

#: Hashes, one a row: an array of two columns, the first and the last eight bytes.
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]

#: Bytes of a hash: two of ten million are equal by chance once in 10^24 cases.
SIZE = 16
HASH = pa.binary(SIZE)
_DTYPE = np.dtype("<u8")


def hashes(values: Iterable[bytes]) -> Hashes:
    """Return the hash of each value."""
    return from_bytes(b"".join([blake2b(value, digest_size=SIZE).digest() for value in values]))


def from_bytes(data: bytes) -> Hashes:
    """Return the hashes that these bytes are, one after the other."""
    return np.frombuffer(data, _DTYPE).reshape(-1, 2)


def key_hashes(column: pa.Array) -> tuple[Hashes, Mask]:
    """Return the hash of each value, and which of them are null. Equal values have equal hashes, however stored."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if str(column.type) not in ("string", "large_string"):
        column = column.cast(pa.large_string())
    nulls: Mask = column.is_null().to_numpy(zero_copy_only=False)
    return hashes(pc.fill_null(column.cast(pa.large_binary()), b"").to_pylist()), nulls


def to_arrow(found: Hashes) -> pa.Array:
    """Return hashes as an Arrow array."""
    return pa.Array.from_buffers(HASH, len(found), [None, pa.py_buffer(np.ascontiguousarray(found).view(np.uint8))])


def from_arrow(column: pa.Array) -> Hashes:
    """Return the hashes of an Arrow array, which has no nulls. The bytes are not copied."""
    return from_bytes(column.buffers()[1])[column.offset : column.offset + len(column)]


@dataclass(frozen=True)
class _Run:
    """Hashes sorted by their first half."""

    first: Hashes
    last: Hashes

    @classmethod
    def of(cls, first: Hashes, last: Hashes) -> "_Run":
        # Stable sorting takes runs that are sorted already as they are: joining two takes a single pass.
        order = np.argsort(first, kind="stable")
        first, last = first[order], last[order]
        del order
        if len(first) > 1:
            new = np.append(True, (first[1:] != first[:-1]) | (last[1:] != last[:-1]))
            if not new.all():
                first, last = first[new], last[new]
        return cls(first, last)

    def places(self, found: Hashes) -> NDArray[np.int64]:
        """Return where in the run each hash is, or -1."""
        first, last = np.ascontiguousarray(found[:, 0]), found[:, 1]
        places = np.searchsorted(self.first, first)
        answer = np.full(len(first), -1, np.int64)
        left = np.flatnonzero(places < len(self.first))
        while len(left):  # once, unless two hashes have the same first half
            at = places[left]
            same = self.first[at] == first[left]
            equal = same & (self.last[at] == last[left])
            answer[left[equal]] = at[equal]
            left = left[same & ~equal]
            places[left] += 1
            left = left[places[left] < len(self.first)]
        return answer


class HashSet:
    """A set of hashes, in 16 bytes each and three times that while it grows.

    It is kept as sorted runs. Two are joined if the second is at least half as long as the first, so there are few.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        """Return how many hashes were added. One that was added twice may count twice until `sorted` is called."""
        return sum(len(run.first) for run in self._runs)

    def add(self, found: Hashes) -> None:
        """Add hashes, in any order."""
        self._runs.append(_Run.of(found[:, 0], found[:, 1]))
        while len(self._runs) > 1 and 2 * len(self._runs[-1].first) >= len(self._runs[-2].first):
            self._join()

    def has(self, found: Hashes) -> Mask:
        """Return of each hash whether it is in the set."""
        answer = np.zeros(len(found), np.bool_)
        for run in self._runs:
            answer |= run.places(found) >= 0
        return answer

    def sorted(self) -> Hashes:
        """Return all hashes, each once, in order."""
        while len(self._runs) > 1:
            self._join()
        return np.column_stack([self._runs[0].first, self._runs[0].last]) if self._runs else from_bytes(b"")

    def _join(self) -> None:
        last, before = self._runs.pop(), self._runs.pop()
        self._runs.append(_Run.of(np.concatenate([before.first, last.first]), np.concatenate([before.last, last.last])))


class HashIndex:
    """Finds the place of a hash in a list of them, in 20 bytes each."""

    def __init__(self, found: Hashes) -> None:
        order = np.argsort(found[:, 0], kind="stable")
        self._run = _Run(found[order, 0], found[order, 1])
        self._order = order.astype(np.uint32)

    def __len__(self) -> int:
        return len(self._order)

    def places(self, found: Hashes) -> NDArray[np.int64]:
        """Return of each hash a place in the list, or -1 if it isn't there."""
        sorted_places = self._run.places(found)
        if not len(self):
            return sorted_places
        return np.where(sorted_places < 0, -1, self._order[sorted_places].astype(np.int64))

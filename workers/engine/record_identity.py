"""Which records are equal, and which seed does a record draw by?"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from workers.handler import Piece, Record


def record_seed(seed: int, uri: str, row: int) -> int:
    """Return the seed, below 2^63, of a record's random draws, from the job's seed and the record's place."""
    place = f"{seed}\n{row}\n{uri}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 1


def seeded(pieces: Iterable[Piece], seed: int) -> Iterable[Piece]:
    made = (replace(piece, seed=seed) for piece in pieces)
    return list(made) if isinstance(pieces, list) else made


def record_key(record: Record) -> bytes:
    """Return a digest that is the same for equal records."""
    digest = hashlib.blake2b(digest_size=16)
    for value in record.values():
        data = _bytes_of(value)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    data: bytes = value.data if hasattr(value, "data") else repr(value).encode()  # the bytes of a picture or a clip
    return data

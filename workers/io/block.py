"""What does a reader give? Blocks of rows, with the records in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from jobs.storage import ObjectInfo
from schemas.errors import RecordError
from schemas.plan import Shard
from workers.handler import Record


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a shard: as read, where they came from, and as records or what is wrong with them."""

    table: pa.Table
    source_uris: list[str]
    source_rows: list[int]
    records: list[Record | RecordError]

    def __len__(self) -> int:
        return len(self.records)

    def slice(self, start: int, stop: int) -> "Block":
        """These rows of it."""
        return Block(
            self.table.slice(start, stop - start),
            self.source_uris[start:stop],
            self.source_rows[start:stop],
            self.records[start:stop],
        )


class Reader(Protocol):
    """What gives a shard's rows. One thread at a time."""

    def blocks(self, shard: Shard, task_columns: dict[str, str]) -> Iterator[Block]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Reference:
    """What a media column names instead of holding it: a URI as the table has it, or an object that was listed."""

    uri: str
    info: ObjectInfo | None = None

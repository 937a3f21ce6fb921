"""What does a Parquet file say of itself? Its footer, read without the data."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.storage import ObjectInfo, Storage
from jobs.storage.parquet import read_metadata, translated
from schemas.errors import Unreadable


@dataclass(frozen=True)
class RowGroup:
    """A row group, or consecutive rows of one from `start` on. `bytes` are uncompressed, of the columns asked for."""

    index: int
    first_row: int
    rows: int
    bytes: int
    start: int = 0


@dataclass(frozen=True)
class Footer:
    info: ObjectInfo
    schema: pa.Schema
    metadata: pq.FileMetaData

    def row_groups(self, columns: set[str]) -> list[RowGroup]:
        """Return the row groups, sized by these top-level columns."""
        # By position: a name with a dot in it can't be told from a path into a struct.
        names = [field.name for field in self.schema for _ in range(_leaves(field.type))]
        wanted = [position for position, name in enumerate(names) if name in columns]
        found, first = [], 0
        for index in range(self.metadata.num_row_groups):
            group = self.metadata.row_group(index)
            size = sum(group.column(position).total_uncompressed_size for position in wanted)
            found.append(RowGroup(index, first, group.num_rows, size))
            first += group.num_rows
        return found


@dataclass(frozen=True)
class BrokenFile:
    """An input file whose footer can't be read."""

    info: ObjectInfo


def _leaves(arrow: pa.DataType) -> int:
    """Return how many Parquet columns an Arrow type is stored as."""
    if isinstance(arrow, pa.BaseExtensionType):
        return _leaves(arrow.storage_type)
    children = [] if pa.types.is_dictionary(arrow) else [arrow.field(i) for i in range(arrow.num_fields)]
    return sum(_leaves(child.type) for child in children) or 1


def read_footer(storage: Storage, info: ObjectInfo, max_bytes: int) -> Footer:
    """Read the footer of one file. Raise Unreadable if the file isn't whole Parquet, or the footer is too large."""
    with storage.open(info) as source, translated(source, lambda error: Unreadable(f"{info.uri} {error}")):
        metadata = read_metadata(source, max_bytes)
        return Footer(info, metadata.schema.to_arrow_schema(), metadata)

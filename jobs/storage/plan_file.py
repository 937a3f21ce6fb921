"""What is in a job's `_plan.pq`? Its shards, one a row, and what the plan skipped."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.storage import ObjectInfo, Storage
from jobs.storage.parquet import open_parquet, translated
from schemas.errors import Damaged, Permanent
from schemas.incremental import SeriesRun
from schemas.plan import (
    PLAN_ROW_GROUP,
    PLAN_SLICES,
    Shard,
    find_row_group,
    from_batch,
    input_schema,
    series_run,
    skipped_files,
)

#: Rows of a plan that are decoded at once.
_PLAN_ROWS = 100
#: What a slice that was lost is told by.
LOST_SLICE = pa.struct(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
    ]
)
_LOST_COLUMNS = tuple(f".{field.name}" for field in LOST_SLICE)


@dataclass(frozen=True)
class PlanSize:
    """How large a plan is. `bytes` are uncompressed."""

    shards: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """One version of a job's `_plan.pq`. Every method raises Damaged if the file can't be read."""

    info: ObjectInfo
    storage: Storage

    def columns(self) -> pa.Schema:
        """Return the schema of the input columns that the job reads."""
        with self._opened() as file:
            return input_schema(file.schema_arrow)

    def skipped(self) -> dict[str, int]:
        """Return how many files were no records, by reason."""
        with self._opened() as file:
            return skipped_files(file.metadata.metadata or {})

    def series(self) -> SeriesRun | None:
        """Return the job's place in its series; None if it has none."""
        with self._opened() as file:
            return series_run(file.metadata.metadata or {})

    def size(self) -> PlanSize:
        with self._opened() as file:
            table = file.read(columns=["rows", "bytes"])
            total = {name: pc.sum(table[name]).as_py() or 0 for name in ("rows", "bytes")}
            return PlanSize(shards=table.num_rows, **total)

    def shards(self, first: int = 0) -> Iterator[Shard]:
        """Yield the shards in order, from number `first` on. Row groups before it are not read."""
        with self._opened() as file:
            start = find_row_group(file.metadata, first)
            if start is None:
                return
            for group in range(start, file.num_row_groups):  # one by one: a batch may span some, of a million slices
                for batch in file.iter_batches(batch_size=_PLAN_ROWS, row_groups=[group]):
                    yield from (shard for shard in from_batch(batch) if shard.shard >= first)

    def slices_of(self, shards: Collection[int]) -> Iterator[tuple[int, pa.StructArray]]:
        """Yield those of these shards that the plan has, in order, each with its slices as an array of LOST_SLICE.

        Neither the other columns nor the other row groups are read.
        """
        with self._opened() as file:
            paths = [file.schema.column(place).path for place in range(len(file.schema))]
            columns = [path for path in paths if path.partition(".")[0] == "slices" and path.endswith(_LOST_COLUMNS)]
            places = (find_row_group(file.metadata, number) for number in shards)
            groups = sorted({place for place in places if place is not None})
            for batch in file.iter_batches(_PLAN_ROWS, groups, columns=["shard", *columns]):
                listed = batch["slices"].cast(pa.list_(LOST_SLICE))
                if listed.null_count or listed.flatten().null_count:
                    raise ValueError("a shard without slices")
                for place, number in enumerate(batch["shard"].to_pylist()):
                    if number in shards:
                        yield number, listed[place].values

    def row_group_of(self, number: int) -> list[Shard]:
        """Return the shards of the row group that holds this one. Raise Permanent if no row group does."""
        with self._opened() as file:
            group = find_row_group(file.metadata, number)
            if group is None:
                raise Permanent(f"{self.info.uri} has no shard {number}", code="plan_broken")
            return list(from_batch(file.read_row_group(group)))

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self.storage.open(self.info) as source, translated(source, self._damaged):
            yield open_parquet(source)

    def _damaged(self, error: Exception) -> Damaged:
        return Damaged(f"{self.info.uri} is damaged: {error}", code="plan_broken")


def row_groups(shards: Iterable[Shard]) -> Iterator[list[Shard]]:
    """Group shards into row groups of a plan. A shard of many objects is heavy, so slices are limited too."""
    rows: list[Shard] = []
    slices = 0
    for shard in shards:
        rows.append(shard)
        slices += len(shard.slices)
        if len(rows) >= PLAN_ROW_GROUP or slices >= PLAN_SLICES:
            yield rows
            rows, slices = [], 0
    if rows:
        yield rows

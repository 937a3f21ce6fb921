"""What have the runs of a series annotated? The series' folder says so, in objects that are each created once.

run-00000007.json                       the job that is the seventh run; whoever creates the file has the number
seen-00000007-<fingerprint>.parquet     what that job annotated, once it has ended
merged-00000064-<fingerprint>.parquet   what the runs up to the 64th annotated with this fingerprint, in one file

A run is planned after all runs before it are recorded. What is recorded of a job follows from its plan and its manifest
alone, neither of which changes. So it doesn't matter who records it, or how often it is tried.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from jobs.parallel_map import parallel_map
from jobs.storage import ObjectInfo, Storage
from jobs.storage.hashes import HASH, Hashes, HashSet, from_arrow, from_bytes, to_arrow
from jobs.storage.parquet import open_parquet, translated
from jobs.storage.stored import parse_stored
from schemas.errors import AlreadyExists, Damaged
from schemas.incremental import Annotation
from schemas.layout import child

#: Files of single runs that are read before they are merged.
MERGE_AT = 32
#: Files that are read at once.
_READERS = 4
_ROWS = 1 << 18
_SCHEMA = pa.schema([pa.field("entry", HASH, nullable=False), ("first_row", pa.int64()), ("rows", pa.int64())])

Span = tuple[int, int]


class RunFile(BaseModel):
    """The job that is a run of the series, and how it annotates."""

    model_config = ConfigDict(frozen=True)

    job: str
    output: str
    annotation: Annotation


@dataclass
class Seen:
    """What was annotated: whole objects, files or keys; and of files that were annotated in part, which rows.

    `files` are the files that this was read from.
    """

    whole: HashSet = field(default_factory=HashSet)
    parts: dict[bytes, list[Span]] = field(default_factory=dict)
    files: int = 0

    def __len__(self) -> int:
        return len(self.whole) + len(self.parts)

    def add(self, found: Hashes) -> None:
        self.whole.add(found)

    def add_rows(self, entry: bytes, rows: Iterable[Span]) -> None:
        """Add rows of a file, each span as its first row and their number."""
        self.parts.setdefault(entry, []).extend(rows)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield everything in the columns of a series' file. Rows of a file that is there as a whole are left out."""
        whole = self.whole.sorted()
        for start in range(0, len(whole), _ROWS):
            some = whole[start : start + _ROWS]
            none = pa.nulls(len(some), pa.int64())
            yield pa.RecordBatch.from_arrays([to_arrow(some), none, none], schema=_SCHEMA)
        if self.parts:
            entries = list(self.parts)
            also_whole = self.whole.has(from_bytes(b"".join(entries)))
            rows = [
                {"entry": entry, "first_row": first, "rows": count}
                for entry, is_whole in zip(entries, also_whole.tolist(), strict=True)
                if not is_whole
                for first, count in self.parts[entry]
            ]
            yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)


@dataclass(frozen=True)
class Series:
    """The series whose folder is `uri`. A link in it leads nowhere else."""

    uri: str
    storage: Storage

    def __post_init__(self) -> None:
        object.__setattr__(self, "storage", self.storage.within([child(self.uri, "")]))

    def begin(self, run: RunFile) -> int:
        """Return the number of a job's run: the one that it has already, or the next."""
        while True:
            number = self.next_number()
            own = next((number for number, other in self.unrecorded() if other.job == run.job), None)
            if own is not None:
                return own
            try:
                self.storage.create(self._run_uri(number), run.model_dump_json().encode(), owner=run.job)
            except AlreadyExists:
                continue
            return number

    def unrecorded(self) -> list[tuple[int, RunFile]]:
        """Return the runs, in order, of which it isn't recorded yet what they annotated."""
        recorded = self._numbers("seen-")
        return [(number, self._run(number)) for number in sorted(self._numbers("run-") - recorded)]

    def next_number(self) -> int:
        """Return the number that a run would get if it began now."""
        return max(self._numbers("run-"), default=0) + 1

    def latest(self, before: int | None = None) -> RunFile | None:
        """Return the latest run, or the latest before this number; None if there is none."""
        number = max((n for n in self._numbers("run-") if before is None or n < before), default=None)
        return None if number is None else self._run(number)

    def record(self, number: int, run: RunFile, annotated: Seen) -> None:
        """Record what a run annotated. It is the same, whoever records it."""
        self._write(f"seen-{number:08d}-{run.annotation.fingerprint()}.parquet", annotated, run.annotation)

    def seen(self, annotation: Annotation, before: int | None = None) -> Seen:
        """Return what the runs before this number, or all, have annotated in this way.

        A number is that of a run before which all are recorded. Then many files are merged into one.
        """
        end = f"-{annotation.fingerprint()}.parquet"
        merged = self._files("merged-", end, before)
        start = max(merged, default=0)
        single = {number: info for number, info in self._files("seen-", end, before).items() if number > start}
        infos = [*([merged[start]] if merged else []), *(single[number] for number in sorted(single))]
        found = Seen(files=len(infos))
        for whole, parts in parallel_map(partial(_read, storage=self.storage), infos, _READERS):
            found.add(whole)
            for entry, rows in parts.items():
                found.add_rows(entry, rows)
        if before is not None and len(single) >= MERGE_AT:
            self._write(f"merged-{before - 1:08d}{end}", found, annotation)
        return found

    def _run_uri(self, number: int) -> str:
        return child(self.uri, f"run-{number:08d}.json")

    def _run(self, number: int) -> RunFile:
        uri = self._run_uri(number)
        return parse_stored(RunFile, self.storage.read(uri), uri, "series_broken", _WAY_OUT)

    def _numbers(self, start: str) -> set[int]:
        return {number for number, _ in self._listed(start)}

    def _files(self, start: str, end: str, before: int | None) -> dict[int, ObjectInfo]:
        """Return the files of these names, by the number in them, but for those of a run from `before` on."""
        return {
            number: info
            for number, info in self._listed(start)
            if info.uri.endswith(end) and (before is None or number < before)
        }

    def _listed(self, start: str) -> Iterator[tuple[int, ObjectInfo]]:
        prefix = child(self.uri, start)
        for info in self.storage.list(prefix):
            digits = info.uri.removeprefix(prefix)[:8]
            if len(digits) == 8 and digits.isascii() and digits.isdecimal():
                yield int(digits), info

    def _write(self, name: str, seen: Seen, annotation: Annotation) -> None:
        with tempfile.TemporaryFile(prefix="nightshift-series-") as file:
            with pq.ParquetWriter(file, _SCHEMA, compression="zstd", use_dictionary=False) as writer:
                for batch in seen.batches():
                    writer.write_batch(batch)
                writer.add_key_value_metadata({b"nightshift.annotation": json.dumps(annotation.model_dump()).encode()})
            try:
                self.storage.create(child(self.uri, name), file, owner=name)
            except AlreadyExists:  # another process came first, with the same
                return


_WAY_OUT = "restore it, or name another folder in incremental.series, where everything is annotated anew"


def _read(info: ObjectInfo, storage: Storage) -> tuple[Hashes, dict[bytes, list[Span]]]:
    """Return what a series' file says: the entries that are whole, and of the others the rows."""

    def damaged(error: Exception) -> Damaged:
        return Damaged(f"{info.uri}, a file of a series, can't be read: {error}; {_WAY_OUT}", code="series_broken")

    whole: list[Hashes] = []
    parts: dict[bytes, list[Span]] = {}
    with storage.open(info) as source, translated(source, damaged):
        file = open_parquet(source)
        if file.schema_arrow.remove_metadata() != _SCHEMA:
            raise ValueError(f"its columns are {', '.join(file.schema_arrow.names)}")
        for batch in file.iter_batches(batch_size=_ROWS):
            in_part = pc.is_valid(batch["rows"])
            whole.append(np.array(from_arrow(batch["entry"].filter(pc.invert(in_part)))))
            for row in batch.filter(in_part).to_pylist():
                parts.setdefault(row["entry"], []).append((row["first_row"], row["rows"]))
    return np.concatenate([from_bytes(b""), *whole]), parts

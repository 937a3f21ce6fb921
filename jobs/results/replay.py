"""Are shards computed again what they were? Some are drawn by a seed, and their rows compared with the job's."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa

from jobs.results.measures import largest_gap
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder, open_part, read_report
from schemas.errors import Permanent
from schemas.loss import Loss
from schemas.manifest import Manifest, Part
from schemas.report import ShardReport

_ROWS = 1024
#: Error rows of shards that would do to this machine what they did to another.
_DEADLY = {loss.value for loss in Loss}


@dataclass(frozen=True)
class Replayed:
    """What became of one shard. `problem` is None if it is the same."""

    part: Part
    problem: str | None = None


def drawn(manifest: Manifest, folder: JobFolder, count: int, seed: int) -> list[Part]:
    """Return so many of the job's parts, in order. Those with records that end their process are left out."""
    order = list(manifest.parts)
    random.Random(seed).shuffle(order)
    chosen: list[Part] = []
    for part in order:
        if len(chosen) == count:
            break
        deadly = part.error_rows and _DEADLY & read_report(folder.part(part.name), folder.storage).errors.keys()
        if not deadly:
            chosen.append(part)
    return sorted(chosen, key=lambda part: part.shard)


def replayed(
    parts: Sequence[Part],
    folder: JobFolder,
    checksums: Mapping[int, str],
    results: Path,
    wait: Callable[[Path, Path], bool],
    storage: Storage,
) -> Iterator[Replayed]:
    """Yield what became of each shard, as soon as it has been computed again into `results`.

    `checksums` are of the rows that the parts have, by shard. `wait` waits until one of two files is there; it returns
    False if the program has ended without either.
    """
    for part in parts:
        file, refusal = results / f"{part.shard}.parquet", results / f"{part.shard}.error"
        if not wait(file, refusal):
            yield Replayed(part, "couldn't be computed again: the process ended")
            return
        if refusal.exists():
            yield Replayed(part, f"couldn't be computed again: {refusal.read_text()}")
        else:
            yield Replayed(part, _problem(part, folder, checksums.get(part.shard), file, storage))


def _problem(part: Part, folder: JobFolder, checksum: str | None, file: Path, storage: Storage) -> str | None:
    if checksum is None:
        return "was computed again, and can't be read to compare it"
    there, here = folder.part(part.name), storage.stat(str(file))
    before, now = read_report(there, folder.storage), read_report(here, storage)
    if checksum == now.checksum:
        return None
    with open_part(there, folder.storage) as one, open_part(here, storage) as other:
        found = compared(one.iter_batches(_ROWS), other.iter_batches(_ROWS))
    if found is None:
        return None
    return f"computed again, {found}{_setting(before, now)}"


def compared(one: Iterable[pa.RecordBatch], other: Iterable[pa.RecordBatch]) -> str | None:
    """Return in words how these rows differ, in order; None if they don't."""
    rows = differ = answers = 0
    largest = 0.0
    for a, b in zip_longest(_rows(one), _rows(other)):
        rows += 1
        if a == b:
            continue
        gap = largest_gap(a, b)
        if gap == 0.0:
            continue
        differ += 1
        if gap is None:
            answers += 1
        else:
            largest = max(largest, gap)
    if not differ:
        return None
    gap_words = f" by up to {largest:.2g}" if largest else ""
    words = [f"{differ - answers:,} in numbers alone{gap_words}"] if differ > answers else []
    words += [f"{answers:,} in the answer"] if answers else []
    return f"{differ:,} of {rows:,} rows differ: {', '.join(words)}"


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, object]]:
    for batch in batches:
        try:
            yield from batch.to_pylist()
        except (UnicodeDecodeError, ValueError) as error:
            raise Permanent(f"rows can't be compared value by value: {error}", code="not_comparable") from None


def _setting(before: ShardReport, now: ShardReport) -> str:
    """Return what was different about the two runs, of what is known of it."""
    names = sorted(before.versions.keys() | now.versions.keys())
    other = [f"{name} {before.versions.get(name)} then, {now.versions.get(name)} now" for name in names
             if before.versions.get(name) != now.versions.get(name)]  # fmt: skip
    for name in ("device", "dtype"):
        if getattr(before, name) != getattr(now, name):
            other.append(f"{name} {getattr(before, name)} then, {getattr(now, name)} now")
    return f" ({'; '.join(other)})" if other else ""

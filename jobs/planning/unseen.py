"""What of the input has no earlier run of the series annotated? Objects and files by their version, rows by a key.

What is left out is counted by reason. A file of which some rows were annotated is read without these.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow.parquet as pq

from jobs.planning.parquet_footers import BrokenFile, Footer, RowGroup
from jobs.storage import ObjectInfo, Storage
from jobs.storage.annotated import annotation_of, version_of
from jobs.storage.hashes import Hashes, HashSet, Mask, hashes, key_hashes
from jobs.storage.parquet import translated
from jobs.storage.series import Seen, Series, Span
from schemas.errors import Unreadable
from schemas.incremental import (
    FILES_BEFORE,
    NULL_KEYS,
    OBJECTS_BEFORE,
    REPEATED_KEYS,
    ROWS_BEFORE,
    SeriesRun,
    is_key,
)
from schemas.job import JobSpec, ResolvedModel

#: Objects that are looked up at once, and rows whose keys are read at once.
_OBJECTS, _ROWS = 1024, 1 << 16


@dataclass(frozen=True)
class KeyedFooter(Footer):
    """A footer, and the hash of each row's key. `nulls` are the rows without one."""

    keys: Hashes
    nulls: Mask


@dataclass(frozen=True)
class PartialFooter(Footer):
    """A footer of a file of which only these rows are to be read: spans in order, each a first row and a count."""

    spans: list[Span]

    def row_groups(self, columns: set[str]) -> list[RowGroup]:
        """Return the consecutive rows to read of each row group, sized by these top-level columns."""
        found: list[RowGroup] = []
        spans = iter(self.spans)
        span = next(spans, None)
        for group in super().row_groups(columns):
            end = group.first_row + group.rows
            while span is not None and span[0] < end:
                first, stop = max(span[0], group.first_row), min(sum(span), end)
                if first < stop:
                    size = group.bytes * (stop - first) // group.rows
                    found.append(RowGroup(group.index, group.first_row, stop - first, size, first - group.first_row))
                if sum(span) > end:  # it goes on in the next row group
                    break
                span = next(spans, None)
        return found


@dataclass
class Unseen:
    """Leaves out of an input what is in `seen`. If the series has a `key`, `seen` has keys; else objects and files.

    `run` is the job's place in its series. Rows without a key are left out, and of rows with the same one all but the
    first.
    """

    seen: Seen
    key: str | None
    run: SeriesRun
    _taken: HashSet = field(default_factory=HashSet)

    def objects(self, listed: Iterable[ObjectInfo], skipped: Counter[str]) -> Iterator[ObjectInfo]:
        """Yield the objects that were not annotated."""
        return self._without_whole(listed, skipped, OBJECTS_BEFORE)

    def files(self, listed: Iterable[ObjectInfo], skipped: Counter[str]) -> Iterator[ObjectInfo]:
        """Yield the Parquet files that were not annotated as a whole: all of them if the series has a key."""
        return iter(listed) if self.key is not None else self._without_whole(listed, skipped, FILES_BEFORE)

    def rows(self, footers: Iterable[Footer | BrokenFile], skipped: Counter[str]) -> Iterator[Footer | BrokenFile]:
        """Yield the files with those of their rows that were not annotated."""
        for footer in footers:
            if isinstance(footer, KeyedFooter):
                yield self._by_key(footer, skipped)
            elif isinstance(footer, Footer) and self.seen.parts:
                yield self._by_rows(footer, skipped)
            else:
                yield footer

    def _without_whole(self, listed: Iterable[ObjectInfo], skipped: Counter[str], why: str) -> Iterator[ObjectInfo]:
        source = iter(listed)
        while some := list(islice(source, _OBJECTS)):
            before = self.seen.whole.has(hashes(version_of(info.uri, info.etag) for info in some)).tolist()
            if any(before):
                skipped[why] += sum(before)
            yield from (info for info, was in zip(some, before, strict=True) if not was)

    def _by_key(self, footer: KeyedFooter, skipped: Counter[str]) -> Footer:
        before = self.seen.whole.has(footer.keys) & ~footer.nulls
        rest = np.flatnonzero(~before & ~footer.nulls)
        keys = footer.keys[rest]
        is_new = _first_of_each(keys) & ~self._taken.has(keys)
        self._taken.add(keys[is_new])
        counts = {ROWS_BEFORE: before, NULL_KEYS: footer.nulls, REPEATED_KEYS: ~is_new}
        for why, mask in counts.items():
            if count := int(mask.sum()):
                skipped[why] += count
        wanted = np.zeros(len(footer.keys), np.bool_)
        wanted[rest[is_new]] = True
        return PartialFooter(footer.info, footer.schema, footer.metadata, _spans(wanted))

    def _by_rows(self, footer: Footer, skipped: Counter[str]) -> Footer:
        spans = self.seen.parts.get(hashes([version_of(footer.info.uri, footer.info.etag)]).tobytes())
        if spans is None:
            return footer
        wanted = np.ones(footer.metadata.num_rows, np.bool_)
        for first, count in spans:
            wanted[first : first + count] = False
        skipped[ROWS_BEFORE] += int((~wanted).sum())
        return PartialFooter(footer.info, footer.schema, footer.metadata, _spans(wanted))


def series_of(spec: JobSpec, storage: Storage) -> Series | None:
    """Return the series of a spec; None if it has none."""
    if spec.incremental is None or spec.incremental.series is None:
        return None
    return Series(spec.incremental.series, storage)


def unseen_in(series: Series, spec: JobSpec, model: ResolvedModel, number: int | None = None) -> Unseen:
    """Return what the run of this number leaves out, before which all runs are recorded.

    Without a number, return what the next run would leave out if it began now.
    """
    annotation = annotation_of(spec, model)
    before = series.latest(number)
    seen = series.seen(annotation, number)
    is_new = before is not None and not len(seen) and before.annotation.fingerprint() != annotation.fingerprint()
    run = SeriesRun(
        series=series.uri,
        run=series.next_number() if number is None else number,
        fingerprint=annotation.fingerprint(),
        known=len(seen),
        afresh=annotation.differences(before.annotation) if before is not None and is_new else None,
    )
    return Unseen(seen, annotation.key, run)


def _first_of_each(keys: Hashes) -> Mask:
    """Return which of the keys are the first of their value."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # keeps the order of equal ones
    ordered = keys[order]
    first = np.zeros(len(keys), np.bool_)
    first[order[:1]] = True
    first[order[1:][(ordered[1:] != ordered[:-1]).any(axis=1)]] = True
    return first


def _spans(wanted: Mask) -> list[Span]:
    """Return the consecutive rows that are wanted, as first rows and counts."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]).view(np.int8)))
    return list(zip(edges[::2].tolist(), (edges[1::2] - edges[::2]).tolist(), strict=True))


def with_keys(footer: Footer, key: str, storage: Storage) -> Footer:
    """Return the footer with the keys of the file's rows, read by column. Raise Unreadable if they can't be read.

    A file without a column that can be a key is left as it is: it doesn't fit the others.
    """
    if key not in footer.schema.names or not is_key(footer.schema.field(key).type):
        return footer
    refusal = f"{footer.info.uri}: its keys (column {key!r}) can't be read"
    found: list[Hashes] = []
    nulls: list[Mask] = []
    with storage.open(footer.info) as source, translated(source, lambda error: Unreadable(f"{refusal}: {error}")):
        for batch in pq.ParquetFile(source, metadata=footer.metadata).iter_batches(_ROWS, columns=[key]):
            keys, without = key_hashes(batch.column(key))
            found.append(keys)
            nulls.append(without)
    keys = np.concatenate([hashes([]), *found])
    return KeyedFooter(
        footer.info, footer.schema, footer.metadata, keys, np.concatenate([np.zeros(0, np.bool_), *nulls])
    )

"""How do the results of two jobs differ? Their rows are matched by a key and compared prediction by prediction.

The keys, predictions and errors of both are held in memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.measures import Difference, Measure, measure_of
from schemas.errors import SpecError
from schemas.output import OwnColumns

#: The columns that say where a row is from, which are the key if no other is named.
PLACE = ("source_uri", "source_row")
_ROWS = 4096


#: Rows, and what our columns are called in them.
Rows = tuple[Iterable[pa.RecordBatch], OwnColumns]


@dataclass
class Comparison:
    """What two jobs' rows come down to. `rows` are in both; `values` are the measure's, where it has one.

    `no_key` counts the rows of either that are left out, as their key is null or stands there twice.
    """

    measure: Measure
    rows: int = 0
    only_a: int = 0
    only_b: int = 0
    no_key: int = 0
    answered: int = 0
    same: int = 0
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    values: list[float] = field(default_factory=list)

    @property
    def agreement(self) -> float | None:
        """The share of the rows that both answered in which they agree."""
        return self.same / self.answered if self.answered else None

    @property
    def changed(self) -> list[tuple[tuple[str, str], int]]:
        """The pairs of labels that differ, the most frequent first."""
        return [(pair, count) for pair, count in self.labels.most_common() if pair[0] != pair[1]]

    def add(self, a: dict[str, object], b: dict[str, object]) -> Difference | None:
        """Count a row that is in both. Return how its predictions differ; None if one of them is an error."""
        self.rows += 1
        codes = tuple("" if row["error"] is None else row["error"]["code"] for row in (a, b))  # type: ignore[index]
        if any(codes):
            self.errors[codes[0], codes[1]] += 1
            return None
        found = self.measure.compare(a["prediction"], b["prediction"])  # type: ignore[arg-type]
        self.answered += 1
        self.same += found.same
        if self.measure.has_labels:
            self.labels[found.a, found.b] += 1
        if found.value is not None:
            self.values.append(found.value)
        return found


#: A row of the comparison, as a table has it.
ROW = pa.schema(
    [
        pa.field("side", pa.string(), metadata={"description": "both, a or b"}),
        pa.field("same", pa.bool_()),
        pa.field("value", pa.float64()),
        pa.field("a", pa.string()),
        pa.field("b", pa.string()),
        pa.field("a_error", pa.string()),
        pa.field("b_error", pa.string()),
    ]
)


class Comparer:
    """Compares the rows of job A, as they come, with those of job B. `rows` yields a table of them, piece by piece."""

    def __init__(self, a: Rows, b: Rows, key: str | None) -> None:
        """Raise SpecError if a side lacks the key, or the two have other predictions."""
        self._names = (key,) if key else PLACE
        one, other = self._read(a, "A"), self._read(b, "B")
        kind, second = (side.schema.field("prediction").type for side in (one, other))
        if kind != second:
            raise SpecError.of("B", f"its predictions are {second}, those of A {kind}: jobs of one task are compared")
        self._a, self._b = one, other
        keys_a, keys_b = self._keys(one, other)
        self.found = Comparison(measure_of(kind))
        self._places, self._unmatched = self._matched(keys_a, keys_b)

    def _read(self, rows: Rows, side: str) -> pa.Table:
        batches, own = rows
        key = (own.source_uri, own.source_row) if self._names == PLACE else self._names
        names = [*self._names, "prediction", "error"]
        pieces = []
        for batch in batches:
            missing = [name for name in key if name not in batch.schema.names]
            if missing:
                kept = [name for name in batch.schema.names if name not in own.names]
                raise SpecError.of("key", f"{side} has no column {missing[0]!r}; it has {', '.join(map(repr, kept))}")
            columns = [batch[name] for name in (*key, own.prediction, own.error)]
            pieces.append(pa.RecordBatch.from_arrays(columns, names))
        if not pieces:
            raise SpecError.of(side, "it has no rows to compare")
        return pa.Table.from_batches(pieces).unify_dictionaries()

    def _keys(self, a: pa.Table, b: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the keys of both sides, as one type."""
        if self._names != PLACE:
            one, other = (_decoded(side[self._names[0]]) for side in (a, b))
            if pa.types.is_nested(one.type):
                raise SpecError.of("key", f"{self._names[0]!r} is {one.type}; a key is a number, a text, a time …")
            try:
                return one, other.cast(one.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise SpecError.of("key", f"{self._names[0]!r} is {one.type} in A and {other.type} in B") from None
        uris = pc.unique(pa.concat_arrays([_decoded(side["source_uri"]) for side in (a, b)]))
        numbers = (pc.index_in(_decoded(side["source_uri"]), value_set=uris).cast(pa.int64()) for side in (a, b))
        keys = [
            pc.add(pc.multiply(number, 1 << 40), side["source_row"].combine_chunks())
            for number, side in zip(numbers, (a, b), strict=True)
        ]
        return keys[0], keys[1]

    def _matched(self, a: pa.Array, b: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return for each row of A its place in B (-1 without one, -2 without a key), and the rows of B left over."""
        clear_a, clear_b = (_once(keys) for keys in (a, b))
        places = pc.fill_null(pc.index_in(a, value_set=b), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        places[(places >= 0) & ~clear_b[places]] = -2
        places[~clear_a] = -2
        left = clear_b & ~pc.is_in(b, value_set=a).to_numpy(zero_copy_only=False)
        matched = int((places >= 0).sum())
        self.found.no_key = int((places == -2).sum()) + len(b) - matched - int(left.sum())
        return places, np.flatnonzero(left)

    def rows(self) -> Iterator[pa.Table]:
        """Yield a table of the rows in either job, with the columns of the key and of ROW; `found` is complete then."""
        for start in range(0, self._a.num_rows, _ROWS):
            places = self._places[start : start + _ROWS]
            side = self._a.slice(start, _ROWS)
            both = np.flatnonzero(places >= 0)
            yield self._compared(side.take(pa.array(both)), self._b.take(pa.array(places[both])))
            alone = np.flatnonzero(places == -1)
            self.found.only_a += len(alone)
            yield self._alone(side.take(pa.array(alone)), "a")
        for start in range(0, len(self._unmatched), _ROWS):
            rows = self._b.take(pa.array(self._unmatched[start : start + _ROWS]))
            self.found.only_b += rows.num_rows
            yield self._alone(rows, "b")

    def _compared(self, a: pa.Table, b: pa.Table) -> pa.Table:
        made = []
        for one, other in zip(_answers(a), _answers(b), strict=True):
            difference = self.found.add(one, other)
            row: dict[str, object] = {"side": "both", "a_error": _code(one), "b_error": _code(other)}
            if difference is not None:
                row |= {"same": difference.same, "value": difference.value, "a": difference.a, "b": difference.b}
            made.append(row)
        return self._table(a, made)

    def _alone(self, rows: pa.Table, side: str) -> pa.Table:
        made: list[dict[str, object]] = [{"side": side, f"{side}_error": _code(row)} for row in _answers(rows)]
        return self._table(rows, made)

    def _table(self, keys: pa.Table, made: list[dict[str, object]]) -> pa.Table:
        own = pa.Table.from_pylist(made, ROW)
        columns = {f"key_{name}" if name in ROW.names else name: _decoded(keys[name]) for name in self._names}
        return pa.table(columns | dict(zip(own.schema.names, own.columns, strict=True)))


def _answers(rows: pa.Table) -> list[dict[str, object]]:
    found: list[dict[str, object]] = rows.select(["prediction", "error"]).to_pylist()
    return found


def _code(row: dict[str, object]) -> str | None:
    error = row["error"]
    return error["code"] if isinstance(error, dict) else None


def _decoded(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # which chunks of more than 2 GB of text stay
        raise SpecError.of("key", "the keys are larger than 2 GB in all")
    return whole.dictionary_decode() if pa.types.is_dictionary(whole.type) else whole


def _once(keys: pa.Array) -> np.ndarray:
    """Return which keys aren't null and stand there once."""
    counts = pc.value_counts(keys)
    single = counts.field("values").filter(pc.equal(counts.field("counts"), 1)).drop_null()
    found: np.ndarray = pc.is_in(keys, value_set=single).to_numpy(zero_copy_only=False)
    return found

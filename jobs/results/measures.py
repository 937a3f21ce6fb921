"""How far apart are two predictions for one record? Each kind of prediction has a measure of its own.

The kind follows from the fields that a task's prediction has, so that tasks of other packages are measured too.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pyarrow as pa

Prediction = dict[str, Any]
#: Embeddings whose cosine is at least this count as equal.
SAME_COSINE = 0.999
#: Boxes of one label that share at least this part of their union are one object.
SAME_BOX = 0.5
#: Words of a text that are compared; difflib's time grows with their square.
_WORDS = 2000


@dataclass(frozen=True)
class Difference:
    """Whether two predictions agree, how far apart they are, and each in short.

    `value` is None if the measure has nothing to say of the two.
    """

    same: bool
    value: float | None
    a: str
    b: str


@dataclass(frozen=True)
class Measure:
    """A way to compare predictions. `value` says in words what a difference's value is."""

    kind: str
    value: str
    compare: Callable[[Prediction, Prediction], Difference]
    has_labels: bool = False


def measure_of(prediction: pa.DataType) -> Measure:
    """Return the measure for predictions of this type."""
    fields = {prediction.field(i).name for i in range(prediction.num_fields)}
    for needed, measure in _MEASURES:
        if needed <= fields:
            return measure
    return Measure("value", "none", _values)


def _labels(a: Prediction, b: Prediction) -> Difference:
    same = a["label"] == b["label"]
    both = same and a["score"] is not None and b["score"] is not None
    return Difference(same, b["score"] - a["score"] if both else None, str(a["label"]), str(b["label"]))


def _tokens(a: Prediction, b: Prediction) -> Difference:
    return Difference(a["token"] == b["token"], None, a["token_str"], b["token_str"])


def _masks(a: Prediction, b: Prediction) -> Difference:
    one, other = ([mask[0]["token_str"] if mask else "" for mask in found["masks"]] for found in (a, b))
    equal = sum(x == y for x, y in zip(one, other, strict=False))
    return Difference(one == other, equal / max(len(one), len(other), 1), " ".join(one), " ".join(other))


def _texts(a: Prediction, b: Prediction) -> Difference:
    return _words(a["text"], b["text"])


def _answers(a: Prediction, b: Prediction) -> Difference:
    return _words(a["answer"], b["answer"])


def _words(a: str, b: str) -> Difference:
    """Compare word by word: the share of words, of both texts, that stand in the same order in the other."""
    if a == b:
        return Difference(True, 1.0, a, b)
    matcher = SequenceMatcher(None, a.split()[:_WORDS], b.split()[:_WORDS], autojunk=False)
    return Difference(False, matcher.ratio(), a, b)


def _entities(a: Prediction, b: Prediction) -> Difference:
    one, other = (Counter((e["entity"], e["start"], e["end"]) for e in found["entities"]) for found in (a, b))
    words = [", ".join(f"{e['word']}:{e['entity']}" for e in found["entities"]) for found in (a, b)]
    return Difference(one == other, _f1((one & other).total(), one.total(), other.total()), *words)


def _boxes(name: str) -> Callable[[Prediction, Prediction], Difference]:
    def compare(a: Prediction, b: Prediction) -> Difference:
        one, other = a[name], b[name]
        left, matched = list(other), 0
        for thing in one:
            near = [(_overlap(thing, t), i) for i, t in enumerate(left) if t["label"] == thing["label"]]
            overlap, place = max(near, default=(0.0, 0))
            if overlap >= SAME_BOX:
                del left[place]
                matched += 1
        words = [_counted(thing["label"] for thing in things) for things in (one, other)]
        same = matched == len(one) == len(other)
        return Difference(same, _f1(matched, len(one), len(other)), *words)

    return compare


def _counted(labels: Any) -> str:
    return ", ".join(f"{count} {label}" for label, count in sorted(Counter(labels).items())) or "nothing"


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the intersection of two boxes over their union."""
    a, b = one["box"], other["box"]
    across = min(a["xmax"], b["xmax"]) - max(a["xmin"], b["xmin"])
    down = min(a["ymax"], b["ymax"]) - max(a["ymin"], b["ymin"])
    shared = max(0.0, across) * max(0.0, down)
    areas = sum((box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"]) for box in (a, b))
    return float(shared / (areas - shared)) if areas > shared else 1.0


def _f1(matched: int, one: int, other: int) -> float:
    return 2 * matched / (one + other) if one + other else 1.0


def _embeddings(a: Prediction, b: Prediction) -> Difference:
    one, other = (np.asarray(found["embedding"], np.float64) for found in (a, b))
    shapes = [f"{len(vector)} numbers" for vector in (one, other)]
    if one.shape != other.shape:
        return Difference(False, None, *shapes)
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / lengths if lengths else float(np.array_equal(one, other))
    return Difference(cosine >= SAME_COSINE, cosine, *shapes)


def _depths(a: Prediction, b: Prediction) -> Difference:
    span = (a["max"] - a["min"]) or 1.0
    words = [f"{found['min']:.4g} to {found['max']:.4g}, mean {found['mean']:.4g}" for found in (a, b)]
    return Difference(a == b, (b["mean"] - a["mean"]) / span, *words)


def _values(a: Prediction, b: Prediction) -> Difference:
    return Difference(a == b, None, str(a), str(b))


#: The first whose fields a prediction has.
_MEASURES: Sequence[tuple[set[str], Measure]] = (
    ({"label", "score"}, Measure("label", "score of B less that of A, where the label is the same", _labels, True)),
    ({"token", "token_str"}, Measure("token", "none", _tokens, True)),
    ({"masks"}, Measure("tokens of masks", "share of masks with the same token", _masks, True)),
    ({"answer"}, Measure("answer", "share of words in common", _answers)),
    ({"entities"}, Measure("entities", "F1 of the spans", _entities)),
    ({"objects"}, Measure("objects", f"F1 of the boxes, at an overlap of {SAME_BOX}", _boxes("objects"))),
    ({"segments"}, Measure("segments", f"F1 of the segments' boxes, at an overlap of {SAME_BOX}", _boxes("segments"))),
    ({"embedding"}, Measure("embedding", "cosine", _embeddings)),
    ({"depth", "min", "max"}, Measure("depth", "mean of B less that of A, by the range of A", _depths)),
    ({"text"}, Measure("text", "share of words in common", _texts)),
)


def largest_gap(one: Any, other: Any) -> float | None:
    """Return the largest difference between numbers in the same place of two values; None if they differ otherwise."""
    if isinstance(one, float) and isinstance(other, float):
        return 0.0 if one == other or (one != one and other != other) else abs(one - other)
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return _largest(largest_gap(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return _largest(map(largest_gap, one, other))
    return 0.0 if one == other else None


def _largest(gaps: Any) -> float | None:
    largest = 0.0
    for gap in gaps:
        if gap is None:
            return None
        largest = max(largest, gap)
    return largest

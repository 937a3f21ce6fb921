"""Conditions: what each lets through, and that nothing else than a condition is taken."""

import pyarrow as pa
import pytest

from jobs.results.where import Where
from schemas.errors import SpecError

_ANSWERS = [
    {"label": "A", "score": 0.1, "top": [{"label": "A"}]},
    {"label": "B", "score": 0.6, "top": []},
    None,
    {"label": "Bad", "score": float("nan"), "top": None},
]
ROWS = pa.record_batch(
    {
        "id": range(4),
        "a name": [1, 2, 3, None],
        "language": pa.array(["de", "en", "de", None]).dictionary_encode(),
        "prediction": _ANSWERS,
        "error": [None, None, {"code": "too_large", "message": "m"}, None],
    }
)


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("score < 0.5", [0]),
        ("score > 0.5 or error.code == 'too_large'", [1, 2]),
        ("label in ['A', 'Bad'] and not id == 0", [3]),
        ("label not in ('A',)", [1, 3]),
        ("error is None and id >= 1", [1, 3]),
        ("prediction.label is not None", [0, 1, 3]),
        ('col("a name") + 1 > 2', [1, 2]),
        ('col("prediction").label == "B"', [1]),
        ("len(top) == 1 or len(label) == 3", [0, 3]),
        ("contains(label, 'a') or startswith(lower(label), 'b') and endswith(label, 'B')", [1, 3]),
        ("0 < id < 3", [1, 2]),
        ("id / 2 == 0.5 or -id == -2 or abs(id) == 3", [1, 2, 3]),
        ("language == 'de'", [0, 2]),
        ("isnan(score)", [3]),
        ("id == -1", []),
    ],
)
def test_rows_for_which_it_is_true(condition: str, ids: list[int]) -> None:
    found = [batch["id"].to_pylist() for batch in Where(condition).filtered([ROWS])]
    assert [id for batch in found for id in batch] == ids


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("label", "is string, not a condition"),
        ("__import__('os').system('x')", "is no function here"),
        ("().__class__", "isn't a column"),
        ("lambda: 1", "isn't allowed here"),
        ("[x for x in id]", "isn't allowed here"),
        ("9 ** 9 ** 9 == id", "isn't allowed here"),
        (
            "foo == 1",
            "is no column; there are 'id', 'a name', 'language', 'prediction', 'error', and of ",
        ),
        ("label < 3", "doesn't fit the columns"),
        ("id in []", "isn't a list of values"),
        ("contains(label, language)", "isn't a number or a text"),
        ("score <", "can't be read"),
        ("(" * 500 + ")" * 500, "can't be read"),
        (" and ".join(["id == 1"] * 200), "more than 300 parts"),
        ("1" * 20_000, "characters"),
    ],
)
def test_anything_else_is_refused(condition: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        list(Where(condition).filtered([ROWS]))
    assert says in caught.value.problems[0].message

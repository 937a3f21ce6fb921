"""Comparisons: which rows are matched, how predictions of each task are measured, and what the picture shows."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from jobs.results.compare import Comparer, Comparison
from jobs.results.measures import largest_gap, measure_of
from jobs.results.plot import plot
from schemas.errors import SpecError
from schemas.output import ERROR, SOURCE_URI, OwnColumns
from schemas.tasks import all_tasks, find_task

LABELLED = find_task("text-classification").prediction


def batch(labels: Sequence[str | None], ids: list[Any] | None = None, prefix: str = "") -> pa.RecordBatch:
    """Rows with these labels, and scores of 0.5 and rising; an error in the place of None."""
    answers = [label and {"label": label, "score": 0.5 + n / 100} for n, label in enumerate(labels)]
    errors = [None if label else {"code": "too_large", "message": "m"} for label in labels]
    columns = {
        "id": ids or list(range(len(labels))),
        f"{prefix}prediction": pa.array(answers, LABELLED),
        f"{prefix}error": pa.array(errors, ERROR),
        f"{prefix}source_uri": pa.array([f"file-{n % 2}" for n in range(len(labels))]).cast(SOURCE_URI),
        f"{prefix}source_row": pa.array(range(len(labels)), pa.int64()),
    }
    return pa.RecordBatch.from_pydict(columns)


def compared(a: pa.RecordBatch, b: pa.RecordBatch, key: str | None = None, prefix: str = "") -> tuple[Comparison, Any]:
    comparer = Comparer(([a.slice(0, 2), a.slice(2)], OwnColumns()), ([b], OwnColumns(prefix)), key)
    rows = pa.concat_tables(list(comparer.rows())).to_pylist()
    return comparer.found, rows


def test_rows_are_matched_by_where_they_are_from() -> None:
    found, rows = compared(batch(["A", "A", "B", None]), batch(["A", "B", "B", "A", "C"], prefix="ns_"), prefix="ns_")
    assert (found.rows, found.only_a, found.only_b, found.answered, found.same) == (4, 0, 1, 3, 2)
    assert found.agreement == pytest.approx(2 / 3)
    assert (found.changed, dict(found.errors)) == ([(("A", "B"), 1)], {("too_large", ""): 1})
    assert found.values == [0.0, 0.0]
    assert [(row["side"], row["same"], row["a"], row["b"]) for row in rows] == [
        ("both", True, "A", "A"), ("both", False, "A", "B"), ("both", True, "B", "B"), ("both", None, None, None),
        ("b", None, None, None),
    ]  # fmt: skip


def test_rows_are_matched_by_a_column_and_those_without_a_clear_key_are_counted() -> None:
    a = batch(["A", "B", "C", "A", "A", "A"], [1, 2, 3, 4, 4, None])
    b = batch(["X", "A", "C", "B", "B"], [3, 1, 9, 4, 3])
    found, rows = compared(a, b, "id")
    matched = {(row["id"], row["side"]): (row["a"], row["b"]) for row in rows}
    assert matched == {(1, "both"): ("A", "A"), (2, "a"): (None, None), (9, "b"): (None, None)}
    assert found.no_key == 7, "3 stands twice in B, 4 twice in A, and a null"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(SpecError, match="no column 'name'; it has 'id'"):
        compared(batch(["A"]), batch(["A"]), "name")
    other = batch(["A"]).set_column(1, "prediction", pa.array([{"text": "x"}]))
    with pytest.raises(SpecError, match="jobs of one task"):
        compared(batch(["A"]), other)


def box(label: str, left: float) -> dict[str, Any]:
    return {"label": label, "score": 0.9, "box": {"xmin": left, "ymin": 0.0, "xmax": left + 10, "ymax": 10.0}}


def entity(word: str, start: int) -> dict[str, Any]:
    return {"entity": "PER", "word": word, "start": start, "end": start + len(word)}


@pytest.mark.parametrize(
    ("task", "a", "b", "same", "value"),
    [
        ("text-classification", {"label": "A", "score": 0.5}, {"label": "A", "score": 0.75}, True, 0.25),
        ("text-classification", {"label": "A", "score": 0.5}, {"label": "B", "score": 0.75}, False, None),
        ("next-token", {"token": 5, "token_str": "x"}, {"token": 5, "token_str": "x"}, True, None),
        ("summarization", {"text": "a b c d"}, {"text": "a b x d"}, False, 0.75),
        ("question-answering", {"answer": "Paris"}, {"answer": "Paris"}, True, 1.0),
        ("token-classification", {"entities": [entity("Ann", 0)]}, {"entities": [entity("Ann", 0), entity("Bo", 9)]},
         False, 2 / 3),
        ("object-detection", {"objects": [box("cat", 0), box("dog", 50)]}, {"objects": [box("cat", 1), box("cat", 50)]},
         False, 0.5),
        ("object-detection", {"objects": []}, {"objects": []}, True, 1.0),
        ("image-segmentation", {"segments": [box("sky", 0)]}, {"segments": [box("sky", 8)]}, False, 0.0),
        ("feature-extraction", {"embedding": [1.0, 0.0]}, {"embedding": [0.0, 2.0]}, False, 0.0),
        ("feature-extraction", {"embedding": [1.0, 1.0]}, {"embedding": [2.0, 2.0]}, True, 1.0),
        ("fill-mask", {"masks": [[{"token_str": "x"}], [{"token_str": "y"}]]},
         {"masks": [[{"token_str": "x"}], [{"token_str": "z"}]]}, False, 0.5),
        ("depth-estimation", {"depth": b"1", "min": 0.0, "max": 2.0, "mean": 1.0},
         {"depth": b"2", "min": 0.0, "max": 2.0, "mean": 1.5}, False, 0.25),
    ],
)  # fmt: skip
def test_each_task_has_its_measure(task: str, a: Any, b: Any, same: bool, value: float | None) -> None:
    found = measure_of(find_task(task).prediction).compare(a, b)
    assert found.same is same
    assert found.value == (None if value is None else pytest.approx(value))


def test_every_task_has_a_measure_of_its_own() -> None:
    assert {task.id for task in all_tasks().values() if measure_of(task.prediction).kind == "value"} == set()


def test_the_largest_gap_between_numbers() -> None:
    nan = float("nan")
    assert largest_gap({"a": [1.0, 2.0], "b": nan}, {"a": [1.0, 2.5], "b": nan}) == 0.5
    assert largest_gap({"a": "x", "b": 1.0}, {"a": "y", "b": 1.0}) is None
    assert largest_gap([1.0], [1.0, 2.0]) is None


def test_the_picture_has_a_bar_for_each_outcome_as_long_as_it_is_frequent(tmp_path: Path) -> None:
    found, _ = compared(batch(["A", "A", "B & <C>", "B & <C>", None]), batch([*["A", "B & <C>"] * 2, "A", "A"]))
    plot(found, "one and another", tmp_path / "x.svg")
    root = ET.fromstring((tmp_path / "x.svg").read_text())
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"same label", "another label", "error in A", "only in B", "B & <C>"} <= set(texts)
    bars = [float(r.attrib["width"]) for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("x") == "190.0"]
    assert bars == [bars[0], bars[0], pytest.approx(bars[0] / 2, abs=0.1), pytest.approx(bars[0] / 2, abs=0.1)]
    plot(found, "one and another", tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size[0] == 1440
    with pytest.raises(SpecError):
        plot(found, "one and another", tmp_path / "x.pdf")

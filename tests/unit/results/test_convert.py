"""Rows for showing: legal data that Python has no value for is shown all the same."""

import pyarrow as pa

from jobs.cli.results import shown
from jobs.results.convert import to_json, to_rows
from schemas.output import OwnColumns


def test_text_that_is_not_utf8_and_nanoseconds() -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"bad \xff", b"good"]).buffers())
    times = pa.array([1, 1_000_000_001], pa.timestamp("ns"))
    first, second = to_rows(pa.record_batch({"text": broken, "when": times}))
    assert first["text"] == "bad \ufffd"
    assert second["text"] == "good"
    assert second["when"].endswith("1.000000001")


def test_json_has_no_nan() -> None:
    assert to_json({"a": [float("nan"), 1.0], "b": {"c": float("inf")}}) == {"a": [None, 1.0], "b": {"c": None}}


def test_a_shown_row_has_no_control_characters_and_fits() -> None:
    row = {
        "text": "a\x1b[31m\nb" + "x" * 100,
        "prediction": {"label": "GOOD", "score": 0.51234, "top": []},
        "error": None,
    }
    line = shown(row, OwnColumns())
    assert line.isprintable()
    assert line.endswith("→  label=GOOD  score=0.5123")
    assert len(line) < 120

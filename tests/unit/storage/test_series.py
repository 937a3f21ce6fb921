"""The files of a series: numbers, fingerprints, rows of files, and merging."""

from pathlib import Path
from typing import Any

import pytest

from jobs.storage import Storage
from jobs.storage import series as module
from jobs.storage.hashes import hashes
from jobs.storage.series import RunFile, Seen, Series
from schemas.incremental import Annotation


def annotation(**changes: Any) -> Annotation:
    values = {
        "task": "t", "prediction_version": 1, "model": "m", "params": "none", "dtype": "auto", "seed": 0,
        "columns": "none", "key": None,
    }  # fmt: skip
    return Annotation(**(values | changes))


def seen(*names: str, **rows: list[tuple[int, int]]) -> Seen:
    found = Seen()
    found.add(hashes(name.encode() for name in names))
    for name, spans in rows.items():
        found.add_rows(hashes([name.encode()]).tobytes(), spans)
    return found


@pytest.fixture
def series(tmp_path: Path) -> Series:
    return Series(f"{tmp_path}/series/", Storage())


def run(series: Series, job: str, annotated: Seen, **changes: Any) -> int:
    file = RunFile(job=job, output=f"out/{job}/", annotation=annotation(**changes))
    number = series.begin(file)
    series.record(number, file, annotated)
    return number


def has(found: Seen, *names: str) -> list[bool]:
    answer: list[bool] = found.whole.has(hashes(name.encode() for name in names)).tolist()
    return answer


def test_a_job_keeps_its_number_until_it_is_recorded(series: Series) -> None:
    first = RunFile(job="a", output="out/a/", annotation=annotation())
    second = RunFile(job="b", output="out/b/", annotation=annotation())
    assert [series.begin(one) for one in (first, first, second, first)] == [1, 1, 2, 1]
    assert series.unrecorded() == [(1, first), (2, second)]
    series.record(1, first, seen("x"))
    series.record(1, first, seen("x"))
    assert (series.unrecorded(), series.begin(second), series.next_number()) == ([(2, second)], 2, 3)
    assert (series.latest(), series.latest(before=2), series.latest(before=1)) == (second, first, None)


def test_what_was_seen_is_that_of_one_annotation_and_of_earlier_runs(series: Series) -> None:
    run(series, "a", seen("x"))
    run(series, "b", seen("y"), model="other")
    run(series, "c", seen("z", half=[(0, 5)]))
    assert has(series.seen(annotation()), "x", "y", "z") == [True, False, True]
    assert has(series.seen(annotation(), before=3), "x", "y", "z") == [True, False, False]
    assert has(series.seen(annotation(model="other")), "x", "y", "z") == [False, True, False]
    (spans,) = series.seen(annotation()).parts.values()
    assert spans == [(0, 5)]


def test_many_files_become_one(series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a file that is annotated as a whole since are dropped; another annotation's files are not touched."""
    monkeypatch.setattr(module, "MERGE_AT", 3)
    run(series, "a", seen("x", file=[(0, 5)], other=[(2, 1)]))
    run(series, "b", seen("y"), model="other")
    run(series, "c", seen("file"))
    run(series, "d", seen("z", other=[(4, 1)]))
    assert series.seen(annotation(), before=4).files == 2
    assert series.seen(annotation(), before=5).files == 3
    merged = series.seen(annotation(), before=5)
    assert (merged.files, has(merged, "x", "y", "z", "file")) == (1, [True, False, True, True])
    assert merged.parts == {hashes([b"other"]).tobytes(): [(2, 1), (4, 1)]}
    run(series, "e", seen("new"))
    assert has(series.seen(annotation(), before=6), "x", "new") == [True, True]
    assert series.seen(annotation(), before=6).files == 2
    assert has(series.seen(annotation(), before=4), "x", "z", "file") == [True, False, True]


def test_a_change_is_said_in_words() -> None:
    assert annotation(model="b").differences(annotation(model="a")) == "model was a, is b"
    assert annotation().fingerprint() == annotation().fingerprint() != annotation(seed=1).fingerprint()

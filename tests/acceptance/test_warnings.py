"""What libraries warn of is in the log: it changes no answer, even if PYTHONWARNINGS makes warnings exceptions."""

from pathlib import Path

import pytest

from tests.acceptance.cli import nightshift, options
from tests.integration.harness import read_output, write_reviews
from tests.packages import copy_packages
from tests.texts import sentences

FILES = Path(__file__).parent / "noisy_task"
ROWS = 100


@pytest.fixture
def noisy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this test run on a copy of the packages that has the noisy task among its tasks."""
    root = copy_packages(tmp_path / "copy", FILES)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))


@pytest.mark.usefixtures("noisy")
def test_warnings_made_exceptions_change_no_answer(classifier: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", sentences(ROWS))
    job = [*options(classifier, source, tmp_path / "out"), "--task", "noisy"]
    done = nightshift("run", *job, "--set", "shard.rows=50", PYTHONWARNINGS="error")
    assert done.code == 0, done
    rows = read_output(str(tmp_path / "out"))
    assert [row["prediction"]["length"] for row in rows] == [len(text) for text in sentences(ROWS)]
    (log,) = (tmp_path / "home" / "logs").glob("*.log")
    logged = log.read_text()
    for step in ("import", "load", "prepare", "infer", "finish"):
        assert f"FutureWarning: a library warns in {step}" in logged


@pytest.mark.usefixtures("noisy")
def test_a_sample_is_measured_under_them(classifier: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", sentences(ROWS))
    done = nightshift("plan", *options(classifier, source, tmp_path / "out"), "--task", "noisy", PYTHONWARNINGS="error")
    assert done.code == 0, done
    assert "records/s over a sample of 64" in done.out, done

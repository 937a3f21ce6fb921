"""Records that crash, hang or outgrow the process that works on them: they alone are lost, and nothing waits."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from tests.acceptance.cli import events, nightshift, options, worker
from tests.integration.harness import read_output, write_reviews
from tests.packages import copy_packages
from tests.texts import sentences

FILES = Path(__file__).parent / "deadly_task"


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Commands of this test run on a copy of the packages that has the deadly task among its tasks."""
    root = copy_packages(tmp_path / "copy", FILES)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    # A lease that would run out only after the test: each death is seen, and none is waited for.
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "600")
    monkeypatch.setenv("NIGHTSHIFT_RECORD_TIMEOUT_S", "4")
    monkeypatch.setenv("NIGHTSHIFT_PROCESS_MEMORY_GB", "1")


def submit(model: Path, source: Path, output: Path, task: str, *more: str) -> str:
    at = [*options(model, source, output), "--task", task, *more]
    done = nightshift("submit", *at)
    assert done.code == 0, done
    return done.out.strip()


def manifest(output: Path) -> Any:
    return json.loads((output / "_manifest.json").read_text())


@pytest.mark.slow
@pytest.mark.usefixtures("deadly")
def test_three_killers_among_ten_thousand(classifier: Path, tmp_path: Path) -> None:
    texts = sentences(10_000)
    killers = {1234: "abort", 5678: "hang", 9999: "grow"}
    for row, text in killers.items():
        texts[row] = text
    source = write_reviews(tmp_path / "in.parquet", texts)
    other = write_reviews(tmp_path / "other.parquet", sentences(500, seed=3))
    log = tmp_path / "worker.log"
    with worker(log, "--processes", "2"):
        job = submit(classifier, source, tmp_path / "out", "deadly", "--set", "shard.rows=1000")
        beside = submit(classifier, other, tmp_path / "beside", "text-classification", "--set", "shard.rows=100")
        done = nightshift("watch", job, "--json")
        assert nightshift("watch", beside).code == 0
    assert done.code == 3, (done, log.read_text())
    rows = read_output(str(tmp_path / "out"))
    assert [row["id"] for row in rows] == list(range(10_000))
    codes = {row["id"]: row["error"]["code"] for row in rows if row["error"]}
    assert codes == {1234: "worker_lost", 5678: "timeout", 9999: "memory_exceeded"}
    assert all(row["prediction"]["length"] == len(row["review"]) for row in rows if row["id"] not in killers)
    assert (manifest(tmp_path / "out")["status"], manifest(tmp_path / "out")["lost"]) == ("succeeded", [])
    assert manifest(tmp_path / "beside")["ended_at"] < manifest(tmp_path / "out")["ended_at"]
    # Twice in company before a shard is searched, or once where the supervisor ended it; then in its span; then alone.
    deaths = Counter(lost["shard"] for lost in events(log, "process_lost"))
    assert deaths == {"1": 4, "5": 3, "9": 3}
    assert not events(log, "process_exited"), "Celery itself replaces the process that computes"

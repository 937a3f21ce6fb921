"""Jobs that share a worker: a short one behind a long one, one held back, two models in turn."""

import json
from collections import Counter
from pathlib import Path

import psutil
import pytest

from jobs.settings import Settings
from jobs.state import State
from schemas.manifest import JobStatus
from tests.acceptance.cli import events, nightshift, options, worker
from tests.checkpoints import make_classifier
from tests.integration.harness import write_reviews
from tests.servers import wait_for
from tests.texts import sentences


def submit(model: Path, source: Path, output: Path, *more: str) -> str:
    done = nightshift("submit", *options(model, source, output), *more)
    assert done.code == 0, done
    return done.out.strip()


def test_three_shards_behind_a_job_of_many(settings: Settings, state: State, classifier: Path, tmp_path: Path) -> None:
    """They begin at the next shard and end while it goes on; then it is held back, let go on, and cancelled."""
    long = write_reviews(tmp_path / "long.parquet", sentences(5000))
    short = write_reviews(tmp_path / "short.parquet", sentences(3))
    log = tmp_path / "worker.log"
    with worker(log, "--groups", "text") as process, worker(tmp_path / "control.log", "--groups", "control"):
        big = submit(classifier, long, tmp_path / "big", "--set", "shard.rows=1")
        wait_for("the long job is under way", lambda: (p := state.jobs.progress(big)) and p.shards_done > 10)
        computes = psutil.Process(process.pid).children(recursive=True)
        for member in computes:
            member.suspend()
        small = submit(classifier, short, tmp_path / "small", "--set", "shard.rows=1")
        wait_for("the short job is planned", lambda: (p := state.jobs.progress(small)) and p.shards == 3)
        before_it = len(events(log, "shard_committed"))
        for member in computes:
            member.resume()
        assert nightshift("watch", small).code == 0
        assert state.jobs.status(big) is JobStatus.RUNNING

        assert nightshift("pause", big).out == f"paused {big}; go on with: nightshift continue {big}\n"
        wait_for("the shard in hand is done", lambda: (p := state.jobs.progress(big)) and not p.shards_running)
        told = nightshift("status", big).out
        assert "status   paused\n" in told
        assert f"go on with: nightshift continue {big}" in told
        before = state.jobs.progress(big)
        assert before is not None
        assert nightshift("pause", big).code == 0, "asked twice"
        assert nightshift("continue", big).out == f"continuing {big}\n"
        wait_for("it goes on", lambda: (p := state.jobs.progress(big)) and p.shards_done > before.shards_done)
        assert nightshift("continue", big).code == 1

        nightshift("pause", big)
        assert nightshift("cancel", big).code == 0
        assert "cancelled: " in nightshift("watch", big).out
    manifest = json.loads((tmp_path / "big" / "_manifest.json").read_text())
    assert manifest["status"] == "cancelled"
    assert len(manifest["parts"]) == len(list((tmp_path / "big").glob("data/part-*")))
    order = [event["job"] for event in events(log, "shard_committed")]
    assert order.index(small) - before_it <= 1, "it waits for the shard in hand alone"


@pytest.mark.slow
def test_two_models_on_a_worker_with_room_for_one(
    settings: Settings, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_MODEL_MEMORY_GB", "0.000001")
    other = make_classifier(tmp_path / "other", num_hidden_layers=1)
    file = write_reviews(tmp_path / "in.parquet", sentences(32))
    models = {"one": classifier, "two": other}
    submitted = {name: submit(model, file, tmp_path / name, "--set", "shard.rows=1") for name, model in models.items()}
    log = tmp_path / "worker.log"
    with worker(log):
        assert [nightshift("watch", job).code for job in submitted.values()] == [0, 0]
    loads = Counter(load["model"] for load in events(log, "model_loaded"))
    # 32 shards each, eight or so at a stretch.
    assert {str(model) for model in models.values()} == set(loads)
    assert max(loads.values()) <= 32 / 8 + 2, loads

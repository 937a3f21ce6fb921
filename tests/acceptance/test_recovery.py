"""Redis lost under a running deployment, and jobs retried, by the command line as a user has it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from jobs.settings import Settings
from tests.acceptance.cli import NIGHTSHIFT, environment, events, nightshift, options, worker
from tests.integration.harness import read_output, write_reviews
from tests.servers import free_ports, redis_at, wait_for
from tests.texts import sentences


@contextmanager
def running_job(model: Path, tmp_path: Path) -> "Iterator[subprocess.Popen[str]]":
    """`nightshift run` of a job of 30 shards, in the middle."""
    file = write_reviews(tmp_path / "in.parquet", sentences(900))
    at = [*options(model, file, tmp_path / "out"), "--set", "shard.rows=30", "--json"]
    command = [*NIGHTSHIFT, "run", *at]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for("five parts", lambda: len(parts(tmp_path)) >= 5, 200)
            yield process
        finally:
            process.kill()


def parts(tmp_path: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("data/part-*")}


def check(process: "subprocess.Popen[str]", before: dict[str, int], tmp_path: Path) -> None:
    """The command that waited ends with all rows, each once; what was done was not done again."""
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    done = json.loads(out)
    assert (done["status"], done["rows"], done["parts"]) == ("succeeded", 900, 30)
    assert [row["id"] for row in read_output(f"{tmp_path}/out")] == list(range(900))
    assert before.items() <= parts(tmp_path).items()
    catalog = tmp_path / "home" / "catalog"
    wait_for("the end is marked", (catalog / "ended" / f"{done['job']}.json").exists)


def test_redis_emptied_under_a_job(
    settings: Settings, redis_url: str, slow_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody does anything about it: the worker finds it out, and not even the shard in hand is lost."""
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "60")
    log = tmp_path / "worker.log"
    with worker(log), running_job(slow_classifier, tmp_path) as process:
        before = parts(tmp_path)
        assert len(before) < 30
        redis.Redis.from_url(redis_url).flushall()
        check(process, before, tmp_path)
    assert events(log, "redis_rebuilt")
    assert len(events(log, "model_loaded")) == 1
    assert len(events(log, "shard_committed")) == 30
    assert not events(log, "shard_put_back")


def test_redis_replaced_under_a_job(
    settings: Settings, slow_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away, and an empty one comes in its place."""
    (port,) = free_ports(1)
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", f"redis://127.0.0.1:{port}/0")
    log = tmp_path / "worker.log"
    (tmp_path / "redis").mkdir()
    with ExitStack() as others:
        with redis_at(tmp_path / "redis", port):
            others.enter_context(worker(log))
            process = others.enter_context(running_job(slow_classifier, tmp_path))
        wait_for("Redis is missed", lambda: events(log, "sweep_failed"))
        before = parts(tmp_path)
        with redis_at(tmp_path / "redis", port):
            check(process, before, tmp_path)
            others.close()  # a worker leaves sooner while its Redis is there


def test_recover_says_what_it_found(
    settings: Settings, redis_url: str, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(20))
    job = nightshift("submit", *options(classifier, file, tmp_path / "out")).out.strip()
    redis.Redis.from_url(redis_url).flushall()
    first, again = nightshift("recover"), nightshift("recover", "--json")
    assert (first.code, first.out) == (0, f"{job}  entered again  {tmp_path}/out/\n")
    assert "1 jobs under way" in first.err
    assert (again.code, again.json["job"], again.json["standing"]) == (0, job, "known")
    with worker(tmp_path / "worker.log"):
        assert nightshift("watch", job).code == 0
    assert nightshift("recover").out == ""

    monkeypatch.delenv("NIGHTSHIFT_REDIS_URL")
    other = nightshift("run", *options(classifier, file, tmp_path / "alone"), "--json").json
    catalog = tmp_path / "home" / "catalog"
    (catalog / "ended" / f"{other['job']}.json").unlink()
    (tmp_path / "alone" / "_manifest.json").unlink()
    alone = nightshift("recover")
    assert alone.code == 0
    assert "there is no deployment here to recover, 1 stopped" in alone.err
    assert f"nightshift resume {tmp_path}/alone/" in alone.out
    (catalog / "jobs" / f"{other['job']}.json").write_text("{}")
    assert nightshift("recover").code == 1


def test_error_rows_are_retried(classifier: Path, tmp_path: Path) -> None:
    """A text too large under one setting is answered under another; both locations read as one."""
    texts = [*sentences(20), None, "good " * 300_000]
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": range(22), "review": texts}), file)
    first = nightshift(
        "run", *options(classifier, file, tmp_path / "out"), "--set", "max_errors=5", NIGHTSHIFT_MAX_CELL_MB="1"
    )
    assert first.code == 3
    assert "1 error row: too_large" in first.err
    again = nightshift("retry", tmp_path / "out", "--json")
    assert again.code == 3, again
    assert (again.json["rows"], again.json["error_rows"]) == (2, 1)
    assert again.json["output"] == f"{tmp_path}/out-retry-1/"
    manifest = json.loads((tmp_path / "out-retry-1" / "_manifest.json").read_text())
    assert manifest["parent"]["output"] == f"{tmp_path}/out/"

    rows = [json.loads(line) for line in nightshift(
        "results", tmp_path / "out", "--with-retries", "--json", "-n", "0"
    ).out.splitlines()]  # fmt: skip
    assert [row["id"] for row in rows] == list(range(22))
    assert [row["id"] for row in rows if row["error"]] == [20]
    assert len(nightshift("results", tmp_path / "out", "--with-retries", "--errors").out.splitlines()) == 1
    assert len(nightshift("results", tmp_path / "out", "--errors").out.splitlines()) == 2
    assert nightshift("results", tmp_path / "out", "--with-retries", "--partial").code == 2

    plain = nightshift("run", *options(classifier, write_reviews(tmp_path / "b.parquet", ["good"]), tmp_path / "fine"))
    assert plain.code == 0
    nothing = nightshift("retry", tmp_path / "fine")
    assert (nothing.code, "nothing to retry" in nothing.err) == (0, True)
    assert not (tmp_path / "fine-retry-1").exists()

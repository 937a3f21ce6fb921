"""Jobs by the command line, as a user runs them: embedded and on a deployment, from files and from S3, undisturbed and
killed in the middle."""

import io
import json
import os
import signal
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import S3FileSystem
from transformers import pipeline

from jobs.settings import Settings
from jobs.state import State
from tests.acceptance.cli import NIGHTSHIFT, environment, events, nightshift, options, stopped_in_a_shard, worker
from tests.checkpoints import MAX_LENGTH
from tests.integration.harness import read_output, write_reviews
from tests.servers import S3_ENV, s3_client, wait_for
from tests.texts import sentences


def put_table(endpoint: str, uri: str, table: pa.Table, row_group: int) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group)
    s3_client(endpoint).put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())


def test_twenty_thousand_rows_in_s3(
    s3: str, s3_endpoint: str, settings: Settings, classifier: Path, tmp_path: Path
) -> None:
    """Three files in a bucket, two worker processes; each answer as the pipeline's; any reader reads the folder."""
    texts = sentences(20_000, longest=20)
    cuts = [0, 9000, 9001, 20_000]
    for index, (start, stop) in enumerate(pairwise(cuts)):
        table = pa.table(
            {
                "id": pa.array(range(start, stop), pa.int32()),
                "review": texts[start:stop],
                "stars": pa.array([i % 5 for i in range(start, stop)], pa.int8()).dictionary_encode(),
                "when": pa.array(range(start, stop), pa.timestamp("us", "UTC")),
            }
        )
        put_table(s3_endpoint, f"{s3}/in/file-{index}.parquet", table, row_group=4000)
    log = tmp_path / "worker.log"
    output = f"{s3}/out"
    with worker(log, "--processes", "2"):
        done = nightshift("run", *options(classifier, f"{s3}/in/", output), "--set", "shard.rows=1500", "--json")
    assert done.code == 0, done
    assert (done.json["rows"], done.json["shards"], done.json["error_rows"]) == (20_000, 14, 0)

    commits, loads = events(log, "shard_committed"), events(log, "model_loaded")
    assert len(commits) == 14
    assert len(loads) == 2, "two processes, each loaded the model once"

    host = s3_endpoint.removeprefix("http://")
    keys = {"access_key": S3_ENV["AWS_ACCESS_KEY_ID"], "secret_key": S3_ENV["AWS_SECRET_ACCESS_KEY"]}
    filesystem = S3FileSystem(endpoint_override=host, scheme="http", region="us-east-1", **keys)
    found = ds.dataset(output.removeprefix("s3://"), filesystem=filesystem, format="parquet").to_table()
    assert found["id"].to_pylist() == list(range(20_000))
    assert found["review"].to_pylist() == texts
    assert found["when"].type == pa.timestamp("us", "UTC")
    assert [str(v) for v in found["source_uri"].unique().to_pylist()] == [f"{s3}/in/file-{i}.parquet" for i in range(3)]
    assert found["source_row"].to_pylist() == [i - start for start, stop in pairwise(cuts)
                                               for i in range(start, stop)]  # fmt: skip

    reference = pipeline("text-classification", model=str(classifier), device="cpu")
    answers = found["prediction"].to_pylist()
    expected = reference(texts, truncation=True, max_length=MAX_LENGTH, batch_size=1)
    assert [a["label"] for a in answers] == [e["label"] for e in expected]
    assert max(abs(a["score"] - e["score"]) for a, e in zip(answers, expected, strict=True)) <= 1e-4

    local = tmp_path / "copy"
    local.mkdir()
    client, bucket = s3_client(s3_endpoint), s3.removeprefix("s3://")
    for part in client.list_objects_v2(Bucket=bucket, Prefix="out/data/part-")["Contents"]:
        client.download_file(bucket, part["Key"], str(local / part["Key"].rsplit("/", 1)[-1]))
    (local / "_plan.pq").touch()  # lies in the same folder, and is not taken for data
    query = f"select count(*), count(distinct id), min(prediction.score) > 0 from '{local}/*.parquet'"
    assert duckdb.execute(query).fetchall() == [(20_000, 20_000, True)]


def test_the_same_spec_twice_runs_nothing_the_second_time(classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(60))
    at = options(classifier, file, tmp_path / "out")
    first = nightshift("run", *at)
    assert (first.code, "succeeded: 60 records" in first.out) == (0, True)
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = nightshift("run", *at)
    assert again.code == 0
    assert "nothing to run: job" in again.err
    file.unlink()
    assert "nothing to run: job" in nightshift("run", *at).err, "done is done, whatever became of the input"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == parts


def test_what_users_ask_about_a_job(classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", [*sentences(40), None])
    done = nightshift("run", *options(classifier, file, tmp_path / "out"), "--json", "--param", "top_k=2")
    assert done.code == 3
    job = done.json["job"]
    for name in (job, str(tmp_path / "out"), f"{tmp_path}/out/"):
        status = nightshift("status", name, "--json")
        assert (status.code, status.json["status"], status.json["error_rows"]) == (0, "succeeded", 1)
    assert "41 in 1 part, 1 of them with errors" in nightshift("status", job).out
    rows = [json.loads(line) for line in nightshift("results", job, "--json", "-n", "0").out.splitlines()]
    assert [row["source_row"] for row in rows] == list(range(41))
    assert len(rows[0]["prediction"]["top"]) == 2
    errors = nightshift("results", job, "--errors").out.splitlines()
    assert len(errors) == 1
    assert errors[0].endswith("error null_input: text is null")
    assert nightshift("watch", job).code == 3
    assert (nightshift("cancel", job).code, nightshift("resume", job).code) == (1, 3)


def test_an_interrupted_run_goes_on_where_it_stopped(slow_classifier: Path, tmp_path: Path) -> None:
    """Ctrl-C leaves no process and no temporary file behind; `resume` runs only the missing shards."""
    file = write_reviews(tmp_path / "in.parquet", sentences(2400))
    output = tmp_path / "out"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    at = [*options(slow_classifier, file, output), "--set", "shard.rows=150"]
    command = [*NIGHTSHIFT, "run", *at]
    env = environment(TMPDIR=str(temporary), NIGHTSHIFT_GRACE_S="10")
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Whoever runs the tests in the background, as shells do, has them ignore Ctrl-C, and all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    wait_for("two parts", lambda: len(list(output.glob("data/part-*"))) >= 2)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert f"nightshift resume {output}" in err
    assert psutil.wait_procs(family, timeout=120)[1] == []
    assert list(temporary.iterdir()) == []
    before = {p.name: p.stat().st_mtime_ns for p in output.glob("data/part-*")}
    assert 2 <= len(before) < 16
    assert nightshift("status", output).out.count("not finished; there is no deployment here") == 1
    assert nightshift("results", output).code == 1
    assert nightshift("results", output, "--partial", "-n", "1").code == 0

    done = nightshift("resume", output, "--json")
    assert (done.code, done.json["rows"], done.json["parts"]) == (0, 2400, 16)
    after = {p.name: p.stat().st_mtime_ns for p in output.glob("data/part-*")}
    assert before.items() <= after.items(), "what was done is not done again"
    assert [row["id"] for row in read_output(str(output))] == list(range(2400))


def test_a_killed_command_leaves_no_process_behind(slow_classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(1500))
    at = [*options(slow_classifier, file, tmp_path / "out"), "--set", "shard.rows=150"]
    env = environment(NIGHTSHIFT_GRACE_S="5")
    process = subprocess.Popen([*NIGHTSHIFT, "run", *at], env=env, stderr=subprocess.DEVNULL)
    wait_for("a part", lambda: list((tmp_path / "out").glob("data/part-*")))
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=120)[1] == []


def test_a_worker_killed_in_the_middle_of_a_shard(
    settings: Settings, state: State, slow_classifier: Path, tmp_path: Path
) -> None:
    """kill -9 of everything a worker is, a new one started: the job ends complete, no row twice."""
    file = write_reviews(tmp_path / "in.parquet", sentences(900))
    output = tmp_path / "out"
    submitted = nightshift("submit", *options(slow_classifier, file, output), "--set", "shard.rows=150")
    assert submitted.code == 0, submitted
    job = submitted.out.strip()
    log = tmp_path / "first.log"
    with worker(log) as first:
        stopped_in_a_shard(first, state, job, done=1)
        family = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)
    progress = state.jobs.progress(job)
    assert progress is not None
    assert progress.shards_running == 1, "the dead worker's lease still stands"
    for lease in state._redis.zrange("nightshift:leases", 0, -1):
        state._redis.zadd("nightshift:leases", {lease: 0})  # until now, when its time is over
    second_log = tmp_path / "second.log"
    with worker(second_log):
        done = nightshift("watch", job, "--json")
    assert done.code == 0, done
    assert len(events(second_log, "leases_expired")) == 1
    assert [row["id"] for row in read_output(str(output))] == list(range(900))
    assert json.loads((output / "_manifest.json").read_text())["rows"] == 900


def test_a_killed_child_is_replaced_and_its_shard_done(
    settings: Settings, state: State, slow_classifier: Path, tmp_path: Path
) -> None:
    """kill -9 of the process that computes, alone: the worker goes on by itself."""
    file = write_reviews(tmp_path / "in.parquet", sentences(600))
    output = tmp_path / "out"
    with worker(tmp_path / "worker.log") as process:
        job = nightshift("submit", *options(slow_classifier, file, output), "--set", "shard.rows=150").out.strip()
        stopped_in_a_shard(process, state, job).kill()
        done = nightshift("watch", job, "--json")
    assert done.code == 0, done
    assert [row["id"] for row in read_output(str(output))] == list(range(600))


def test_a_stopped_worker_puts_its_shard_back(
    settings: Settings, state: State, slow_classifier: Path, tmp_path: Path
) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(600))
    log = tmp_path / "worker.log"
    with worker(log) as process:
        at = options(slow_classifier, file, tmp_path / "out")
        job = nightshift("submit", *at, "--set", "shard.rows=200").out.strip()
        child = stopped_in_a_shard(process, state, job)
        before = state.jobs.progress(job)
        assert before is not None
        told_to_stop = Path(child.environ()["NIGHTSHIFT_STOP_FILE"])
        process.send_signal(signal.SIGTERM)
        wait_for("it is told to stop", told_to_stop.exists)
        child.resume()
        assert process.wait(120) == 0
    assert [e["why"] for e in events(log, "shard_put_back")]
    progress = state.jobs.progress(job)
    assert progress is not None
    assert (progress.shards_running, progress.shards_done) == (0, before.shards_done), "it begins no other"
    assert (progress.shards_failed, progress.workers_lost) == (0, 0)
    with worker(tmp_path / "second.log"):
        assert nightshift("watch", job).code == 0
    assert [row["id"] for row in read_output(str(tmp_path / "out"))] == list(range(600))


def test_redis_emptied_in_the_middle(
    settings: Settings, state: State, slow_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no worker does so by itself `resume` rebuilds from storage, and only the missing shards run."""
    monkeypatch.setenv("NIGHTSHIFT_REBUILD", "false")
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "4")  # for as long the shard in hand waits for a rebuilding
    file = write_reviews(tmp_path / "in.parquet", sentences(900))
    output = tmp_path / "out"
    log = tmp_path / "worker.log"
    with worker(log) as process:
        at = options(slow_classifier, file, output)
        job = nightshift("submit", *at, "--set", "shard.rows=150").out.strip()
        child = stopped_in_a_shard(process, state, job, done=2)
        state._redis.flushall()
        child.resume()
        wait_for("the shard in hand is over", lambda: events(log, "shard_put_back"))
        before = {p.name: p.stat().st_mtime_ns for p in output.glob("data/part-*")}
        done = nightshift("resume", job, "--json")
    assert (done.code, done.json["rows"]) == (0, 900)
    after = {p.name: p.stat().st_mtime_ns for p in output.glob("data/part-*")}
    assert before.items() <= after.items()
    assert [row["id"] for row in read_output(str(output))] == list(range(900))
    assert len(events(log, "model_loaded")) == 1


def test_cancel_is_seen_at_the_next_batch(
    settings: Settings, state: State, slow_classifier: Path, tmp_path: Path
) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(3000))
    with worker(tmp_path / "worker.log") as process:
        at = options(slow_classifier, file, tmp_path / "out")
        job = nightshift("submit", *at, "--set", "shard.rows=1000").out.strip()
        child = stopped_in_a_shard(process, state, job)
        assert nightshift("cancel", job).out == f"cancelling {job}\n"
        child.resume()
        done = nightshift("watch", job)
    assert (done.code, "cancelled: " in done.out) == (1, True)
    manifest: dict[str, Any] = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["status"] == "cancelled"
    assert len(manifest["parts"]) == len(list((tmp_path / "out").glob("data/part-*")))


def test_a_model_in_s3_is_fetched_once(s3: str, s3_endpoint: str, classifier: Path, tmp_path: Path) -> None:
    for path in classifier.iterdir():
        s3_client(s3_endpoint).upload_file(str(path), s3.removeprefix("s3://"), f"models/tiny/{path.name}")
    file = write_reviews(tmp_path / "in.parquet", sentences(20))
    for name in ("one", "two"):
        done = nightshift("run", *options(f"{s3}/models/tiny", file, tmp_path / name))
        assert done.code == 0, done
    assert len(list((tmp_path / "home" / "models").glob("*/model.safetensors"))) == 1
    plain = nightshift("run", *options(classifier, file, tmp_path / "three"))
    assert plain.code == 0
    predictions = [[row["prediction"] for row in read_output(f"{tmp_path}/{n}")] for n in ("one", "two", "three")]
    assert predictions[0] == predictions[1] == predictions[2]


def test_a_hub_id_loads_from_the_hub_s_cache(classifier: Path, tmp_path: Path) -> None:
    """The hub can't be reached; a model it gave before is there in its cache, under the commit it had."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--nightshift--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path in classifier.iterdir():
        os.link(path, snapshot / path.name)
    file = write_reviews(tmp_path / "in.parquet", sentences(20))
    at = options("nightshift/tiny", file, tmp_path / "out")
    done = nightshift("run", *at, HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_OFFLINE="1")
    assert done.code == 0, done
    assert json.loads((tmp_path / "out" / "_job.json").read_text())["model"]["revision"] == commit


def test_a_dry_run_estimates_and_writes_nothing(classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(500))
    done = nightshift("plan", *options(classifier, file, tmp_path / "out"), "--json")
    assert done.code == 0, done
    assert (done.json["records"], done.json["sample"]) == (500, 64)
    assert done.json["records_per_s"] > 0
    assert not (tmp_path / "out").exists()
    assert "500 records" in nightshift("plan", *options(classifier, file, tmp_path / "out")).out

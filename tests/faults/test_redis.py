"""Redis restarted, emptied and away: storage is the truth, and jobs go on by themselves."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from jobs.storage.job_folder import JobFolder
from schemas.errors import ServiceUnavailable
from schemas.manifest import JobStatus
from tests.faults.conftest import Note, make_stage
from tests.faults.proxy import TcpProxy
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted, write_table
from tests.servers import wait_for


def parts(job: Submitted) -> int:
    return len(list(Path(job.output).glob("data/part-*")))


def _finished(stage: Stage, job: Submitted, note: Note, what: str, attempts: int = 2) -> None:
    ended = stage.ended(job, bound_s=240)
    manifest = stage.check(ended, job, bound_s=240, attempts=attempts)
    assert (manifest.status, manifest.error_rows) == (JobStatus.SUCCEEDED, 0)
    claims = stage.failpoints.claims(job.id)
    note(what, 1, f"complete; {sum(claims.values()) - manifest.shards} shards run again")


def test_redis_emptied_while_a_job_runs(stage: Stage, redis_server: RedisServer, note: Note) -> None:
    with stage.worker("--groups", "text,control"):
        job = stage.job("job", 60, params={"batch_ms": 200})
        wait_for("two parts", lambda: parts(job) >= 2)
        redis_server.client.flushall()
        _finished(stage, job, note, "FLUSHALL while a job runs")


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [True, False], ids=["keeps", "forgets"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_redis_killed_and_started_again(
    copy: Path, stub_task: None, tmp_path: Path, note: Note, persistent: bool, busy: bool
) -> None:
    """While a job runs, or before one is submitted to workers that had nothing to do."""
    with RedisServer(tmp_path, persistent) as redis_server:
        stage = make_stage(copy, tmp_path, redis_server.url)
        with stage.worker("--groups", "text,control"):
            wait_for("the worker reports", stage.state.workers.alive)
            job = stage.job("job", 60, params={"batch_ms": 200}) if busy else None
            if job is not None:
                running = job
                wait_for("two parts", lambda: parts(running) >= 2)
            redis_server.kill()
            redis_server.start()
            job = job or stage.job("job", 60)
            how = f"{'keeps its data' if persistent else 'forgets'}, {'busy' if busy else 'idle'}"
            _finished(stage, job, note, f"Redis killed and started again, {how}")


@pytest.mark.slow
@pytest.mark.parametrize("down_s", [5, 60])
def test_redis_cannot_be_reached(copy: Path, stub_task: None, tmp_path: Path, note: Note, down_s: int) -> None:
    """The network to it is cut, far longer than a lease lasts, then mended; a job submitted meanwhile counts."""
    with RedisServer(tmp_path) as redis_server, TcpProxy(redis_server.port) as proxy:
        stage = make_stage(copy, tmp_path, f"redis://127.0.0.1:{proxy.port}/0")
        with stage.worker("--groups", "text,control"):
            job = stage.job("job", 100, params={"batch_ms": 200})
            wait_for("two parts", lambda: parts(job) >= 2)
            with proxy.cut():
                with pytest.raises(ServiceUnavailable):
                    stage.job("meanwhile", 20)
                accepted = JobFolder(str(tmp_path / "meanwhile"), stage.storage).read_job()
                assert accepted is not None
                threading.Event().wait(down_s)
            _finished(stage, job, note, f"Redis cut off for {down_s} s while a job runs", attempts=3)
            again = stage.job("meanwhile", 20)
            assert again.id == accepted.id, "what was accepted stays so: submitting it again goes on with it"
            _finished(stage, again, note, "a job submitted while Redis is cut off, and again afterwards")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut off", "killed, and forgets"])
def test_the_api_while_redis_goes_and_comes(copy: Path, stub_task: None, tmp_path: Path, note: Note, how: str) -> None:
    """Each submission is refused with a 503, or accepted for good; asked again by its key it is the same job."""
    file = write_table(tmp_path / "in.parquet", [f"text {i}" for i in range(10)])
    with RedisServer(tmp_path, persistent=False) as redis_server, TcpProxy(redis_server.port) as proxy:
        stage = make_stage(copy, tmp_path, f"redis://127.0.0.1:{proxy.port}/0")

        def post(http: httpx2.Client, number: int) -> httpx2.Response:
            spec = {"task": "noise", "model": str(stage.model), "input": {"uri": str(file)}}
            spec |= {"output": {"uri": str(tmp_path / "out" / str(number))}}
            return http.post("/v1/jobs", json=spec, headers={"Idempotency-Key": f"night-{number}"})

        with stage.worker("--groups", "text,control"), stage.api() as http:
            first = _submissions(lambda number: post(http, number), proxy, redis_server if "killed" in how else None)
            refused = [answer for answer in first if answer.status_code == 503]
            assert {answer.status_code for answer in first} == {202, 503}
            assert all("retry-after" in answer.headers for answer in refused)
            again = [post(http, number) for number in range(len(first))]
            assert {answer.status_code for answer in again} == {202}
            ids = [answer.json()["id"] for answer in again]
            assert len(set(ids)) == len(first)
            assert all(a.status_code == 503 or a.json()["id"] == id for a, id in zip(first, ids, strict=True))
            for number in range(len(first)):
                job = JobFolder(str(tmp_path / "out" / str(number)), stage.storage).read_job()
                assert job is not None
                submitted = Submitted(job, [str(file)])
                stage.check(stage.ended(submitted), submitted, attempts=3)
    note(
        f"Redis {how}, twice, while the API gets jobs",
        2,
        f"{len(first) - len(refused)} accepted and done, {len(refused)} refused with 503, accepted when asked again",
    )


def _submissions(
    post: Callable[[int], httpx2.Response], proxy: TcpProxy, killed: RedisServer | None
) -> list[httpx2.Response]:
    """The answers to submissions one after the other, while Redis goes away twice for 3 s."""
    over = threading.Event()

    def submit() -> list[httpx2.Response]:
        answers: list[httpx2.Response] = []
        while not over.wait(0.1):
            answers.append(post(len(answers)))
        return answers

    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(submit)
        for _ in range(2):
            over.wait(3)
            if killed is not None:
                killed.kill()
                over.wait(3)
                killed.start()
            else:
                with proxy.cut():
                    over.wait(3)
        over.wait(3)
        over.set()
        return answers.result()

"""Redis restarted, emptied and away: storage is the truth, and jobs go on by themselves."""

import threading
from pathlib import Path

import pytest

from jobs.files import read_job
from schemas.errors import ServiceUnavailable
from schemas.manifest import JobStatus
from tests.faults.conftest import Note, make_stage
from tests.faults.proxy import TcpProxy
from tests.faults.redis_server import RedisServer
from tests.faults.stage import Stage, Submitted
from tests.servers import wait_for


def parts(job: Submitted) -> int:
    return len(list(Path(job.output).glob("part-*")))


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
            wait_for("the worker reports", stage.state.workers)
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
                accepted = read_job(str(tmp_path / "meanwhile"), stage.storage)
                assert accepted is not None
                threading.Event().wait(down_s)
            _finished(stage, job, note, f"Redis cut off for {down_s} s while a job runs", attempts=3)
            again = stage.job("meanwhile", 20)
            assert again.id == accepted.id, "what was accepted stays so: submitting it again goes on with it"
            _finished(stage, again, note, "a job submitted while Redis is cut off, and again afterwards")

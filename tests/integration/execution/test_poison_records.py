"""Records that end the process which works on them, found by the real runner, state and supervisor's eyes.

A death is an exception here that nothing catches, or the end of another process; tests/acceptance has it in earnest.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.broker import CONTROL_QUEUE
from jobs.cli.progress import describe
from jobs.settings import Settings
from jobs.state import State
from jobs.supervisor.watchdog import Watchdog
from schemas.errors import Transient
from schemas.heartbeat import IO, PULSE, READ, WorkInHand, place_of, time_to_bytes
from schemas.job import AcceptedJob
from schemas.loss import NO_ROWS, Death, Loss
from schemas.manifest import JobStatus
from schemas.plan import ShardOrder
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.servers import wait_for
from tests.texts import sentences
from workers.engine.poison_rows import findings
from workers.execution.attempt import Attempt, Outcome, run_attempt
from workers.tasks.text_classification import TextClassification

ROWS = 100


class Died(BaseException):
    """As a crash in a library: the attempt is over, and nobody says how."""


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "in.parquet", sentences(ROWS))


def dying(monkeypatch: pytest.MonkeyPatch, stage: str, killers: set[int]) -> None:
    """Make the handler die at this stage of the records whose text ends in one of these numbers."""
    plain = {name: getattr(TextClassification, name) for name in ("prepare", "infer", "finish")}

    def deadly(text: str) -> bool:
        return int(text.rsplit(" ", 1)[-1]) in killers

    def prepare(self: TextClassification, records: Any) -> Any:
        if stage == "prepare" and any(deadly(record["text"]) for record in records):
            raise Died
        made = [
            [type(piece)(piece.inputs, piece.cost, record["text"]) for piece in pieces]
            for record, pieces in zip(records, plain["prepare"](self, records), strict=True)
        ]
        return [decoding(pieces) for pieces in made] if stage == "decode" else made

    def decoding(pieces: Any) -> Iterator[Any]:
        for piece in pieces:
            if deadly(piece.notes):
                raise Died
            yield piece

    def infer(self: TextClassification, pieces: Any) -> Any:
        if stage == "infer" and any(deadly(piece.notes) for piece in pieces):
            raise Died
        return plain["infer"](self, pieces)

    def finish(self: TextClassification, pieces: Any, outputs: Any) -> Any:
        if stage == "finish" and deadly(pieces[0].notes):
            raise Died
        return plain["finish"](self, [type(piece)(piece.inputs, piece.cost, False) for piece in pieces], outputs)

    for name, method in (("prepare", prepare), ("infer", infer), ("finish", finish)):
        monkeypatch.setattr(TextClassification, name, method)


def submit(house: House, classifier: Path, texts: Path, **changes: Any) -> AcceptedJob:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent}/out", **changes))
    house.plan(job)
    return job


def attempts(house: House, job: AcceptedJob, why: Loss = Loss.WORKER_LOST) -> tuple[Outcome | None, list[Death]]:
    """Attempt the job's first shard until one attempt lives; return its outcome, and the deaths of those before.

    The outcome is None if the shard is handed out no more.
    """
    deaths: list[Death] = []
    for number in range(100):
        order = house.state.shards.take({job.spec.task}, [], f"a{number}")
        if order is None:
            return None, deaths
        deaths = house.state.shards.deaths(order)
        try:
            return run_attempt(Attempt(order, f"a{number}", house.process)), deaths
        except Died:
            assert house.state.shards.lost(order, f"a{number}", why).stands
            deaths = house.state.shards.deaths(order)
    raise AssertionError("the search does not end")


@pytest.mark.parametrize("stage", ["prepare", "decode", "infer", "finish"])
def test_killers_are_error_rows_alone(
    stage: str, house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers = {0, 41, 42, 99}
    dying(monkeypatch, stage, killers)
    job = submit(house, classifier, texts)
    outcome, deaths = attempts(house, job)
    assert outcome is not None
    assert outcome.how == "committed"
    # Two of the four are in one span of ten rows, and cost three deaths together.
    assert len(deaths) == 2 + 2 * 4 - 1
    manifest = house.finish(job)
    assert (manifest.status, manifest.errors) == (JobStatus.SUCCEEDED, {"worker_lost": 4})
    rows = read_output(job.output)
    assert [row["id"] for row in rows] == list(range(ROWS))
    assert {row["id"] for row in rows if row["error"]} == killers
    assert all((row["prediction"] is None) == (row["id"] in killers) for row in rows)


def test_more_killers_than_a_shard_may_have(
    settings: Settings, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard is given up after a bounded number of deaths, and the manifest says so."""
    house = House(settings.model_copy(update={"max_killers": 2}))
    dying(monkeypatch, "infer", set(range(0, ROWS, 10)))
    job = submit(house, classifier, texts)
    outcome, deaths = attempts(house, job)
    assert (outcome, len(deaths)) == (None, 2 + 2 * 2 + 1)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.lost[0].error.code == "worker_lost"
    assert manifest.lost[0].error.message == "the worker was lost 7 times while it ran this shard"


def test_a_model_that_ends_the_worker_that_loads_it_fails_the_job(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many deaths in a row, and not after as many for each of its shards."""
    crashes = 0

    def crash(*args: object) -> None:
        nonlocal crashes
        crashes += 1
        raise Died

    monkeypatch.setattr(TextClassification, "load", crash)
    job = submit(house, classifier, texts, shard={"rows": 10})
    outcome, deaths = attempts(house, job, Loss.MEMORY_EXCEEDED)
    assert (outcome, deaths, crashes) == (None, [], house.settings.max_lost)
    assert house.state.jobs.status(job.id) is JobStatus.FAILING
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert manifest.error.code == "model"
    assert "lost 4 times in a row while it loaded the model (memory_exceeded)" in manifest.error.message


def test_shards_given_up_in_a_row_fail_the_job(house: House, classifier: Path, texts: Path) -> None:
    """Where every shard loses its workers, the job isn't taken through all of them; one that is done breaks the row."""
    job = submit(house, classifier, texts, shard={"rows": 5})

    def give_up(shard: int) -> None:
        for number in range(house.settings.max_lost):
            order, attempt = house.take(job, shard, f"dies-{shard}-{number}")
            assert house.state.shards.lost(order, attempt, Loss.MEMORY_EXCEEDED).stands

    for shard in range(4):
        give_up(shard)
    order, attempt = house.take(job, 4, "works")
    house.state.shards.commit(order, attempt, 5, {})
    for shard in range(5, 9):
        give_up(shard)
    assert house.state.jobs.status(job.id) is JobStatus.RUNNING
    give_up(9)
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert progress.status is JobStatus.FAILING
    shown = describe(replace(progress, waits_for=None))
    assert shown.endswith("9 shards failed, 36 workers lost, last: memory_exceeded")
    manifest = house.finish(job)
    assert manifest.error is not None
    assert manifest.error.code == "memory_exceeded"
    assert manifest.error.message.startswith("5 shards in a row lost their worker too often")
    assert len(manifest.lost) == 9


def test_deaths_over_a_model_that_others_can_load_count_nothing(house: House, classifier: Path, texts: Path) -> None:
    """One worker with too little memory fails no job that others work on, nor one that got on in between."""
    job = submit(house, classifier, texts, shard={"rows": 10})

    def die(times: int) -> None:
        for _ in range(times):
            first = house.take(job, 0, "dies")
            assert house.state.shards.set_position(*first, "load")
            assert house.state.shards.lost(*first, Loss.WORKER_LOST).stands is True

    second = house.take(job, 1, "works")
    die(10)
    third = house.take(job, 2, "is careful")
    assert house.state.shards.set_position(*third, (0, 3))
    house.state.shards.requeue(*second)
    die(10)
    house.state.shards.requeue(*third)
    die(house.settings.max_lost - 1)
    house.state.shards.commit(*house.take(job, 1, "works"), 10, {})
    die(house.settings.max_lost - 1)
    assert house.state.jobs.status(job.id) is JobStatus.RUNNING
    first = house.take(job, 0, "loads too")
    assert house.state.shards.deaths(first[0]) == []
    assert house.state.shards.set_position(*first, "load")
    third = house.take(job, 2, "dies")
    assert house.state.shards.set_position(*third, "load")
    assert house.state.shards.lost(*third, Loss.WORKER_LOST).stands
    assert house.state.jobs.status(job.id) is JobStatus.FAILING


def test_one_late_step_begins_the_search(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying(monkeypatch, "infer", {41})
    job = submit(house, classifier, texts)
    outcome, deaths = attempts(house, job, Loss.TIMEOUT)
    assert outcome is not None
    assert (outcome.how, len(deaths)) == ("committed", 3)
    (error,) = [row["error"] for row in read_output(job.output) if row["error"]]
    assert error == {
        "code": "timeout",
        "message": "the worker process hung at this record alone: a step takes 300 s at most",
    }


def test_what_is_put_back_is_no_death(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a fault that should pass nor a worker that stops counts, nor leaves it rows that it had named."""
    job = submit(house, classifier, texts)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)

    def away(*args: object) -> None:
        raise Transient("S3 is slow today")

    with monkeypatch.context() as broken:
        broken.setattr(house.process.storage, "create", away)
        assert house.attempt(job, 0).how == "put_back"
    assert house.state.shards.deaths(order) == []
    house.end_delays()
    assert house.take(job, 0, "b") == (order, "b")
    assert house.state.shards.set_position(order, "b", (3, 9))
    house.state.shards.requeue(order, "b")
    assert not house.state.shards.set_position(order, "b", (3, 9))
    assert house.take(job, 0, "c") == (order, "c")
    assert house.state.shards.lost(order, "b", Loss.WORKER_LOST).stands is False
    assert house.state.shards.lost(order, "c", Loss.WORKER_LOST).stands is True
    assert house.state.shards.deaths(order) == [Death(Loss.WORKER_LOST)]


def test_a_lease_that_runs_out_accuses_the_rows_it_named(house: House, classifier: Path, texts: Path) -> None:
    job = submit(house, classifier, texts)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)
    short = State(house.settings.model_copy(update={"lease_s": 0.05}))
    assert short.shards.take({job.spec.task}, [], "a") == order
    short.shards.set_position(order, "a", (3, 9))
    wait_for("the lease runs out", lambda: short.shards.sweep(CONTROL_QUEUE).expired == 1)
    assert short.shards.deaths(order) == [Death(Loss.LEASE_EXPIRED, 3, 9)]


@contextmanager
def at_work(house: House, job: AcceptedJob, folder: Path, script: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that has the job's only shard in hand, and runs this script until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", f"{script}\nimport time; time.sleep(600)"])
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)
    assert house.take(job, 0, "a") == (order, "a")
    (folder / "1.work").write_bytes(WorkInHand(pid=process.pid, order=order, attempt="a").to_bytes())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def say(file: Path, times: dict[str, float]) -> None:
    """Write these times into the file, seconds from now."""
    with file.open("r+b") as opened:
        for name, seconds in times.items():
            opened.seek(place_of(name))
            opened.write(time_to_bytes(time.monotonic() + seconds))


@pytest.mark.parametrize(
    ("script", "times", "why"),
    [
        ("import os; os.abort()", {}, Loss.WORKER_LOST),
        ("", {"infer": -1}, Loss.TIMEOUT),
        ("", {"infer": 3600, PULSE: -1}, Loss.TIMEOUT),
        ("", {"infer": -1, READ: -1}, Loss.TIMEOUT),
        ("grown = b'1' * (512 << 20)", {}, Loss.MEMORY_EXCEEDED),
    ],
)
def test_what_the_supervisor_sees(
    script: str, times: dict[str, float], why: Loss, settings: Settings, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    house = House(settings.model_copy(update={"process_memory_gb": 0.5}))
    watchdog = Watchdog(tmp_path, house.state, house.broker, house.settings)
    job = submit(house, classifier, texts)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)
    with at_work(house, job, tmp_path, script):
        say(tmp_path / "1.work", times)

        def told() -> bool:
            watchdog.check()
            return bool(house.state.shards.deaths(order))

        wait_for("the process is gone", told)
    assert house.state.shards.deaths(order) == [Death(why)]
    assert not list(tmp_path.glob("*.work"))
    assert house.next() is not None, "its shard waits to be taken"


@pytest.mark.parametrize("stage", IO)
def test_a_store_that_hangs_accuses_no_record(
    stage: str, house: House, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    """While other stages are on time. The shard's next attempt isn't searched for a poison record."""
    watchdog = Watchdog(tmp_path, house.state, house.broker, house.settings)
    job = submit(house, classifier, texts)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)
    with at_work(house, job, tmp_path, ""):
        say(tmp_path / "1.work", {"infer": 3600, PULSE: 3600, stage: -1})

        def told() -> bool:
            watchdog.check()
            return bool(house.state.shards.deaths(order))

        wait_for("the process is gone", told)
    assert house.state.shards.deaths(order) == [Death(Loss.TIMEOUT, *NO_ROWS)]
    assert findings(house.state.shards.deaths(order)) is None
    assert house.next() is not None, "its shard waits to be taken"


def test_who_is_slow_for_another_reason_is_left_alone(
    house: House, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    """Silent outside of a step, as where a model is loaded; in time; and stopped by a signal."""
    watchdog = Watchdog(tmp_path, house.state, house.broker, house.settings)
    job = submit(house, classifier, texts)
    with at_work(house, job, tmp_path, "") as process:
        file = tmp_path / "1.work"
        say(file, {PULSE: -1})
        watchdog.check()
        watchdog.check()
        say(file, {PULSE: 3600, "infer": 3600})
        watchdog.check()
        watchdog.check()
        process.send_signal(signal.SIGSTOP)
        wait_for("it is stopped", lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        say(file, {"infer": -1})
        watchdog.check()
        watchdog.check()
        say(file, {"infer": 3600})
        process.send_signal(signal.SIGCONT)
        watchdog.check()
        watchdog.check()
        assert process.poll() is None
        assert file.exists()


def test_a_worker_that_stops_gives_back_what_it_had_to_kill(
    house: House, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    watchdog = Watchdog(tmp_path, house.state, house.broker, house.settings)
    job = submit(house, classifier, texts)
    order = ShardOrder(job=job.id, task=job.spec.task, output=job.output, shard=0, shards=1)
    with at_work(house, job, tmp_path, ""):
        pass
    watchdog.put_back()
    assert house.state.shards.deaths(order) == []
    outcome = house.next()
    assert outcome is not None
    assert outcome.how == "committed"

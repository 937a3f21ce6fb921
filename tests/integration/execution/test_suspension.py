"""A machine that goes bad: its process is suspended, says why, checks itself, and is tried again."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from jobs.cli.workers import workers
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from schemas.errors import ServiceUnavailable
from schemas.job import AcceptedJob
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences
from workers.execution import self_check, suspension, ticket
from workers.execution.breaker import FAILURES
from workers.execution.process import Process
from workers.execution.self_check import unfit


@pytest.fixture
def houses(settings: Settings) -> list[House]:
    """A deployment on two machines, as its supervisors would report them."""
    found = []
    for name in ("bad", "good"):
        house = House(settings.model_copy(update={"host": name, "worker": f"{name}-1"}))
        house.state.workers.begin()
        house.state._redis.set("nightshift:reported_since", 0)
        house.state.workers.report(f"{name}-1", ["text", "control"], 1, host=name)
        found.append(house)
    return found


def planned(house: House, model: Path, folder: Path, records: int, **changes: Any) -> AcceptedJob:
    source = write_reviews(folder / "in.parquet", sentences(records))
    job = house.submit(spec_for(model, str(source), f"{folder}/out", **changes))
    house.plan(job)
    return job


def full(*args: Any, **options: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_it_is_suspended_says_why_and_goes_on(
    houses: list[House], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = houses
    job = planned(bad, classifier, tmp_path, 40, shard={"rows": 4})
    assert good.next() is not None
    monkeypatch.setattr("workers.execution.attempt.PartWriter", full)
    for _ in range(FAILURES):
        outcome = bad.next()
        assert outcome is not None
        assert outcome.how == "put_back"
        bad.process.breaker._avoided.clear()
    assert bad.process.breaker.is_open
    monkeypatch.undo()
    monkeypatch.setenv(
        "NIGHTSHIFT_REDIS_URL", str(bad.settings.redis_url and bad.settings.redis_url.get_secret_value())
    )
    shown = CliRunner().invoke(workers, []).output
    assert "bad-1  text,control  1 process" in shown
    assert "is suspended until" in shown
    assert "after 3 failures in a row: OSError: [Errno 28] No space left on device" in shown
    assert State(good.settings).workers.able_hosts(["text-classification"]) == ["good"]
    bad.process.breaker._until = 0.0
    assert suspension.wait_until_fit(bad.process)
    outcome = bad.next()
    assert outcome is not None
    assert outcome.how == "committed"
    assert "suspended" not in CliRunner().invoke(workers, []).output
    while good.next() is not None:
        pass
    bad.end_delays()
    while good.next() is not None:
        pass
    assert good.finish(job).status == "succeeded"


def test_the_process_that_replaces_a_suspended_one_is_not(houses: list[House]) -> None:
    """Else its machine would count as unable for as long as its supervisor lives."""
    bad, _ = houses
    bad.process.breaker.trip("the disk is full")
    suspension.suspended(bad.process)
    assert State(bad.settings).workers.able_hosts(["text-classification"]) == ["good"]
    assert suspension.wait_until_fit(Process(bad.settings, bad.broker))
    assert State(bad.settings).workers.able_hosts(["text-classification"]) == ["bad", "good"]


def test_a_machine_that_is_unfit_at_its_start_takes_nothing(
    houses: list[House], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad, _ = houses
    stop = tmp_path / "stop"
    process = Process(bad.settings.model_copy(update={"stop_file": stop}), bad.broker)
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    monkeypatch.setattr("workers.execution.suspension.time.sleep", lambda seconds: stop.touch())
    assert not suspension.wait_until_fit(process)
    assert process.breaker.is_open
    assert "No space left" in process.breaker.why


def test_what_makes_a_machine_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert unfit(cpu) is None
    assert "holds no job" in str(unfit(cpu, JobFolder(f"{tmp_path}/", Storage())))
    monkeypatch.setattr(torch.Tensor, "trace", lambda tensor: torch.tensor(1.0))
    assert "computes 1 where 85344 is right" in str(unfit(cpu))
    monkeypatch.undo()
    monkeypatch.setattr(self_check, "_MEMORY_BYTES", 1 << 60)
    assert "of memory are left" in str(unfit(cpu))


def test_a_shard_whose_answer_was_lost_is_given_back(
    houses: list[House], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, _ = houses
    job = planned(house, classifier, tmp_path, 4)
    take = house.process.state.shards.take

    def lost(*args: Any) -> Any:
        take(*args)
        raise ServiceUnavailable("the answer is lost")

    monkeypatch.setattr(house.process.state.shards, "take", lost)
    assert house.next() is None
    monkeypatch.setattr(house.process.state.shards, "take", take)
    outcome = house.next()
    assert outcome is not None
    assert outcome.how == "committed"
    assert house.state.jobs.progress(job.id).workers_lost == 0  # type: ignore[union-attr]


def test_shards_that_are_left_to_others_are_waited_for(
    houses: list[House], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = houses
    planned(bad, classifier, tmp_path, 4)
    monkeypatch.setattr("workers.execution.attempt.PartWriter", full)
    assert bad.next() is not None
    bad.end_delays()
    waited: list[float] = []
    monkeypatch.setattr(ticket, "_pause", lambda process, seconds: waited.append(seconds))
    assert bad.next() is None
    assert waited == [ticket.LEFT_S]
    monkeypatch.undo()
    assert good.next() is not None

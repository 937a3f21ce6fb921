"""`gc`: what the policy says goes, whole; what it must not touch stays, whole."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.cli.gc import gc
from jobs.results.expiry import Ended, Policy, ended_jobs, expired, remove
from jobs.storage import Storage
from jobs.submission.retry import accept_retry
from schemas.errors import Transient
from schemas.job import AcceptedJob, RunOf
from schemas.manifest import JobStatus
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences


def run(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(gc, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


class Made:
    """Jobs over a small table of which one text is null, by name."""

    def __init__(self, house: House, model: Path, folder: Path) -> None:
        self.house, self.model, self.folder = house, model, folder
        self.source = write_reviews(folder / "in.parquet", [*sentences(5), None])

    def job(self, name: str, end: bool = True, **more: Any) -> AcceptedJob:
        output = {"uri": f"{self.folder}/{name}/"} | more.pop("output", {})
        spec = spec_for(self.model, str(self.source), output["uri"], **more)
        spec = spec.model_copy(update={"output": spec.output.model_copy(update=output)})
        if not end:
            return self.house.submit(spec)
        found = self.house.catalog.job(self.house.run(spec).job)
        assert found is not None
        return found

    def retry(self, parent: AcceptedJob) -> AcceptedJob:
        job = accept_retry(parent, None, self.house.submitter, self.house.settings).job
        self.house.state.jobs.add(job.id, job.spec.task, job.output, 5, 0.0, "", job.model_key, 5)
        self.house.plan(job)
        while self.house.next() is not None:
            pass
        self.house.finish(job)
        return job

    def left(self, job: AcceptedJob) -> set[str]:
        """The objects of the job, in its output and in the catalog."""
        storage = Storage()
        there = {info.uri for info in storage.list(job.output)}
        return there | {info.uri for info in storage.list(self.house.catalog.uri + "/") if job.id in info.uri}


@pytest.fixture
def made(house: House, classifier: Path, tmp_path: Path) -> Made:
    return Made(house, classifier, tmp_path)


def test_what_expired_goes_and_the_rest_stays(made: Made, tmp_path: Path) -> None:
    latest = {"latest": f"{tmp_path}/latest.json"}
    old, newer, newest = (made.job(f"night-{n}", output=latest, labels={"series": "a"}) for n in range(3))
    tenants = made.job("theirs", labels={"tenant": "search"})
    running = made.job("running", end=False)
    parent = made.job("parent")
    retry = made.retry(parent)
    foreign = Path(old.output, "data", "notes.txt")
    foreign.write_text("mine")
    before = {job.id: made.left(job) for job in (old, newer, newest, tenants, running, parent, retry)}

    dry = run("--keep-latest", "0", "--label", "series=a")
    assert {job["job"] for job in dry["jobs"]} == {old.id, newer.id}
    assert [one["job"] for one in dry["kept"]] == [newest.id], "the pointer names it"
    assert {job: made.left(job_) for job, job_ in _by_id(old, newer, newest)} == {
        job.id: before[job.id] for job in (old, newer, newest)
    }, "a dry run removes nothing"

    assert [job["job"] for job in run("--keep-latest", "2", "--label", "series=a")["jobs"]] == [old.id]
    assert run("--older-than", "1h")["jobs"] == []
    assert {job["job"] for job in run("--status", "succeeded")["jobs"]} == {old.id, newer.id, parent.id, retry.id}
    assert [job["job"] for job in run("--status", "succeeded", "--tenant", "search")["jobs"]] == [tenants.id]
    assert run("--status", "failed")["jobs"] == []

    done = run("--keep-latest", "1", "--label", "series=a", "--delete")
    assert {job["job"] for job in done["jobs"]} == {old.id, newer.id}
    assert done["left"] == [str(foreign)]
    assert (made.left(old), made.left(newer)) == ({str(foreign)}, set())
    for job in (newest, tenants, running, parent, retry):
        assert made.left(job) == before[job.id], job.output
    assert list(made.house.catalog.not_marked()) == [running.id], "what is left is run again as before"


def _by_id(*jobs: AcceptedJob) -> list[tuple[str, AcceptedJob]]:
    return [(job.id, job) for job in jobs]


def test_the_newest_runs_of_a_schedule_stay(made: Made) -> None:
    """Each has a label with its own due time."""
    jobs = [made.job(f"night-{night}", labels={"due": str(night)}) for night in range(3)]
    run = RunOf(schedule="nightly", due=datetime.now(UTC), run="r")
    ended = [Ended(job.model_copy(update={"run": run}), JobStatus.SUCCEEDED, job.accepted_at) for job in jobs]
    removed, _ = expired(ended, Policy(keep_latest=2), datetime.now(UTC), made.house.catalog)
    assert [one.job.id for one in removed] == [jobs[0].id]


def test_a_parent_stays_while_a_retry_does(made: Made) -> None:
    parent = made.job("parent")
    retry = made.retry(parent)
    catalog, now = made.house.catalog, datetime.now(UTC)
    both = list(ended_jobs(catalog, ""))
    assert {one.job.id for one in both} == {parent.id, retry.id}
    retried = next(one for one in both if one.job.id == retry.id)
    old_parent = [one for one in both if one is not retried]
    removed, kept = expired([*old_parent, retried], Policy(older_than=timedelta(0)), now, catalog)
    assert [one.job.id for one in removed] == [retry.id, parent.id], "the retry first"
    removed, kept = expired(old_parent, Policy(older_than=timedelta(0)), now, catalog)
    assert (removed, [one.job.id for one in kept]) == ([], [parent.id])


def test_an_interrupted_removal_is_gone_on_with(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it stops, the job is not run again, and the next `gc` removes the rest."""
    catalog = made.house.catalog
    for most in range(11):
        job = made.job(f"job-{most}")
        deleted = 0

        def stops(self: Storage, uri: str, most: int = most) -> None:
            nonlocal deleted
            deleted += 1
            if deleted > most:
                raise Transient("the store is away")
            self._store(uri).delete(uri)

        with monkeypatch.context() as away:
            away.setattr(Storage, "delete", stops)
            if most < 10:
                with pytest.raises(Transient):
                    remove(job, catalog)
            else:
                remove(job, catalog)
        assert job.id not in set(catalog.not_marked())
        run("--status", JobStatus.FAILED.value, "--delete")
        assert made.left(job) == set(), most

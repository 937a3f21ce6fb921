"""Schedules on real Redis and storage: what is fired, once, and what each policy makes of a night."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs.schedules import manage
from jobs.schedules.manage import ScheduleConflict
from jobs.settings import Settings
from jobs.storage.schedule_store import notice_id
from schemas.errors import ServiceUnavailable, SpecError, TooManyRequests
from schemas.schedule import Rights, Standing
from tests.integration.schedules.stage import DAY, NIGHT, NOON, Stage
from tests.integration.webhooks.test_delivery import SECRET, Receiver, checked
from tests.servers import s3_client, wait_for

SECOND = timedelta(seconds=1)


def test_a_night_is_fired_once_whoever_looks(stage: Stage) -> None:
    key = stage.add()
    stage.input("2026-11-20")
    stage.at(NIGHT - SECOND)
    assert stage.outcomes(key) == {}
    stage.at(NIGHT)
    [run] = stage.history(key).values()
    job = stage.job(run)
    assert (run.status, run.due, job.run and job.run.due) == ("running", NIGHT, NIGHT)
    assert job.spec.labels == {"schedule": "nightly", "due": "2026-11-20T02:30:00+01:00"}
    assert job.output.endswith("/out/nightly/2026-11-20/")
    # Another supervisor, one that knows nothing, and one after Redis was emptied: none fires it again.
    stage.at(NIGHT + SECOND, stage.other)
    stage.at(NIGHT + SECOND, stage.supervisor("third"))
    stage.state._redis.flushall()
    stage.at(NIGHT + 2 * SECOND, stage.other)
    stage.at(NIGHT + 2 * SECOND)
    assert stage.state.jobs.status(job.id) == "planning", "a lost Redis gets the job again"
    stage.work(job)
    stage.at(NIGHT + 3 * SECOND)
    assert stage.outcomes(key) == {"11-20": "succeeded"}
    assert list(stage.catalog.ids()) == [job.id]


def test_two_that_decide_at_once_agree(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is frozen between its look and its decision, while another decides otherwise."""
    key = stage.add(overlap="skip")
    stage.input("2026-11-20")
    runs = type(stage.one._runs)
    prepare = runs.prepare

    def frozen(self: Any, *args: Any) -> Any:
        found = prepare(self, *args)
        if self.name == "one":
            stage.at(NIGHT + SECOND, stage.other)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(runs, "prepare", frozen)
        stage.at(NIGHT)
    [job] = stage.catalog.ids()
    run = stage.history(key)["11-20"]
    assert (run.jobs, run.record and run.record.decided_by) == ((job,), "other")


@pytest.mark.parametrize("died_at", ["before the job", "before its file", "before Redis"])
def test_a_run_goes_on_where_its_supervisor_died(stage: Stage, monkeypatch: pytest.MonkeyPatch, died_at: str) -> None:
    key = stage.add()
    stage.input("2026-11-20")

    def die(*args: Any, **more: Any) -> Any:
        raise SystemExit

    step = {
        "before the job": "jobs.storage.catalog.Catalog.add",
        "before its file": "jobs.storage.job_folder.JobFolder.write_job",
        "before Redis": "jobs.schedules.runs.enqueue",
    }[died_at]
    with monkeypatch.context() as patch:
        patch.setattr(step, die)
        with pytest.raises(SystemExit):
            stage.at(NIGHT)
    stage.at(NIGHT + SECOND, stage.other)
    run = stage.history(key)["11-20"]
    assert stage.state.jobs.status(run.jobs[0]) == "planning"
    stage.work(stage.job(run))
    stage.at(NIGHT + SECOND, stage.other)
    assert stage.outcomes(key) == {"11-20": "succeeded"}
    assert list(stage.catalog.ids()) == list(run.jobs)


def test_missed_nights_are_caught_up_one_after_the_other(stage: Stage) -> None:
    key = stage.add(catch_up="all", catch_up_limit=2)
    for day in ("19", "20", "21", "22"):
        stage.input(f"2026-11-{day}")
    morning = NIGHT + 2 * DAY + timedelta(hours=6)
    stage.at(morning)
    assert stage.outcomes(key) == {"11-20": "missed", "11-21": "running", "11-22": "waiting"}
    stage.work(stage.job(stage.history(key)["11-21"]))
    stage.at(morning + SECOND)
    assert stage.outcomes(key) == {"11-20": "missed", "11-21": "succeeded", "11-22": "running"}
    # A clock that goes back fires nothing again, nor does it when it comes to the same times once more.
    for back in (NOON, NIGHT, NIGHT + DAY, morning):
        stage.at(back, stage.supervisor("restarted"))
    assert len(list(stage.catalog.ids())) == 2


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("none", {"11-20": "missed", "11-21": "missed"}), ("latest", {"11-20": "missed", "11-21": "running"})],
)
def test_missed_nights_are_noted(stage: Stage, catch_up: str, expected: dict[str, str]) -> None:
    key = stage.add(catch_up=catch_up)
    stage.input("2026-11-20")
    stage.input("2026-11-21")
    stage.at(NIGHT + DAY + timedelta(hours=1))
    assert stage.outcomes(key) == expected


@pytest.mark.parametrize(
    ("overlap", "first", "second"),
    [("skip", "running", "skipped"), ("queue", "running", "waiting"), ("cancel_older", "running", "running")],
)
def test_a_run_that_is_due_while_another_goes_on(stage: Stage, overlap: str, first: str, second: str) -> None:
    key = stage.add(overlap=overlap, catch_up="none")
    stage.input("2026-11-20")
    stage.input("2026-11-21")
    stage.at(NIGHT)
    job = stage.job(stage.history(key)["11-20"])
    stage.at(NIGHT + DAY)
    assert stage.outcomes(key) == {"11-20": first, "11-21": second}
    cancels = overlap == "cancel_older"
    assert stage.state.jobs.status(job.id) == ("cancelling" if cancels else "planning")
    stage.finish(job) if cancels else stage.work(job)
    late = NIGHT + DAY + timedelta(hours=3)
    stage.at(late)
    assert stage.outcomes(key)["11-20"] == ("cancelled" if cancels else "succeeded")
    assert stage.outcomes(key)["11-21"] == ("skipped" if overlap == "skip" else "running")


def test_a_supervisor_sees_what_another_has_started(stage: Stage) -> None:
    key = stage.add(overlap="skip")
    stage.input("2026-11-20")
    stage.input("2026-11-21")
    stage.at(NOON)
    stage.at(NIGHT, stage.other)
    stage.at(NIGHT + DAY)
    assert stage.outcomes(key) == {"11-20": "running", "11-21": "skipped"}


def test_nights_that_take_only_what_is_new(stage: Stage) -> None:
    """The series lies beside the outputs of all nights; a pointer names the newest of them."""
    latest = stage.folder / "latest.json"
    spec = {
        "input": {"uri": f"{stage.folder}/in/", "columns": {"text": "review"}},
        "output": {"uri": f"{stage.folder}/out/{{name}}/{{date}}/", "latest": f"{stage.folder}/{{name}}.json"},
        "incremental": True,
    }
    key = stage.add("latest", spec=spec)
    taken = []
    for night in range(2):
        stage.input(f"2026-11-2{night}")
        stage.at(NIGHT + night * DAY)
        run = max(stage.history(key).values(), key=lambda run: run.due)
        job = stage.job(run)
        manifest = stage.work(job)
        is_newest = json.loads(latest.read_text())["job"] == job.id
        taken.append((manifest.rows, manifest.series and manifest.series.run, is_newest))
    assert job.spec.incremental is not None
    assert job.spec.incremental.series == f"{stage.folder}/out/_series-latest/"
    assert taken == [(4, 1, True), (4, 2, True)]


def test_a_night_without_files_succeeds_and_a_missing_prefix_is_by_policy(stage: Stage) -> None:
    strict, lenient = stage.add("strict"), stage.add("lenient", spec={"missing_input": "empty"})
    marker = stage.folder / "in" / "2026-11-20" / "_SUCCESS"
    marker.parent.mkdir(parents=True)
    marker.touch()
    stage.at(NIGHT)
    stage.at(NIGHT + DAY)
    assert stage.outcomes(strict) == {"11-20": "empty", "11-21": "refused"}
    assert stage.outcomes(lenient) == {"11-20": "empty", "11-21": "empty"}
    assert "2026-11-20" in stage.history(strict)["11-20"].why
    assert "missing_input" in stage.history(strict)["11-21"].why
    assert list(stage.catalog.ids()) == []


def test_what_is_missing_of_a_list_is_left_out_and_said(stage: Stage) -> None:
    uris = [f"{stage.folder}/in/{{date}}/", f"{stage.folder}/in/{{date-1d}}/"]
    source = {"uri": uris, "columns": {"text": "review"}}
    key = stage.add(spec={"input": source, "missing_input": "empty"})
    stage.input("2026-11-20")
    stage.at(NIGHT)
    run = stage.history(key)["11-20"]
    assert run.record is not None
    assert run.record.left_out == (f"{stage.folder}/in/2026-11-19/",)
    assert stage.job(run).spec.input.uris == [f"{stage.folder}/in/2026-11-20/"]


def _fail(stage: Stage, job: Any) -> None:
    """End a job as failed: its input goes between its plan and its only shard."""
    for file in (stage.folder / "in").rglob("*.parquet"):
        file.rename(file.with_suffix(".away"))
    stage.work(job)
    for file in (stage.folder / "in").rglob("*.away"):
        file.rename(file.with_suffix(".parquet"))


def test_a_failed_run_is_retried_as_often_as_the_schedule_says_and_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTSHIFT_NOTIFY_SECRET", "s3cret")
    again = Stage(type(stage.settings).read(), stage.model, stage.folder)
    key = again.add(retry_failed=1, notify="https://example.com/hook")
    again.input("2026-11-20")
    again.at(NIGHT)
    first = again.job(again.history(key)["11-20"])
    _fail(again, first)
    again.at(NIGHT + SECOND)
    again.at(NIGHT + SECOND, again.other)  # finds the same retry
    assert again.outcomes(key) == {"11-20": "running"}
    [second] = [id for id in again.catalog.ids() if id != first.id]
    retry = again.catalog.job(second)
    assert retry is not None
    assert retry.parent is not None
    assert (retry.parent.job, retry.run) == (first.id, first.run)
    _fail(again, retry)
    again.at(NIGHT + 2 * SECOND, again.other)
    run = again.history(key)["11-20"]
    assert (run.status, run.jobs) == ("failed", (first.id, second))
    assert again.state.webhooks.take_due(1) == [(notice_id(key, run.run), again.store.record_uri(key, run.run))]
    # Redis is lost before the webhook is sent: it is due again.
    again.state._redis.flushall()
    again.at(NIGHT + 3 * SECOND, again.other)
    assert again.state.webhooks.waiting() == 1
    again.catalog.mark_ended(notice_id(key, run.run))
    again.state._redis.flushall()
    again.at(NIGHT + 3 * SECOND, again.other)
    assert again.state.webhooks.waiting() == 0


def test_a_refused_run_is_told_by_a_signed_webhook(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NOTIFY_SECRET", SECRET), ("NOTIFY_NETWORKS", '["127.0.0.0/8"]')):
        monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    again = Stage(type(stage.settings).read(), stage.model, stage.folder)
    rights = Rights(inputs=("*",), outputs=("*",), **RIGHTS)
    with Receiver(503, 204) as receiver:
        key = again.add(notify=receiver.url, tenant="search", rights=rights)
        again.at(NIGHT)  # nothing is there
        [(id, uri)] = again.state.webhooks.take_due(60)
        for _ in range(2):
            again.control.notify_job(id, uri)
            wait_for("the webhook was tried", lambda: receiver.taken)
            again.state.webhooks.again(id, 0)

        def settled() -> bool:
            again.control.notify_job(id, uri)
            return again.catalog.is_marked(id)

        wait_for("it is settled", settled)
    said = checked(receiver.taken[-1])
    [run] = again.history(key).values()
    assert {"event": "run.ended", "schedule": "nightly", "status": "refused", "job": None}.items() <= said.items()
    assert (said["run"], said["error"]["message"]) == (run.run, run.why)
    assert {headers["webhook-id"] for _, headers, _ in receiver.taken} == {id}


def test_a_night_with_everything_in_s3(
    settings: Settings, classifier: Path, tmp_path: Path, s3: str, s3_endpoint: str
) -> None:
    stage = Stage(settings.model_copy(update={"catalog": f"{s3}/catalog/"}), classifier, tmp_path)
    uris = {
        "input": {"uri": f"{s3}/in/{{date}}/", "columns": {"text": "review"}},
        "output": {"uri": f"{s3}/out/{{name}}/{{date}}/"},
    }
    key = stage.add(spec=uris)
    stage.input("2026-11-20")
    client, bucket = s3_client(s3_endpoint), s3.removeprefix("s3://")
    client.upload_file(str(tmp_path / "in/2026-11-20/a.parquet"), bucket, "in/2026-11-20/a.parquet")
    client.put_object(Bucket=bucket, Key="in/2026-11-21/_SUCCESS", Body=b"")
    stage.at(NIGHT)
    stage.at(NIGHT, stage.other)
    stage.work(stage.job(stage.history(key)["11-20"]))
    stage.at(NIGHT + DAY, stage.other)
    stage.at(NIGHT + 2 * DAY, stage.supervisor("third"))
    assert stage.outcomes(key) == {"11-20": "succeeded", "11-21": "empty", "11-22": "refused"}
    assert len(list(stage.catalog.ids())) == 1


RIGHTS: dict[str, Any] = {"token": "t1", "allow_files": True, "max_running_jobs": 1}


def test_a_run_reaches_what_the_token_allowed_and_no_more(stage: Stage) -> None:
    inputs, outputs = (f"{stage.folder}/in/",), (f"{stage.folder}/out/",)
    rights = Rights(inputs=(*inputs, f"{stage.model}/"), outputs=outputs, **RIGHTS)
    away = {"output": {"uri": f"{stage.folder}/other/{{date}}/"}}
    with pytest.raises(SpecError, match=r"^spec\.output\.uri: .*outside"):
        stage.add(rights=rights, tenant="search", spec=away)
    # It leaves them only in the next year, which no sample shows.
    year = Rights(inputs=(*inputs, f"{stage.model}/"), outputs=(f"{stage.folder}/out/2026",), **RIGHTS)
    spec = {"output": {"uri": f"{stage.folder}/out/{{date:%Y}}/{{date}}/"}}
    key = stage.add(rights=year, tenant="search", spec=spec)
    stage.input("2026-11-20")
    stage.input("2027-01-01")
    stage.at(NIGHT)
    job = stage.job(stage.history(key)["11-20"])
    assert (job.tenant, job.accepted_by, job.allowed_inputs) == ("search", "token t1", year.inputs)
    stage.work(job)
    stage.at(NIGHT + 42 * DAY)
    run = stage.history(key)["01-01"]
    assert run.status == "refused"
    assert "outside" in run.why


def test_a_run_waits_for_the_quota_of_its_tenant(stage: Stage) -> None:
    rights = Rights(inputs=("*",), outputs=("*",), **RIGHTS)
    one, two = (stage.add(name, rights=rights, tenant="search") for name in ("one", "two"))
    stage.input("2026-11-20")
    stage.at(NIGHT)
    assert {**stage.outcomes(one)} == {"11-20": "running"}
    assert {**stage.outcomes(two)} == {"11-20": "waiting"}
    with pytest.raises(TooManyRequests):
        manage.run_now(stage.version(two), None, None, manage.Maker("token t1", "search", rights), stage.runs())
    stage.work(stage.job(stage.history(one)["11-20"]))
    stage.at(NIGHT + timedelta(minutes=2))
    assert {**stage.outcomes(two)} == {"11-20": "running"}


def test_a_schedule_is_refused_with_what_is_wrong_with_it(stage: Stage) -> None:
    table: list[tuple[dict[str, Any], str]] = [
        ({"cron": "61 2 * * *"}, "cron: "),
        ({"time_zone": "Europe/Berln"}, "time_zone: .*Europe/Berlin"),
        ({"spec": {"output": {"uri": f"{stage.folder}/out/{{dat}}/"}}}, r"spec\.output\.uri: .*\{dat\}"),
        ({"spec": {"output": {"uri": f"{stage.folder}/out/"}}}, r"spec\.output\.uri: .*more than one run"),
        ({"cron": "0 * * * *"}, r"spec\.output\.uri: .*more than one run"),
        ({"spec": {"labels": {"due": "x"}}}, r"spec\.labels\.due: "),
        ({"spec": {"labels": {"team": "{tame}"}}}, r"spec\.labels\.team: .*\{tame\}"),
        ({"spec": {"task": "text-classifcation"}}, r"spec\.task: .*text-classification"),
        ({"spec": {"model": f"{stage.folder}/none"}}, r"spec\.model: "),
        ({"spec": {"input": "s3://raw/"}}, r"spec\.input: .*write \{uri"),
        ({"spec": {"output": {"uri": "out/{date}/"}}}, r"spec\.output\.uri: .*relative"),
        ({"jitter_s": 86400}, "jitter_s: "),
        ({"notify": "https://example.com/"}, "notify: .*NIGHTSHIFT_NOTIFY_SECRET"),
    ]
    for changes, said in table:
        with pytest.raises(SpecError, match=said):
            stage.add(**changes)
    assert list(stage.store.newest()) == []


def test_a_schedule_changes_by_versions(stage: Stage) -> None:
    key = stage.add()
    maker = manage.Maker("tester")
    assert stage.put(stage.schedule(), maker).number == 1, "the same is no change"
    with pytest.raises(ScheduleConflict):
        stage.put(stage.schedule(overlap="queue"), maker)
    stage.clock.now = NOON + SECOND
    changed = stage.put(stage.schedule(overlap="queue"), maker, replace=True)
    assert (changed.number, changed.counts_from) == (2, NOON), "a night that was missed is still caught up"
    stage.stand(key, Standing.PAUSED)
    stage.input("2026-11-20")
    stage.at(NIGHT)
    assert stage.outcomes(key) == {}, "nothing is due while it is paused"
    stage.clock.now = NIGHT + timedelta(hours=1)
    stage.stand(key, Standing.ACTIVE)
    stage.at(NIGHT + timedelta(hours=2))
    assert stage.outcomes(key) == {}, "nor missed"
    stage.stand(key, Standing.REMOVED)
    stage.at(NIGHT + 2 * DAY)
    assert stage.outcomes(key) == {}
    assert list(manage.all_of(stage.store, "")) == []
    assert stage.store.version(key, 1).schedule.overlap == "skip", "the first version is as it was"


def test_a_run_by_hand_has_the_time_that_it_is_given(stage: Stage) -> None:
    key = stage.add()
    stage.input("2026-11-18")
    maker = manage.Maker("tester")
    due = manage.time_of("2026-11-18T02:30", stage.version(key))
    record, job = manage.run_now(stage.version(key), due, "request", maker, stage.runs())
    again, same = manage.run_now(stage.version(key), due, "request", maker, stage.runs())
    assert job is not None
    assert same is not None
    assert (again.model_dump(), same.id) == (record.model_dump(), job.id)
    assert job.output.endswith("/2026-11-18/")
    with pytest.raises(SpecError, match=job.id):
        manage.run_now(stage.version(key), due, "another", maker, stage.runs())
    stage.work(job)
    stage.at(NOON + SECOND)
    [run] = stage.history(key).values()
    assert (run.status, run.record and run.record.by_hand) == ("succeeded", True)
    # What is run already by hand isn't run again when it is due.
    stage.input("2026-11-20")
    manage.run_now(stage.version(key), NIGHT, None, maker, stage.runs())
    stage.at(NIGHT)
    assert len(list(stage.catalog.ids())) == 2


def test_nothing_is_decided_while_redis_is_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    key = stage.add()
    stage.input("2026-11-20")

    def away(*_: object) -> None:
        raise ServiceUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(stage.state.locks), "take", away)
        with pytest.raises(ServiceUnavailable):
            stage.at(NIGHT)
    assert stage.outcomes(key) == {"11-20": "waiting"}
    stage.at(NIGHT + SECOND)
    assert stage.outcomes(key) == {"11-20": "running"}


def test_a_schedule_of_another_version_is_read_and_a_damaged_one_stops_no_other(stage: Stage, tmp_path: Path) -> None:
    key, broken = stage.add("nightly"), stage.add("broken")
    stage.input("2026-11-20")
    catalog = Path(stage.settings.catalog_uri)
    file = catalog / "schedules" / "@" / key.name / "v000001.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"a_later_field": 1}))
    (catalog / "schedules" / "@" / broken.name / "v000001.json").write_text("{")
    stage.state.schedules.note()
    stage.at(NIGHT)
    assert stage.outcomes(key) == {"11-20": "running"}

"""Attempts and the ends of jobs, in this process, on real Redis, real storage and a real tiny model."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.broker import CONTROL_QUEUE
from jobs.settings import Settings
from jobs.state import rate_of
from jobs.submission.accept import enqueue
from schemas.errors import RecordError, Transient
from schemas.job import AcceptedJob
from schemas.layout import part_name
from schemas.manifest import ErrorInfo, JobStatus
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.texts import sentences
from workers.execution.lease import Lease
from workers.models.device import DEVICE_LOST
from workers.tasks.text_classification import TextClassification


def submit(house: House, classifier: Path, texts: Path, **changes: Any) -> tuple[AcceptedJob, int]:
    job = house.submit(
        spec_for(classifier, str(texts), f"{texts.parent.parent}/out", **({"shard": {"rows": 30}} | changes))
    )
    return job, house.plan(job)


def test_a_job_from_spec_to_manifest(house: House, classifier: Path, texts: Path) -> None:
    manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent.parent}/out", shard={"rows": 30}))
    assert (manifest.status, manifest.rows, manifest.shards, manifest.error_rows) == (JobStatus.SUCCEEDED, 100, 4, 0)
    assert [(p.name, p.rows) for p in manifest.parts] == [(part_name(i, 4), n) for i, n in enumerate([30, 30, 30, 10])]
    rows = read_output(f"{texts.parent.parent}/out")
    assert [row["id"] for row in rows] == list(range(100))
    assert [row["source_row"] for row in rows] == list(range(100))
    assert {row["source_uri"] for row in rows} == {str(texts)}
    assert all(row["error"] is None and row["prediction"]["label"] for row in rows)
    assert set(rows[0]) == {"id", "review", "prediction", "error", "source_uri", "source_row"}
    assert manifest.versions["torch"] == [torch.__version__]


def test_the_model_is_loaded_once(house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    load = TextClassification.load

    def counted(*args: Any) -> Any:
        loads.append(args)
        return load(*args)

    monkeypatch.setattr(TextClassification, "load", counted)
    house.run(spec_for(classifier, str(texts), f"{texts.parent.parent}/out", shard={"rows": 10}))
    assert len(loads) == 1


def test_a_shard_that_is_committed_is_not_handed_out_again(house: House, classifier: Path, texts: Path) -> None:
    job, shards = submit(house, classifier, texts)
    for shard in range(shards):
        assert house.attempt(job, shard, f"a{shard}").how == "committed"
    assert house.nothing_waits(job)


def test_two_attempts_at_the_same_moment(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt commits while this one computes: its part stands, this one's report is dropped."""
    job, _ = submit(house, classifier, texts)
    check = Lease.check_for_commit

    def overtaken(lease: Lease) -> None:
        check(lease)
        house.state.shards.requeue(lease._order, "slow")
        monkeypatch.setattr(Lease, "check_for_commit", check)
        assert house.attempt(job, 0, "fast").how == "committed"

    monkeypatch.setattr(Lease, "check_for_commit", overtaken)
    outcome = house.attempt(job, 0, "slow")
    assert outcome.how == "found"
    assert outcome.report is not None
    assert outcome.report.attempt == "fast"
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert (progress.shards_done, progress.rows_done) == (1, 30)


def test_nothing_is_committed_under_a_lost_lease(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, shards = submit(house, classifier, texts)
    check = Lease.check_for_commit

    def lost(lease: Lease) -> None:
        house.state.shards.requeue(lease._order, "slow")
        check(lease)

    monkeypatch.setattr(Lease, "check_for_commit", lost)
    assert house.attempt(job, 0, "slow").how == "put_back"
    assert not Path(job.output, part_name(0, shards)).exists()


def test_a_cancelled_job_leaves_its_shard_and_keeps_its_parts(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = submit(house, classifier, texts)
    house.attempt(job, 0)
    check = Lease.check_for_commit
    monkeypatch.setattr(Lease, "check_for_commit", lambda lease: house.state.jobs.cancel(job.id) and check(lease))
    outcome = house.attempt(job, 1)
    assert (outcome.how, outcome.why) == ("put_back", "JobEnded: the job is cancelling")
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows, len(manifest.parts)) == (JobStatus.CANCELLED, 30, 1)


def test_a_stopping_worker_puts_its_shard_back(
    settings: Settings, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    stop = tmp_path / "stop"
    house = House(settings.model_copy(update={"stop_file": stop, "batch_tokens": 1}))
    job, _ = submit(house, classifier, texts)
    stop.touch()
    outcome = house.attempt(job, 0)
    assert outcome.how == "put_back"
    stop.unlink()
    assert house.attempt(job, 0).how == "committed"


def test_a_fault_that_should_pass_is_tried_again(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = submit(house, classifier, texts)

    def away(*args: object) -> None:
        raise Transient("S3 is slow today")

    with monkeypatch.context() as broken:
        broken.setattr(house.process.storage, "create", away)
        assert house.attempt(job, 0).how == "put_back"
    house.end_delays()
    assert house.attempt(job, 0).how == "committed"


def test_rows_that_can_not_be_read_are_error_rows(house: House, classifier: Path, tmp_path: Path) -> None:
    """A shard has its planned rows, even if not one of them can be read."""
    good, bad = tmp_path / "in" / "a.parquet", tmp_path / "in" / "b.parquet"
    write_reviews(good, sentences(30))
    write_reviews(bad, sentences(30, seed=1))
    column = pq.ParquetFile(bad).metadata.row_group(0).column(1)
    data = bytearray(bad.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + 100] = b"\xff" * 100
    bad.write_bytes(data)
    manifest = house.run(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out", shard={"rows": 20}))
    assert (manifest.status, manifest.rows, manifest.errors) == (JobStatus.SUCCEEDED, 60, {"unreadable": 30})
    rows = read_output(f"{tmp_path}/out")
    assert [row["id"] for row in rows] == [*range(30), *range(30)]
    assert all(row["prediction"] and row["review"] for row in rows[:30])
    assert all(row["prediction"] is row["review"] is None for row in rows[30:])
    message = rows[30]["error"]["message"]
    assert message.startswith(f"{bad}: rows 0 to 9 of row group 0 can't be read: 'review': ")


def test_a_file_that_is_no_parquet_fails_alone(house: House, classifier: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in" / "a.parquet", sentences(30))
    (tmp_path / "in" / "b.parquet").write_text("this is no Parquet")
    write_reviews(tmp_path / "in" / "c.parquet", sentences(10))
    manifest = house.run(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out"))
    assert (manifest.status, manifest.rows, len(manifest.parts)) == (JobStatus.FAILED, 40, 2)
    assert "b.parquet" in manifest.lost[0].error.message


def test_files_of_another_schema_fail_the_job(house: House, classifier: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in" / "a.parquet", sentences(30))
    pq.write_table(pa.table({"id": ["x"], "review": ["y"]}), tmp_path / "in" / "b.parquet")
    job = house.submit(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out"))
    house.plan(job)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert "column 'id' of" in manifest.error.message
    assert "b.parquet is string" in manifest.error.message


def test_an_input_that_changed_is_reported_and_never_mixed(house: House, classifier: Path, texts: Path) -> None:
    job, shards = submit(house, classifier, texts)
    house.attempt(job, 0)
    write_reviews(texts, sentences(101, seed=5))
    for shard in range(1, shards):
        assert house.attempt(job, shard).how == "failed"
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows) == (JobStatus.FAILED, 30)
    assert {lost.error.code for lost in manifest.lost} == {"input_changed"}


def test_records_that_cannot_be_done_are_error_rows(house: House, classifier: Path, tmp_path: Path) -> None:
    texts: list[Any] = ["good film", None, "", "long " * 500, "good film"]
    file = write_reviews(tmp_path / "in.parquet", texts)
    manifest = house.run(spec_for(classifier, str(file), f"{tmp_path}/out"))
    assert manifest.errors == {"null_input": 1}
    first, null, empty, long, again = read_output(f"{tmp_path}/out")
    assert null["prediction"] is None
    assert null["error"] == {"code": "null_input", "message": "text is null"}
    assert first["prediction"] == again["prediction"]
    assert (first["prediction"]["truncated"], long["prediction"]["truncated"]) == (False, True)
    assert empty["prediction"]["label"]


def test_a_record_that_breaks_the_model_is_an_error_row_alone(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = TextClassification.infer

    def fussy(self: TextClassification, pieces: Any) -> torch.Tensor:
        if any(len(piece.inputs["input_ids"]) % 5 == 0 for piece in pieces):
            raise RuntimeError("a multiple of five")
        return infer(self, pieces)

    plain = house.run(spec_for(classifier, str(texts), f"{texts.parent}/plain"))
    monkeypatch.setattr(TextClassification, "infer", fussy)
    manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent}/fussy"))
    assert plain.error_rows == 0
    assert set(manifest.errors) == {"inference_failed"}
    for one, other in zip(read_output(f"{texts.parent}/plain"), read_output(f"{texts.parent}/fussy"), strict=True):
        if other["error"] is None:
            assert one["prediction"]["label"] == other["prediction"]["label"]
        else:
            assert other["error"] == {"code": "inference_failed", "message": "RuntimeError: a multiple of five"}


def test_a_record_that_cannot_be_prepared_is_an_error_row_alone(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = TextClassification.prepare

    def fussy(self: TextClassification, records: Any) -> Any:
        if any(record["text"].endswith(" 42") for record in records):
            raise RecordError("odd_text", "it ends in 42")
        return prepare(self, records)

    monkeypatch.setattr(TextClassification, "prepare", fussy)
    manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent}/out"))
    assert manifest.errors == {"odd_text": 1}
    assert [row["id"] for row in read_output(f"{texts.parent}/out") if row["error"]] == [42]


def test_a_model_that_fails_on_everything_fails_the_job(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: TextClassification, pieces: Any) -> torch.Tensor:
        raise RuntimeError("no kernel for this device")

    monkeypatch.setattr(TextClassification, "infer", broken)
    manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent}/out"))
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert manifest.error.message.startswith(
        "no record of shard 0 could be done; the first error: RuntimeError: no ker"
    )
    assert manifest.parts == []


def test_out_of_memory_halves_the_batch_and_loses_nothing(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = TextClassification.infer
    sizes: list[int] = []

    def small(self: TextClassification, pieces: Any) -> torch.Tensor:
        sizes.append(len(pieces))
        if len(pieces) > 6:
            raise torch.OutOfMemoryError("no room")
        return infer(self, pieces)

    monkeypatch.setattr(TextClassification, "infer", small)
    manifest = house.run(spec_for(classifier, str(texts), f"{texts.parent}/out"))
    assert (manifest.status, manifest.rows, manifest.error_rows) == (JobStatus.SUCCEEDED, 100, 0)
    assert [row["id"] for row in read_output(f"{texts.parent}/out")] == list(range(100))
    assert sum(size > 6 for size in sizes) < 8, "what did not fit is remembered"


def test_max_errors_fails_the_job_early(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", [None] * 50 + sentences(50))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", max_errors=0.1, shard={"rows": 20}))
    shards = house.plan(job)
    assert shards == 5
    assert house.attempt(job, 0).how == "committed"
    assert house.nothing_waits(job)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert manifest.error.code == "too_many_errors"
    assert manifest.rows == 20


def test_an_input_without_rows_succeeds_with_nothing(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", [])
    manifest = house.run(spec_for(classifier, str(file), f"{tmp_path}/out"))
    assert (manifest.status, manifest.shards, manifest.rows) == (JobStatus.SUCCEEDED, 0, 0)


def test_two_finishers_write_one_manifest(house: House, classifier: Path, texts: Path) -> None:
    job, shards = submit(house, classifier, texts)
    for shard in range(shards):
        house.attempt(job, shard, f"a{shard}")
    first = house.finish(job)
    assert house.finish(job) == first


def test_a_finish_too_early_writes_nothing(house: House, classifier: Path, texts: Path) -> None:
    job, _ = submit(house, classifier, texts)
    house.attempt(job, 0)
    house.control.finish_job(job.id, job.output)
    assert not Path(job.output, "_manifest.json").exists()


def test_state_is_rebuilt_from_storage(house: House, classifier: Path, texts: Path) -> None:
    """Redis emptied in the middle: only the missing shards run."""
    job, _ = submit(house, classifier, texts)
    house.attempt(job, 0)
    house.attempt(job, 2)
    before = {p.name: p.stat().st_mtime_ns for p in Path(job.output).glob("data/part-*")}
    house.state._redis.flushall()
    assert house.nothing_waits(job)
    enqueue(job, house.state, house.broker)
    house.plan(job)
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert (progress.shards_done, progress.rows_done) == (2, 60)
    assert [house.attempt(job, shard, f"b{shard}").how for shard in (1, 3)] == ["committed", "committed"]
    assert house.nothing_waits(job)
    manifest = house.finish(job)
    assert (manifest.status, manifest.rows) == (JobStatus.SUCCEEDED, 100)
    after = {p.name: p.stat().st_mtime_ns for p in Path(job.output).glob("data/part-*")}
    assert before.items() <= after.items()
    assert [row["id"] for row in read_output(job.output)] == list(range(100))


def test_a_foreign_part_fails_the_job_with_the_way_out(house: House, classifier: Path, texts: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    write_reviews(Path(job.output, "data", "part-00000.parquet"), ["not ours"])
    house.plan(job)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error is not None
    assert "part-00000.parquet is no part of this job; move it away" in manifest.error.message
    assert manifest.parts == []


def test_a_plan_that_cannot_be_made_fails_the_job(
    settings: Settings, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at once: it may be this host's fault."""
    house = House(settings.model_copy(update={"max_transient": 2}))

    def broken(*args: object) -> None:
        raise ZeroDivisionError("a defect")

    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    monkeypatch.setattr("jobs.control.controller.planned", broken)
    house.plan(job)
    assert house.state.jobs.status(job.id) is JobStatus.PLANNING
    house.state._redis.delete(f"nightshift:lock:plan_fault:{job.id}")
    house.plan(job)
    manifest = house.finish(job)
    assert manifest.status is JobStatus.FAILED
    assert manifest.error == ErrorInfo(code="internal", message="ZeroDivisionError: a defect (tried 2 times)")


def test_a_store_away_while_planning_is_tried_again(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise Transient("S3 is slow today")

    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    with monkeypatch.context() as broken:
        broken.setattr("jobs.control.controller.planned", away)
        house.plan(job)
    assert house.state.jobs.status(job.id) is JobStatus.PLANNING
    assert house.plan(job) == 1


def test_a_file_with_text_stored_otherwise_fits(house: House, classifier: Path, tmp_path: Path) -> None:
    for index, arrow in enumerate([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]):
        column = pa.array(["good film", "bad film"]).cast(arrow)
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table({"review": column}), tmp_path / "in" / f"{index}.parquet")
    manifest = house.run(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out"))
    assert (manifest.status, manifest.rows) == (JobStatus.SUCCEEDED, 6)


def test_a_rate_counts_only_what_this_run_did(house: House, classifier: Path, texts: Path) -> None:
    job, _ = submit(house, classifier, texts)
    house.attempt(job, 0)
    house.state._redis.flushall()
    enqueue(job, house.state, house.broker)
    house.plan(job)
    house.attempt(job, 1)
    progress = house.state.jobs.progress(job.id)
    assert progress is not None
    assert (progress.rows_before, progress.rows_done) == (30, 60)
    rate = rate_of(progress)
    assert rate.rows_per_s is not None
    assert progress.started is not None
    assert rate.rows_per_s == pytest.approx(30 / (progress.now - progress.started))


def test_a_job_says_whom_it_waits_for(house: House, classifier: Path, texts: Path) -> None:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))

    def waits_for() -> str | None:
        progress = house.state.jobs.progress(job.id)
        assert progress is not None
        return progress.waits_for

    assert waits_for() == "control"
    house.state.workers.report("planner", ["control"], 0)
    assert waits_for() is None
    house.plan(job)
    assert waits_for() == "text"
    house.state.workers.report("gpu", ["text"], 1)
    assert waits_for() is None


@pytest.mark.skipif(not DEVICE_LOST, reason="this torch has no class for a lost device")
def test_a_lost_device_ends_the_process_and_spoils_no_record(
    house: House, classifier: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed assertion on a GPU every call fails: taken for the records' own fault, it would cost them all."""

    class Left(BaseException):
        pass

    def leave() -> None:
        raise Left

    def broken(self: TextClassification, pieces: Any) -> torch.Tensor:
        raise torch.AcceleratorError("device-side assert triggered")

    job, _ = submit(house, classifier, texts)
    monkeypatch.setattr(house.process, "leave", leave)
    with monkeypatch.context() as patched:
        patched.setattr(TextClassification, "infer", broken)
        with pytest.raises(Left):
            house.attempt(job, 0)
    assert not list(Path(job.output).glob("data/part-*"))
    house.state._redis.zadd("nightshift:leases", {f"{job.id}/0": 0})
    assert house.state.shards.sweep(CONTROL_QUEUE).expired == 1, "its lease runs out"
    assert house.attempt(job, 0).how == "committed"

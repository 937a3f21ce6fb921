"""Retries of what a job could not do: planned from its parts, run as jobs of their own, read with it as one."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.results import shown
from jobs.results.convert import to_rows
from jobs.results.read import Place, batches_from, page, result_batches
from jobs.results.with_retries import batches_with_retries
from jobs.settings import Settings
from jobs.submission.accept import Found, enqueue
from jobs.submission.retry import accept_retry, nothing_to_retry
from jobs.supervisor.recovery import Standing, rebuild
from schemas.errors import NotFinished, RecordError, SpecError
from schemas.job import AcceptedJob, OutputSpec, Parent, parse_spec
from schemas.layout import Layout
from schemas.manifest import ErrorInfo, JobStatus, Manifest
from schemas.output import OwnColumns
from tests import pictures
from tests.checkpoints_vision import make_image_classifier
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.texts import sentences
from workers.tasks.image_classification import ImageClassification
from workers.tasks.text_classification import TextClassification


@contextmanager
def failing(wrong: Callable[[int], bool]) -> Iterator[None]:
    """A handler that fails on the records whose text ends in a number that is wrong."""
    prepare = TextClassification.prepare

    def picky(self: Any, records: Any) -> Any:
        if len(records) == 1 and wrong(int(records[0]["text"].split()[-1])):
            raise RecordError("odd", "it is odd today")
        if len(records) > 1 and any(wrong(int(record["text"].split()[-1])) for record in records):
            raise ValueError("one of them")
        return prepare(self, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextClassification, "prepare", picky)
        yield


def finished(house: House, job: AcceptedJob, meanwhile: Callable[[], object] = lambda: None) -> Manifest:
    """Run the job to its end. `meanwhile` is called between its planning and its first shard."""
    shards = house.plan(job)
    meanwhile()
    for shard in range(shards):
        house.attempt(job, shard, f"{job.id}-{shard}")
    return house.finish(job)


def retried(house: House, parent: AcceptedJob, output: str | None = None) -> tuple[AcceptedJob, Manifest]:
    accepted = accept_retry(parent, output, house.submitter, house.settings)
    enqueue(accepted.job, house.state, house.broker)
    return accepted.job, finished(house, accepted.job)


def merged(house: House, job: AcceptedJob, **options: Any) -> list[dict[str, Any]]:
    batches = batches_with_retries(job, house.catalog, **options)
    return [row for batch in batches for row in to_rows(batch)]


def plain(house: House, job: AcceptedJob) -> list[dict[str, Any]]:
    return [row for batch in result_batches(job, house.storage) for row in to_rows(batch)]


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its last digits, which are the batch's that it was computed in."""
    answer = row["prediction"]
    return row | {"prediction": answer and (answer["label"], round(answer["score"], 4))}


def test_only_the_error_rows_run_again(house: House, classifier: Path, tmp_path: Path) -> None:
    texts: list[Any] = sentences(100)
    texts[7] = None
    file = write_reviews(tmp_path / "in.parquet", texts, row_group=20)
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 30}, max_errors=0.5))
    with failing(lambda n: n in (3, 4, 5, 50, 99)):
        manifest = finished(house, job)
    assert manifest.errors == {"odd": 5, "null_input": 1}
    before = {path.name: path.stat().st_mtime_ns for path in Path(job.output).rglob("*")}
    retry, again = retried(house, job)
    assert retry.output == f"{tmp_path}/out-retry-1/"
    assert (retry.spec.max_errors, retry.model) == (None, job.model)
    assert (again.status, again.rows, again.errors) == (JobStatus.SUCCEEDED, 6, {"null_input": 1})
    assert again.parent == Parent(job=job.id, output=job.output)
    assert [(row["id"], row["source_row"]) for row in plain(house, retry)] == [(n, n) for n in (3, 4, 5, 7, 50, 99)]
    assert {path.name: path.stat().st_mtime_ns for path in Path(job.output).rglob("*")} == before

    reference = house.run(spec_for(classifier, str(file), f"{tmp_path}/reference"))
    assert reference.error_rows == 1
    rows = merged(house, job)
    assert [rounded(row) for row in rows] == [rounded(row) for row in read_output(f"{tmp_path}/reference")]
    assert [row["id"] for row in merged(house, job, errors_only=True)] == [7]


def test_the_same_in_s3(settings: Settings, s3: str, classifier: Path, tmp_path: Path) -> None:
    """Catalog and outputs in a bucket; Redis lost before the retry has begun."""
    house = House(settings.model_copy(update={"catalog": f"{s3}/catalog"}))
    file = write_reviews(tmp_path / "in.parquet", sentences(30))
    job = house.submit(spec_for(classifier, str(file), f"{s3}/out", shard={"rows": 8}))
    with failing(lambda n: n % 7 == 0):
        assert finished(house, job).errors == {"odd": 5}
    retry = accept_retry(job, None, house.submitter, house.settings).job
    house.state._redis.flushall()
    found = list(rebuild(house.state, house.broker, house.catalog))
    assert [(seen.id, seen.standing) for seen in found] == [(retry.id, Standing.ENTERED)]
    assert (finished(house, retry).rows, retry.output) == (5, f"{s3}/out-retry-1/")
    rows = merged(house, job)
    assert [(row["id"], row["error"]) for row in rows] == [(n, None) for n in range(30)]
    assert list(rebuild(house.state, house.broker, house.catalog)) == []


@pytest.mark.parametrize("flat_first", [True, False])
def test_a_job_and_its_retry_in_two_layouts(
    settings: Settings, classifier: Path, tmp_path: Path, flat_first: bool
) -> None:
    """As after an upgrade, and after the way back."""
    first, second = (House(settings.model_copy(update={"flat_output": flat})) for flat in (flat_first, not flat_first))
    file = write_reviews(tmp_path / "in.parquet", sentences(20))
    job = first.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 8}))
    with failing(lambda n: n % 7 == 0):
        finished(first, job)
    retry, manifest = retried(second, job)
    assert (job.layout, retry.layout) == ((Layout.FLAT, Layout.DATA) if flat_first else (Layout.DATA, Layout.FLAT))
    assert (manifest.rows, manifest.layout) == (3, retry.layout)
    for one in (job, retry):
        flat, deep = (list(Path(one.output).glob(glob)) for glob in ("part-*", "data/part-*"))
        assert bool(flat) == (one.layout is Layout.FLAT) != bool(deep)
    assert [(row["id"], row["error"]) for row in merged(second, job)] == [(n, None) for n in range(20)]


def test_a_job_whose_columns_have_a_prefix(house: House, classifier: Path, tmp_path: Path) -> None:
    """An input with columns of our names: its retry, both read as one, pages of errors, and what is printed."""
    table = pa.table({"error": range(20), "prediction": ["theirs"] * 20, "review": sentences(20)})
    pq.write_table(table, tmp_path / "in.parquet")
    spec = spec_for(classifier, f"{tmp_path}/in.parquet", f"{tmp_path}/out", shard={"rows": 8})
    job = house.submit(spec.model_copy(update={"output": OutputSpec(uri=f"{tmp_path}/out", prefix="ns_")}))
    with failing(lambda n: n % 7 == 0):
        assert finished(house, job).errors == {"odd": 3}
    only = list(batches_from(job, Place(), house.storage, partial=False, errors_only=True))
    found = page(only, 10, OwnColumns.of(job.spec))
    assert [(row["error"], row["ns_error"]["code"], row["ns_source_row"]) for row in found.rows] == [
        (n, "odd", n) for n in (0, 7, 14)
    ]
    assert shown(found.rows[1], OwnColumns.of(job.spec)).startswith("error=7  prediction=theirs  review=")
    assert "→ error odd: it is odd today" in shown(found.rows[1], OwnColumns.of(job.spec))
    errors = result_batches(job, house.storage, errors_only=True)
    assert [row["error"] for batch in errors for row in to_rows(batch)] == [0, 7, 14]
    retry, manifest = retried(house, job)
    assert (retry.spec.output.prefix, manifest.rows, manifest.error_rows) == ("ns_", 3, 0)
    rows = merged(house, job)
    theirs = [(row["error"], row["prediction"]) for row in rows]
    assert theirs == [(n, "theirs") for n in range(20)]
    assert all(row["ns_prediction"]["label"] and row["ns_error"] is None for row in rows)


def test_nothing_to_retry(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(10))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out"))
    with pytest.raises(NotFinished, match="has not ended"):
        accept_retry(job, None, house.submitter, house.settings)
    with pytest.raises(NotFinished):
        merged(house, job)
    manifest = finished(house, job)
    assert nothing_to_retry(manifest)
    assert merged(house, job) == plain(house, job)
    empty = write_reviews(tmp_path / "empty.parquet", [])
    assert nothing_to_retry(house.run(spec_for(classifier, str(empty), f"{tmp_path}/none")))


def corrupted(file: Path, row_group: int) -> bytes:
    """Spoil a row group's text in place; the file as it was."""
    whole = file.read_bytes()
    column = pq.ParquetFile(file).metadata.row_group(row_group).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(whole)
    data[start : start + 100] = b"\xff" * 100
    file.write_bytes(data)
    return whole


def test_a_shard_that_was_lost_is_retried_whole(house: House, classifier: Path, tmp_path: Path) -> None:
    """As long as the input is another than was planned, that is reported: old and new rows never mix."""
    table = pq.read_table(write_reviews(tmp_path / "all.parquet", sentences(90)))
    files = [tmp_path / "in" / f"{n}.parquet" for n in range(3)]
    files[0].parent.mkdir()
    for n, file in enumerate(files):
        pq.write_table(table.slice(30 * n, 30), file)
    times = files[1].stat().st_atime_ns, files[1].stat().st_mtime_ns
    job = house.submit(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out", shard={"rows": 30}))
    with failing(lambda n: n == 5):
        manifest = finished(house, job, files[1].touch)
    assert (manifest.status, manifest.rows, [lost.shard for lost in manifest.lost]) == (JobStatus.FAILED, 60, [1])

    retry, again = retried(house, job)
    assert (again.status, again.rows) == (JobStatus.FAILED, 1)
    assert {lost.error.code for lost in again.lost} == {"input_changed"}
    assert [row["id"] for row in merged(house, job)] == [*range(30), *range(60, 90)]

    os.utime(files[1], ns=times)  # the version that was planned
    nested, last = retried(house, retry)
    assert nested.output == f"{tmp_path}/out-retry-1-retry-1/"
    assert (last.status, last.rows) == (JobStatus.SUCCEEDED, 30)
    rows = merged(house, job)
    assert [row["id"] for row in rows] == list(range(90))
    assert all(row["error"] is None for row in rows)
    assert [row["id"] for row in merged(house, retry)] == [5, *range(30, 60)]


def test_rows_that_could_not_be_read_are_retried(house: House, classifier: Path, tmp_path: Path) -> None:
    """Once the file is there again as it was planned."""
    file = write_reviews(tmp_path / "in.parquet", sentences(90), row_group=30)
    whole = corrupted(file, 1)
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 20}))
    manifest = finished(house, job)
    assert (manifest.status, manifest.rows, manifest.errors) == (JobStatus.SUCCEEDED, 90, {"unreadable": 30})
    rows = merged(house, job)
    assert [row["id"] for row in rows] == list(range(90))
    assert [row["id"] for row in rows if row["error"]] == list(range(30, 60))

    file.write_bytes(whole)
    os.utime(file, ns=times)
    _, again = retried(house, job)
    assert (again.status, again.rows, again.error_rows) == (JobStatus.SUCCEEDED, 30, 0)
    assert all(row["error"] is None and row["review"] for row in merged(house, job))


def test_what_a_cancelled_job_never_came_to_runs(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(100), row_group=20)
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 30}))
    house.plan(job)
    with failing(lambda n: n == 40):
        house.attempt(job, 1)
    house.state.jobs.cancel(job.id)
    assert house.finish(job).status is JobStatus.CANCELLED
    _, again = retried(house, job, f"{tmp_path}/rest")
    assert (again.status, again.rows) == (JobStatus.SUCCEEDED, 71)
    assert [row["id"] for row in merged(house, job)] == list(range(100))


def test_a_job_that_ended_before_its_plan_is_planned_anew(house: House, classifier: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in" / "a.parquet", sentences(30))
    odd = tmp_path / "in" / "b.parquet"
    pq.write_table(pa.table({"id": ["x"], "review": ["y"]}), odd)
    job = house.submit(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out"))
    house.plan(job)
    assert house.finish(job).status is JobStatus.FAILED
    assert merged(house, job) == []
    odd.unlink()
    retry, again = retried(house, job)
    assert (again.status, again.rows) == (JobStatus.SUCCEEDED, 30)
    assert merged(house, job) == plain(house, retry)


def test_a_file_that_could_not_be_planned_is_reported_again(house: House, classifier: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "in" / "a.parquet", sentences(30))
    (tmp_path / "in" / "b.parquet").write_text("this is no Parquet")
    job = house.submit(spec_for(classifier, f"{tmp_path}/in/", f"{tmp_path}/out"))
    assert finished(house, job).status is JobStatus.FAILED
    _, again = retried(house, job)
    assert (again.status, again.rows) == (JobStatus.FAILED, 0)
    assert "b.parquet" in again.lost[0].error.message
    assert [row["id"] for row in merged(house, job)] == list(range(30))


def test_a_retry_that_was_begun_is_gone_on_with(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(10))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out"))
    with failing(lambda n: n == 5):
        finished(house, job)
    first = accept_retry(job, None, house.submitter, house.settings)
    same = accept_retry(job, None, house.submitter, house.settings)
    assert (same.job, same.found) == (first.job, Found.UNFINISHED)
    assert accept_retry(job, first.job.output, house.submitter, house.settings).job == first.job
    assert [row["id"] for row in merged(house, job) if row["error"]] == [5], "a retry that has not ended is left out"
    enqueue(first.job, house.state, house.broker)
    with failing(lambda n: n == 5):
        finished(house, first.job)
    assert accept_retry(job, first.job.output, house.submitter, house.settings).found is Found.ENDED
    second, _ = retried(house, job)
    assert second.output == f"{tmp_path}/out-retry-2/"
    assert [row["error"] for row in merged(house, job)] == [None] * 10


def test_a_retry_has_a_location_of_its_own(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in" / "a.parquet", [None])
    spec = spec_for(classifier, str(file), f"{tmp_path}/out")
    job = house.submit(spec)
    finished(house, job)
    other = house.run(spec_for(classifier, str(file), f"{tmp_path}/other"))
    for output in (job.output, f"{tmp_path}/other", str(tmp_path / "in")):
        with pytest.raises(SpecError):
            accept_retry(job, output, house.submitter, house.settings)
    retry, _ = retried(house, job)
    with pytest.raises(SpecError, match=f"which retries job {job.id}"):
        house.submit(spec.model_copy(update={"output": retry.spec.output}))
    assert other.job != retry.id


def test_any_tree_of_retries_reads_as_one(house: House, classifier: Path, tmp_path: Path) -> None:
    """Random errors and lost shards in each generation, against what each row's newest answer must be."""
    chance = random.Random(11)
    count = 2600
    file = write_reviews(tmp_path / "in.parquet", sentences(count, longest=4), row_group=700)
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out", shard={"rows": 400}))
    #: id -> of which job its row is, and whether it has an error.
    expected: dict[int, tuple[str, bool]] = {}

    def run(current: AcceptedJob, share: float, lost: float) -> None:
        wrong = {n for n in range(count) if chance.random() < share}
        shards = house.plan(current)
        with failing(lambda n: n in wrong):
            for shard in range(shards):
                if chance.random() < lost:
                    order, attempt = house.take(current, shard, f"gone-{current.id}-{shard}")
                    house.state.shards.fail(order, attempt, ErrorInfo(code="x", message="lost"))
                else:
                    assert house.attempt(current, shard, f"{current.id}-{shard}").how == "committed"
        house.finish(current)
        for row in plain(house, current):
            assert expected.get(row["id"], ("", True))[1], "only what has no answer runs again"
            expected[row["id"]] = (current.id, row["error"] is not None)

    def retry(parent: AcceptedJob, share: float, lost: float) -> AcceptedJob:
        made = accept_retry(parent, None, house.submitter, house.settings).job
        enqueue(made, house.state, house.broker)
        before = dict(expected)
        run(made, share, lost)
        rows = merged(house, job)
        assert [row["id"] for row in rows] == sorted(expected)
        assert {row["id"] for row in rows if row["error"]} == {n for n, (_, error) in expected.items() if error}
        assert len(before) <= len(expected)
        return made

    run(job, 0.4, 0.3)
    assert len(expected) < count
    first = retry(job, 0.3, 0.4)
    second = retry(first, 0.3, 0.0)
    retry(second, 0.0, 0.0)
    rows = merged(house, job)
    assert [row["id"] for row in rows] == list(range(count))
    assert not any(row["error"] for row in rows)


def test_a_sibling_s_newer_answer_stands(house: House, classifier: Path, tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "in.parquet", sentences(6))
    job = house.submit(spec_for(classifier, str(file), f"{tmp_path}/out"))
    with failing(lambda n: n < 4):
        finished(house, job)
    with failing(lambda n: n < 2):
        retried(house, job)
    with failing(lambda n: n in (1, 3)):
        retried(house, job)
    assert [row["id"] for row in merged(house, job) if row["error"]] == [1], "an error takes no answer's place"


def test_pictures_are_retried_as_they_were_listed(house: House, tmp_path: Path) -> None:
    """Each object with the etag that was planned; one overwritten since is reported."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(pictures.encoded(pictures.picture(30, 40, seed=number), "PNG"))
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[:50].ljust(len(whole), b"\0"))
    model = make_image_classifier(tmp_path / "model")
    spec = parse_spec(
        {
            "task": "image-classification",
            "model": str(model),
            "input": {"uri": f"{folder}/"},
            "output": {"uri": f"{tmp_path}/out"},
            "shard": {"rows": 4},
        }
    )
    job = house.submit(spec)
    finish = ImageClassification.finish
    calls = iter(range(100))
    with pytest.MonkeyPatch.context() as patch:

        def fussy(self: Any, pieces: Any, outputs: Any) -> Any:
            if next(calls) >= 2:
                raise RecordError("odd", "it is odd today")
            return finish(self, pieces, outputs)

        patch.setattr(ImageClassification, "finish", fussy)
        manifest = finished(house, job)
    assert manifest.errors == {"odd": 3, "unreadable_image": 1}
    wrong = [Path(row["source_uri"]).name for row in plain(house, job) if row["error"]]
    changed = next(name for name in wrong if name != "1.png")
    (folder / changed).write_bytes((folder / changed).read_bytes() + b"\0")
    retry, again = retried(house, job)
    assert [Path(row["source_uri"]).name for row in plain(house, retry)] == wrong
    assert again.errors == {"unreadable_image": 1, "input_changed": 1}
    rows = merged(house, job)
    assert [Path(row["source_uri"]).name for row in rows] == [f"{n}.png" for n in range(6)]
    assert {Path(row["source_uri"]).name for row in rows if row["error"]} == {"1.png", changed}

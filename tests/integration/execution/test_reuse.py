"""Answers that are copied: across jobs and crashes, within a tenant, and only where they would be computed alike."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from nightshift.testing import close
from schemas.manifest import Manifest
from tests.integration.harness import House, read_output, spec_for, write_reviews
from tests.texts import sentences
from workers.execution.attempt import Attempt, run_attempt
from workers.tasks.text_classification import TextClassification


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of pieces that went through the model, one for each batch."""
    batches: list[int] = []
    infer = TextClassification.infer

    def counted(self: Any, pieces: Any) -> Any:
        batches.append(len(pieces))
        return infer(self, pieces)

    monkeypatch.setattr(TextClassification, "infer", counted)
    return batches


def total(batches: list[int]) -> int:
    count = sum(batches)
    batches.clear()
    return count


def answers(output: str) -> list[Any]:
    return [[row["review"], row["prediction"], row["error"]] for row in read_output(output)]


class Jobs:
    def __init__(self, house: House, classifier: Path, folder: Path) -> None:
        self.house, self.classifier, self.folder, self.count = house, classifier, folder, 0

    def run(self, texts: list[Any], reuse: Any = True, **spec: Any) -> Manifest:
        self.count += 1
        source = write_reviews(self.folder / "in" / f"{self.count}.parquet", texts)
        return self.house.run(spec_for(self.classifier, str(source), self.output, reuse=reuse, **spec))

    @property
    def output(self) -> str:
        return f"{self.folder}/out-{self.count}"


@pytest.fixture
def jobs(house: House, classifier: Path, tmp_path: Path) -> Jobs:
    return Jobs(house, classifier, tmp_path)


def test_half_the_rows_seen_is_half_the_computation(jobs: Jobs, computed: list[int]) -> None:
    """And the output is that of a job that computes everything."""
    texts = [f"{text} {number}" for number, text in enumerate(sentences(200))]
    first = jobs.run(texts[:100], shard={"rows": 30})
    assert (total(computed), first.reused) == (100, 0)
    second = jobs.run([*texts[50:150], None, texts[50]], shard={"rows": 40})
    assert (total(computed), second.reused, second.error_rows) == (50, 51, 1)
    copied = answers(jobs.output)
    jobs.run([*texts[50:150], None, texts[50]], reuse=False)
    assert total(computed) == 100
    assert close(copied, answers(jobs.output))


def test_nothing_is_copied_of_another_tenant_model_or_parameter(jobs: Jobs, computed: list[int]) -> None:
    texts = sentences(10)
    jobs.run(texts)
    count = total(computed)
    assert count
    for changes in ({"labels": {"tenant": "other"}}, {"params": {"top_k": 2}}, {"dtype": "bfloat16"}):
        assert jobs.run(texts, **changes).reused == 0
        assert total(computed) == count
    assert jobs.run(texts, batch_size=1, seed=7).reused == 10
    assert total(computed) == 0


def test_a_folder_is_shared_by_those_that_name_it(jobs: Jobs, computed: list[int], tmp_path: Path) -> None:
    texts = sentences(10)
    folder = f"{tmp_path}/shared/"
    assert jobs.run(texts, reuse=folder, labels={"tenant": "one"}).reused == 0
    assert jobs.run(texts, reuse=folder, labels={"tenant": "two"}).reused == 10
    assert jobs.run(texts).reused == 0


def test_the_answers_of_a_shard_that_was_not_committed_are_copied(
    jobs: Jobs, house: House, classifier: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process dies between its answers and its part."""
    source = write_reviews(tmp_path / "in.parquet", sentences(10))
    job = house.submit(spec_for(classifier, str(source), f"{tmp_path}/out", reuse=True))
    house.plan(job)

    def dies(*known: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jobs.storage.job_folder.JobFolder.write_part", dies)
        order, attempt = house.take(job, 0, "a1")
        with pytest.raises(KeyboardInterrupt):
            run_attempt(Attempt(order, attempt, house.process))
    assert total(computed)
    again = House(house.settings)
    again.state.shards.requeue(order, attempt)
    again.attempt(job, 0, id="a2")
    assert (total(computed), again.finish(job).reused) == (0, 10)


def test_a_ledger_s_damaged_or_foreign_file_is_left_out(jobs: Jobs, computed: list[int], tmp_path: Path) -> None:
    texts = sentences(10)
    folder = tmp_path / "shared"
    jobs.run(texts[:5], reuse=f"{folder}/")
    jobs.run(texts[5:], reuse=f"{folder}/")
    first, second = sorted(folder.glob("answers/*/*.parquet"))
    first.write_bytes(first.read_bytes()[:-20])
    ds.write_dataset(pa.table({"x": [1]}), second.parent, basename_template="a-{i}.parquet", format="parquet",
                     existing_data_behavior="overwrite_or_ignore")  # fmt: skip
    assert jobs.run(texts, reuse=f"{folder}/").reused == 5

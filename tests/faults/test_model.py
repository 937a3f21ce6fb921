"""Models that are gone or not what they seem: refused before anything is queued, or the job fails at the first load."""

import shutil
from pathlib import Path

import pytest
import torch

from schemas.errors import SpecError
from schemas.manifest import JobStatus
from tests.faults.conftest import Note
from tests.faults.stage import Stage, write_table

pytestmark = pytest.mark.slow


def test_what_validation_refuses(stage: Stage, classifier: Path, note: Note, tmp_path: Path) -> None:
    pickled = shutil.copytree(classifier, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    file = write_table(tmp_path / "in.parquet", ["text"])
    for task, model, message in (
        ("text-classification", str(tmp_path / "missing"), "there is no model"),
        ("text-classification", str(pickled), "only pytorch_model.bin; weights are loaded from safetensors only"),
        ("question-answering", str(classifier), "needs one ending in ForQuestionAnswering"),
    ):
        with pytest.raises(SpecError, match=message):
            stage.submit(str(file), str(tmp_path / "out"), task=task, model=model)
    assert not (tmp_path / "out").exists()
    note("model folder missing, pickle-only weights, wrong head", 3, "refused at validation, cause named")


@pytest.mark.parametrize("how", ["gone", "pickled", "damaged"])
def test_a_model_that_goes_bad_after_validation(
    stage: Stage, classifier: Path, note: Note, tmp_path: Path, how: str
) -> None:
    model = shutil.copytree(classifier, tmp_path / "classifier")
    file = write_table(tmp_path / "in.parquet", [f"text {i}" for i in range(40)])
    changes = {"task": "text-classification", "model": str(model), "shard": {"rows": 10}}
    job = stage.submit(str(file), str(tmp_path / "out"), **changes)
    weights = model / "model.safetensors"
    if how == "gone":
        shutil.rmtree(model)
    elif how == "pickled":
        weights.unlink()
        torch.save({}, model / "pytorch_model.bin")
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with stage.worker():
        ended = stage.ended(job)
    manifest = stage.check(ended, job)
    assert (manifest.status, manifest.parts) == (JobStatus.FAILED, [])
    assert manifest.error is not None
    assert str(model) in manifest.error.message, manifest.error
    assert sum(stage.failpoints.claims(job.id).values()) <= 1, "no shard is tried again"
    note(f"model {how} after validation", 1, f"job failed at the first load: {manifest.error.code}")


def test_a_model_that_crashes_whoever_loads_it(stage: Stage, note: Note) -> None:
    """The job fails after four deaths, whatever the number of its shards; another job goes on."""
    (stage.model / "deadly.json").write_text("{}")
    with stage.worker("--groups", "text,control", "--processes", "2"):
        job = stage.job("job", 400)
        ended = stage.ended(job)
        (stage.model / "deadly.json").unlink()
        other = stage.job("other", 40)
        stage.check(stage.ended(other), other)
    manifest = stage.check(ended, job, attempts=5)
    assert (manifest.status, manifest.parts) == (JobStatus.FAILED, [])
    assert manifest.error is not None
    assert "while it loaded the model" in manifest.error.message
    deaths = sum(stage.failpoints.claims(job.id).values())
    assert deaths <= stage.settings.max_lost + 1, "of two processes one may be at its last load"
    note("a model that ends each process that loads it, 40 shards", deaths, f"job failed: {manifest.error.code}")

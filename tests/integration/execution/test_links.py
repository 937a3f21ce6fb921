"""Symbolic links in local folders lead a tenant's job nowhere that the tenant may not read."""

from pathlib import Path

import pytest

from jobs.results.read import result_batches
from jobs.settings import Settings
from jobs.submission.accept import new_job
from jobs.submission.validate import validate
from schemas.errors import AccessDenied, SpecError
from schemas.manifest import JobStatus
from tests.integration.harness import House, spec_for, write_reviews
from tests.texts import sentences


@pytest.fixture
def own(settings: Settings, tmp_path: Path) -> House:
    """A deployment that lets the tenant read `mine/` and the model."""
    return House(settings.model_copy(update={"allowed_inputs": [f"{tmp_path}/mine/"], "allowed_models": ["/*"]}))


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    return write_reviews(tmp_path / "theirs" / "rows.parquet", ["a secret", "another"])


def test_an_input_that_is_a_link(own: House, theirs: Path, classifier: Path, tmp_path: Path) -> None:
    write_reviews(tmp_path / "mine" / "a.parquet", sentences(5))
    (tmp_path / "mine" / "b.parquet").symlink_to(theirs)
    with pytest.raises(SpecError, match="outside"):
        own.run(spec_for(classifier, f"{tmp_path}/mine/b.parquet", f"{tmp_path}/out"))
    for number, name in enumerate(("*.parquet", "")):
        manifest = own.run(spec_for(classifier, f"{tmp_path}/mine/{name}", f"{tmp_path}/out-{number}"))
        assert manifest.error is not None
        assert (manifest.status, manifest.parts) == (JobStatus.FAILED, [])
        assert "b.parquet is outside of what may be used here, or leads there" in manifest.error.message


def test_an_input_that_becomes_a_link_once_it_is_planned(
    own: House, theirs: Path, classifier: Path, tmp_path: Path
) -> None:
    source = write_reviews(tmp_path / "mine" / "a.parquet", sentences(5))
    checked = validate(spec_for(classifier, str(source), f"{tmp_path}/out"), own.storage, own.settings)
    accepted = new_job(checked.spec, checked.model, allowed_inputs=(f"{tmp_path}/mine/",))
    job = own.submitter.create(accepted).job
    own.state.jobs.add(job.id, job.spec.task, job.output, 5, 1.0)
    own.plan(job)
    source.unlink()
    source.symlink_to(theirs)
    outcome = own.attempt(job, 0)
    assert "leads there by a symbolic link" in outcome.why
    assert not list((tmp_path / "out").glob("data/part-*"))


def test_a_part_that_is_replaced_by_a_link(own: House, theirs: Path, classifier: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "mine" / "a.parquet", sentences(5))
    own.run(spec_for(classifier, str(source), f"{tmp_path}/out"))
    job = own.catalog.job_at(f"{tmp_path}/out/")
    assert job is not None
    part = next((tmp_path / "out").glob("data/part-*"))
    part.unlink()
    part.symlink_to(theirs)
    with pytest.raises(AccessDenied, match="outside"):
        list(result_batches(job, own.storage))

"""A job whose files are damaged or gone is shown, cancelled and followed to its end; it uses up no quota."""

import shutil
from pathlib import Path

import pytest

from jobs.cli.follow import follow
from schemas.errors import Permanent
from schemas.job import AcceptedJob
from schemas.layout import MANIFEST
from schemas.manifest import JobStatus
from tests.acceptance.cli import nightshift
from tests.integration.api.test_api import Api, api, spec
from tests.integration.harness import House, spec_for

__all__ = ["api"]


def test_a_job_with_a_damaged_manifest(api: Api, classifier: Path, texts: Path, tmp_path: Path) -> None:
    me = api.login("search")
    job = api.http.post("/v1/jobs", json=spec(classifier, texts, tmp_path / "out"), headers=me).json()
    at = f"/v1/jobs/{job['id']}"
    (tmp_path / "out" / MANIFEST).write_text("{")
    assert api.http.get(at, headers=me).json()["status"] == "planning"
    assert api.http.post(f"{at}:cancel", headers=me).status_code == 202
    api.house.control.finish_job(job["id"], job["output"])
    shown = api.http.get(at, headers=me).json()
    assert (shown["status"], shown["end"]["status"], shown["progress"]) == ("cancelled", "cancelled", None)
    assert MANIFEST in shown["error"]["message"]
    assert [one["id"] for one in api.http.get("/v1/jobs", headers=me).json()["jobs"]] == [job["id"]]
    assert api.http.post(f"{at}:cancel", headers=me).status_code == 409


def lost(house: House, classifier: Path, texts: Path) -> AcceptedJob:
    job = house.submit(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    house.plan(job)
    return job


@pytest.mark.parametrize("by", ["id", "output"])
def test_a_job_without_files_is_cancelled_by_the_command(house: House, classifier: Path, texts: Path, by: str) -> None:
    job = lost(house, classifier, texts)
    Path(house.settings.catalog_uri, "jobs", f"{job.id}.json").unlink()
    shutil.rmtree(job.output)
    name = job.id if by == "id" else job.output
    done = nightshift("cancel", name)
    assert (done.code, done.out) == (0, f"cancelling {job.id}\n"), done.err
    assert nightshift("cancel", name).code == 1
    house.control.finish_job(job.id, job.output)
    assert house.state.jobs.status(job.id) is JobStatus.CANCELLED


def test_a_job_without_a_manifest_is_followed_to_its_end(house: House, classifier: Path, texts: Path) -> None:
    job = lost(house, classifier, texts)
    Path(house.settings.catalog_uri, "jobs", f"{job.id}.json").unlink()
    house.state.jobs.cancel(job.id)
    house.control.finish_job(job.id, job.output)
    with pytest.raises(Permanent, match=f"job {job.id} cancelled: The job has no manifest: .* has no job {job.id}"):
        list(follow(job, house.state, house.catalog.folder(job.output)))

"""Ids of jobs, and what a submission writes."""

import json
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from jobs.settings import Settings
from jobs.storage import ObjectInfo, Storage
from jobs.storage.catalog import JOB_ID, Catalog
from jobs.submission.accept import Found, Submitter, new_job, new_job_id
from jobs.submission.validate import check_locations
from schemas.errors import SpecError
from schemas.job import AcceptedJob, ResolvedModel, parse_spec
from schemas.layout import Layout


class Clock(datetime):
    """A clock that is a millisecond further each time it is asked."""

    at = datetime(2026, 11, 20, 3, 15)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Clock":
        Clock.at += timedelta(milliseconds=1)
        return cls.combine(Clock.at.date(), Clock.at.time(), tz)


def test_ids_of_one_second_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.submission.accept.datetime", Clock)
    ids = [new_job_id() for _ in range(2000)]
    assert ids == sorted(ids)
    assert all(JOB_ID.fullmatch(id) for id in ids)


class Recorder(Storage):
    """Notes each object that is created, by its name below `root`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.created: list[str] = []
        self._root = f"{root}/"

    def create(self, uri: str, body: bytes | BinaryIO, owner: str) -> ObjectInfo:
        info = super().create(uri, body, owner)
        self.created.append(uri.removeprefix(self._root))
        return info


def test_a_job_is_written_in_this_order_and_once(tmp_path: Path) -> None:
    """Its key, its pointers, then `_job.json`: if a server dies in between, the same request goes on from there."""
    storage = Recorder(tmp_path)
    submitter = Submitter(Catalog(f"{tmp_path}/catalog", storage), embedded=False, tenant="search")
    spec = parse_spec(
        {
            "task": "text-classification",
            "model": "m",
            "input": {"uri": "/in/"},
            "output": {"uri": f"{tmp_path}/out/"},
            "labels": {"tenant": "search"},
        }
    )
    model = ResolvedModel(source="m", kind="hub", revision="1")
    first = submitter.accept(spec, lambda: new_job(spec, model), "key")
    key, *rest = storage.created
    assert key.startswith("catalog/keys/")
    id = first.job.id
    assert rest == [f"catalog/jobs/{id}.json", f"catalog/tenants/search/{id}.json", "out/_job.json"]
    for sent_again in ("key", None):
        again = submitter.accept(spec, lambda: pytest.fail("a new job was made"), sent_again)
        assert (again.job, first.found, again.found) == (first.job, Found.NOTHING, Found.UNFINISHED)
    assert len(storage.created) == 4
    other = spec.model_copy(update={"priority": 7})
    with pytest.raises(SpecError, match="another spec before"):
        submitter.accept(other, lambda: new_job(other, model), "key")


def test_another_tenants_job_is_not_named(tmp_path: Path) -> None:
    catalog = Catalog(f"{tmp_path}/catalog", Storage())
    spec = parse_spec(
        {"task": "text-classification", "model": "m", "input": {"uri": "/in/"}, "output": {"uri": f"{tmp_path}/out/"}}
    )
    theirs = spec.model_copy(update={"labels": {"tenant": "theirs"}})
    model = ResolvedModel(source="m", kind="hub", revision="1")
    job = Submitter(catalog, False, "theirs").accept(theirs, lambda: new_job(theirs, model)).job
    ours = Submitter(catalog, False, "ours", sees=lambda tenant: tenant == "ours")
    for attempt in (partial(ours.find, spec), partial(ours.create, new_job(spec, model))):
        with pytest.raises(SpecError, match="is not empty") as raised:
            attempt()
        assert job.id not in raised.value.message


def test_a_stored_job_without_a_layout_is_flat() -> None:
    """Those of versions that knew one place don't name it, and such a job is written as they would read it."""
    places = {"input": {"uri": "/in/"}, "output": {"uri": "/out/"}}
    spec = parse_spec({"task": "text-classification", "model": "m", **places})
    job = new_job(spec, ResolvedModel(source="m", kind="hub", revision="1"))
    assert job.layout is Layout.DATA
    for layout in Layout:
        stored = job.model_copy(update={"layout": layout}).model_dump_json()
        assert ("layout" in json.loads(stored)) == (layout is Layout.DATA)
        assert AcceptedJob.model_validate_json(stored).layout is layout
        assert job.model_copy(update={"layout": layout}).fingerprint == job.spec.fingerprint()


@pytest.mark.parametrize("part", ["part-*.parquet", "data/part-*.parquet", "data/*", "*/*", "**"])
def test_an_output_that_the_input_would_match(part: str) -> None:
    """Whichever layout the job has."""
    places = {"input": {"uri": f"/x/*/{part}"}, "output": {"uri": "/x/out/"}}
    with pytest.raises(SpecError, match="lies inside the input"):
        check_locations(parse_spec({"task": "text-classification", "model": "m", **places}), Settings.read())

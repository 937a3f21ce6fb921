"""A store that overwrites in spite of If-None-Match, in one way to create or in both: refused each time."""

from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.catalog import Catalog
from jobs.submission.accept import Submitter, enqueue, found_job, new_job
from jobs.supervisor.recovery import rebuild
from schemas.errors import SpecError
from schemas.job import JobSpec, ResolvedModel
from tests.integration.harness import House, spec_for

WAYS = [("PutObject", "CompleteMultipartUpload"), ("PutObject",), ("CompleteMultipartUpload",)]


def ignore_condition(params: dict[str, Any], **_: object) -> None:
    params.pop("IfNoneMatch", None)


def careless(bucket: str, ways: tuple[str, ...]) -> Storage:
    """The real store, which doesn't see the condition of these requests."""
    storage = Storage()
    store: Any = storage._store(bucket)
    for way in ways:
        store._client.meta.events.register(f"provide-client-params.s3.{way}", ignore_condition)
    return storage


def submitters(house: House, bucket: str, ways: tuple[str, ...], settings: Settings) -> Submitter:
    """Another process each time, with the catalog on a store that is in order."""
    return Submitter(Catalog(settings.catalog_uri, careless(bucket, ways)), embedded=False)


@pytest.mark.parametrize("ways", WAYS, ids=["both", "put", "pieces"])
@pytest.mark.parametrize("key", [None, "a-key"])
def test_it_is_refused_each_time(
    house: House, s3: str, classifier: Path, texts: Path, ways: tuple[str, ...], key: str | None
) -> None:
    spec = spec_for(classifier, str(texts), f"{s3}/out/")
    model = ResolvedModel(source=str(classifier), kind="local", revision="1")

    def submit(chosen: JobSpec) -> None:
        submitter = submitters(house, s3, ways, house.settings)
        submitter.accept(chosen, lambda: new_job(chosen, model), key)

    for _ in range(3):
        with pytest.raises(SpecError, match="overwrites objects in spite of If-None-Match"):
            submit(spec)
    (id,) = house.catalog.ids()
    assert list(rebuild(house.state, house.broker, house.catalog)) == [], "nor is it run when Redis is rebuilt"
    job = house.catalog.job(id)
    assert job is not None
    with pytest.raises(SpecError, match="overwrites objects"):
        found_job(job, careless(s3, ways))


def test_a_bucket_is_tried_by_pieces_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage()
    store: Any = storage._store(s3)
    calls: list[str] = []
    store._client.meta.events.register("provide-client-params.s3", lambda model, **_: calls.append(model.name))
    for name in ("a", "b"):
        storage.create(f"{s3}/{name}", b"content", "me")
        assert storage.refuses_overwrite(f"{s3}/{name}")
        assert storage.read(f"{s3}/{name}") == b"content"
    assert calls.count("PutObject") == 4
    assert calls.count("CompleteMultipartUpload") == 1
    assert store._client.list_multipart_uploads(Bucket=s3.removeprefix("s3://")).get("Uploads", []) == []


def test_a_job_whose_file_is_gone_can_be_gone_on_with(house: House, s3: str, classifier: Path, texts: Path) -> None:
    job = house.accept(spec_for(classifier, str(texts), f"{texts.parent.parent}/out"))
    Path(job.output, "_job.json").unlink()
    assert not found_job(job, house.storage).ended
    assert enqueue(job, house.state, house.broker)

"""The pointer to the newest results: written in one step, by whichever job began last, and by nothing else."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobs.cli.results import results
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.latest import read_latest
from jobs.submission.validate import check_locations, with_full_uris
from schemas.errors import SpecError
from schemas.job import parse_spec
from tests.integration.harness import House, spec_for


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("s3"))


def test_an_object_is_changed_in_one_step(folder: str) -> None:
    """Of many who add to it at once, each adds once."""
    storage, uri = Storage(), f"{folder}/count.json"

    def add(number: int) -> None:
        storage.update(uri, lambda there: json.dumps([*json.loads(there or b"[]"), number]).encode(), f"owner-{number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert sorted(json.loads(storage.read(uri))) == list(range(12))
    storage.update(uri, lambda there: None, "nobody")
    assert len(json.loads(storage.read(uri))) == 12
    storage.delete(uri)
    storage.delete(uri)
    assert list(storage.list(f"{folder}/count")) == []


def test_it_names_the_job_that_began_last_of_those_that_succeeded(
    house: House, classifier: Path, texts: Path, tmp_path: Path
) -> None:
    latest = f"{tmp_path}/latest.json"

    def job(name: str, **more: object) -> str:
        output = {"uri": f"{tmp_path}/{name}/", "latest": latest}
        spec = spec_for(classifier, str(texts), output["uri"], **more)
        return house.submit(spec.model_copy(update={"output": spec.output.model_copy(update=output)})).id

    first, second = job("first"), job("second")
    for id in (second, first):  # the older one ends last
        found = house.catalog.job(id)
        assert found is not None
        house.plan(found)
        while not house.state.jobs.progress(id).finishable:  # type: ignore[union-attr]
            house.next()
        house.finish(found)
        assert read_latest(latest, house.storage).job == second
    shown = CliRunner().invoke(results, [latest, "-n", "0", "--json"])
    assert len(shown.stdout.splitlines()) == 100, shown.output
    Path(latest).write_text("{}")  # what isn't a pointer is left alone, and the job ends all the same
    third = house.catalog.job(job("third"))
    assert third is not None
    house.plan(third)
    while house.next() is not None:
        pass
    assert house.finish(third).status == "succeeded"
    assert Path(latest).read_text() == "{}"


def test_a_spec_names_a_place_for_it_that_is_no_job_s(settings: Settings, tmp_path: Path) -> None:
    def check(latest: str, **more: object) -> None:
        spec = {"task": "text-classification", "model": "m/m", "input": {"uri": "s3://b/in/"}}
        output = {"uri": "s3://b/out/night/", "latest": latest}
        check_locations(with_full_uris(parse_spec(spec | {"output": output})), settings.model_copy(update=more))

    check("s3://b/out/latest.json")
    for wrong in ("s3://b/out/_manifest.json", "s3://b/out/latest", "s3://b/out/night/latest.json"):
        with pytest.raises(SpecError):
            check(wrong)
    with pytest.raises(SpecError):
        check("s3://b/elsewhere/latest.json", allowed_outputs=["s3://b/out/"])


def test_a_spec_without_it_is_the_spec_that_it_was() -> None:
    spec = {"task": "text-classification", "model": "m/m", "input": {"uri": "s3://b/in/"}}
    without = parse_spec(spec | {"output": {"uri": "s3://b/out/"}})
    assert without.model_dump(mode="json")["output"] == {"uri": "s3://b/out/"}
    with_it = parse_spec(spec | {"output": {"uri": "s3://b/out/", "latest": "s3://b/latest.json"}})
    assert with_it.fingerprint() == without.fingerprint()

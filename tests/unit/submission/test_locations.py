"""The folders that a job writes to beside its output: only where its tenant may, and never into an input or output."""

from typing import Any

import pytest

from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.ledger import ledger_of
from jobs.submission.accept import new_job
from jobs.submission.validate import check_locations, with_full_uris
from schemas.errors import SpecError
from schemas.job import JobSpec, ResolvedModel, parse_spec

TOKEN = Settings.model_construct().narrowed(["s3://raw/mine/"], ["s3://annotated/mine/"])


def spec(**changes: Any) -> JobSpec:
    basis = {
        "task": "text-classification",
        "model": "org/model",
        "input": {"uri": ["s3://raw/mine/in/", "s3://raw/mine/**/*.parquet"]},
        "output": {"uri": "s3://annotated/mine/out/"},
    }
    return with_full_uris(parse_spec(basis | changes))


@pytest.mark.parametrize("folder", ["s3://annotated/mine/series", "s3://annotated/mine/out-of-series/"])
def test_a_folder_of_the_tenant_s_is_allowed(folder: str) -> None:
    found = spec(incremental={"series": folder}, reuse=folder)
    check_locations(found, TOKEN)
    assert found.incremental is not None
    assert found.incremental.series == found.reuse == folder.rstrip("/") + "/"


@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("s3://annotated/yours/x/", "outside of what is allowed here"),
        ("s3://raw/mine/x/", "outside of what is allowed here"),
        ("s3://annotated/mine/out/x/", "lies inside the output"),
    ],
)
def test_another_folder_is_refused(folder: str, says: str) -> None:
    both: dict[str, dict[str, Any]] = {
        "incremental.series": {"incremental": {"series": folder}},
        "reuse": {"reuse": folder},
    }
    for field, changes in both.items():
        with pytest.raises(SpecError) as caught:
            check_locations(spec(**changes), TOKEN)
        assert caught.value.problems[0].field == field
        assert says in caught.value.problems[0].message


@pytest.mark.parametrize("folder", ["s3://raw/mine/in/x/", "s3://raw/mine/x/y/", "s3://raw/"])
def test_a_folder_in_the_input_is_refused(folder: str) -> None:
    """Its files would be taken for input."""
    with pytest.raises(SpecError, match=r"lies inside the input|whole bucket"):
        check_locations(spec(reuse=folder), TOKEN.model_copy(update={"allowed_outputs": ["*"]}))


def test_each_tenant_has_a_ledger_of_its_own() -> None:
    """No name of a tenant leads into the ledger of another, or of jobs without one."""
    names = ["", "a", "b", "a/b", "..", "%2E%2E", "own", "tenants/a", "a.b"]
    folders = [
        ledger.uri
        for name in names
        if (ledger := ledger_of(_job(spec(reuse=True, labels={"tenant": name})), ["text"], "cpu", "s3://c/", Storage()))
    ]
    assert len(set(folders)) == len(names)
    parents = {folder.removesuffix("/").rpartition("answers/")[0] for folder in folders}
    assert all(folder.startswith("s3://c/reuse/") and ".." not in folder for folder in folders)
    assert not any(one != other and one.startswith(other) for one in parents for other in parents)


def _job(spec: JobSpec) -> Any:
    return new_job(spec, ResolvedModel(source="m", kind="hub", revision="r"))

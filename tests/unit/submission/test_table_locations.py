"""Which table may a job commit to? One in its prefixes, above its output, in a catalog that the settings name."""

from typing import Any

import pytest

from jobs.settings import Settings
from jobs.submission.validate import check_locations, with_full_uris
from schemas.errors import SpecError
from schemas.job import JobSpec, parse_spec

DELTA = {"format": "delta", "location": "s3://done/search/reviews"}
ICEBERG = DELTA | {"format": "iceberg", "catalog": "lake", "name": "search.reviews"}


def spec_of(table: dict[str, Any], output: str = "s3://done/search/reviews/n1") -> JobSpec:
    given = {"task": "text-classification", "model": "m", "input": {"uri": "s3://raw/in/"}}
    return with_full_uris(parse_spec(given | {"output": {"uri": output, "table": table}}))


@pytest.fixture
def settings() -> Settings:
    return Settings(allowed_outputs=["s3://done/search/"], iceberg_catalogs=["lake*"])


@pytest.mark.parametrize("table", [DELTA, ICEBERG, ICEBERG | {"catalog": "lake-2", "name": "a.b.c"}])
def test_a_table_that_may_be_committed_to(table: dict[str, Any], settings: Settings) -> None:
    spec = spec_of(table)
    check_locations(spec, settings)
    assert spec.output.table is not None
    assert spec.output.table.location == "s3://done/search/reviews/"


@pytest.mark.parametrize(
    ("table", "output", "field", "words"),
    [
        (
            DELTA | {"location": "s3://done/"},
            "s3://done/search/n1",
            "output.table.location",
            "outside of what is allowed",
        ),
        (DELTA, "s3://done/search/reviews-2/n1", "output.table.location", "doesn't lie below the table's location"),
        (DELTA, "s3://done/search/reviews/", "output.table.location", "s3://done/search/reviews/NAME-OF-THE-RUN/"),
        (DELTA, "s3://done/search/reviews/n#1", "output.uri", "has one of ? #"),
        (
            DELTA | {"location": "s3://done/search/50%"},
            "s3://done/search/50%/n",
            "output.table.location",
            "one of % ? #",
        ),
        (ICEBERG | {"catalog": "other"}, "s3://done/search/reviews/n1", "output.table.catalog", "ICEBERG_CATALOGS"),
    ],
)
def test_a_table_that_may_not(table: dict[str, Any], output: str, field: str, words: str, settings: Settings) -> None:
    with pytest.raises(SpecError) as refused:
        check_locations(spec_of(table, output), settings)
    (problem,) = refused.value.problems
    assert problem.field == field
    assert words in problem.message


def test_no_catalog_is_allowed_unless_a_setting_names_it() -> None:
    with pytest.raises(SpecError, match="may commit to here \\(none\\)"):
        check_locations(spec_of(ICEBERG), Settings())


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (DELTA | {"name": "a.b"}, "a Delta table has neither a catalog nor a name"),
        (DELTA | {"format": "iceberg"}, "write {catalog: NAME, name: NAMESPACE.TABLE} too"),
        (ICEBERG | {"name": "reviews"}, "'reviews' is no table's name; write NAMESPACE.TABLE"),
        (ICEBERG | {"uri": "sqlite:///x"}, "unknown key"),
        (ICEBERG | {"loction": "x"}, "did you mean 'location'?"),
    ],
)
def test_a_table_that_is_none(table: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as refused:
        spec_of(table)
    assert words in refused.value.message


def test_a_spec_without_a_table_has_the_fingerprint_of_earlier_versions() -> None:
    spec = parse_spec({"task": "fill-mask", "model": "m", "input": {"uri": "in/"}, "output": {"uri": "out/"}})
    assert spec.model_dump(mode="json")["output"] == {"uri": "out/"}

"""Holes: what each stands for, on the days when clocks change too, and what is said of one that is none."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SpecError
from schemas.holes import Filling, filled

BERLIN = ZoneInfo("Europe/Berlin")
#: 03:15 in Berlin, on the day before in UTC's year.
NEW_YEAR = Filling(datetime(2027, 1, 1, 0, 15, tzinfo=BERLIN), "nightly", "20261231T231500Z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://raw/{date}/", "s3://raw/2027-01-01/"),
        ("s3://raw/{date:%Y/%m/%d}/", "s3://raw/2027/01/01/"),
        ("{date-1d:%Y%m%d}", "20261231"),
        ("{date-1w+2d:%Y%m%d}", "20261227"),
        ("{date+2h:%H}", "02"),
        ("{date-30m:%Y-%m-%dT%H%M}", "2026-12-31T2345"),
        ("{date:%G-W%V-%u}", "2026-W53-5"),
        ("{date:%H%%}", "00%"),
        ("{name}/{run}", "nightly/20261231T231500Z"),
        ("{{date}} and {{}}", "{date} and {}"),
        ("no holes", "no holes"),
    ],
)
def test_a_hole_is_filled(text: str, expected: str) -> None:
    assert filled(text, NEW_YEAR, "output.uri") == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("s3://raw/{dat}/", "{dat}"),
        ("{}", "{}"),
        ("{date-1y}", "{date-1y}"),
        ("{date-99999d}", "{date-99999d}"),
        ("{date - 1d}", "{date - 1d}"),
        ("{date:}", "{date:}"),
        ("{date:%A}", "%A"),
        ("{date:%Y%}", "'%'"),
        ("{name:%Y}", "{name:%Y}"),
        ("{date", "'{'"),
        ("date}", "'}'"),
        ("{{date}", "'}'"),
        ("{0.__class__}", "{0.__class__}"),
    ],
)
def test_what_is_no_hole_is_named_with_its_field(text: str, named: str) -> None:
    with pytest.raises(SpecError) as caught:
        filled(text, NEW_YEAR, "output.uri")
    [problem] = caught.value.problems
    assert problem.field == "output.uri"
    assert named in problem.message


def test_a_day_before_is_by_the_calendar_and_hours_are_by_the_clock() -> None:
    """The day when clocks go forward in Berlin has 23 hours."""
    three = Filling(datetime(2026, 3, 30, 0, 30, tzinfo=BERLIN), "n", "r")
    assert filled("{date-1d:%d %H:%M}", three, "f") == "29 00:30"
    assert filled("{date-24h:%d %H:%M}", three, "f") == "28 23:30"


@given(st.text(alphabet="{}date-+1hdw:%Yname", max_size=30))
def test_any_text_is_filled_or_refused(text: str) -> None:
    filling = Filling(datetime(2026, 1, 1, tzinfo=UTC), "n", "r")
    try:
        found = filled(text, filling, "f")
    except SpecError:
        return
    assert "{" in text or "}" in text or found == text

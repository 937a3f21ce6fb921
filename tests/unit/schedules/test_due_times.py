"""Due times: both changes of the clock in two zones, both directions of time, and expressions that are none."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schedules.due_times import DueTimes
from schemas.errors import SpecError


def _after(cron: str, zone: str, start: str, count: int) -> list[str]:
    times = DueTimes(cron, zone)
    found = islice(times.after(datetime.fromisoformat(start)), count)
    return [f"{due.astimezone(times.zone):%m-%d %H:%M %z}" for due in found]


@pytest.mark.parametrize(
    ("zone", "start", "expected"),
    [
        # 02:30 doesn't exist on the second day: the first instant after the gap.
        ("Europe/Berlin", "2026-03-28T00:00+01:00", ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"]),
        ("America/New_York", "2026-03-07T00:00-05:00", ["03-07 02:30 -0500", "03-08 03:00 -0400", "03-09 02:30 -0400"]),
        # 02:30 comes twice on the second day in Berlin: the first time. In New York 01:30 does.
        ("Europe/Berlin", "2026-10-24T00:00+02:00", ["10-24 02:30 +0200", "10-25 02:30 +0200", "10-26 02:30 +0100"]),
        ("America/New_York", "2026-10-31T02:00-04:00", ["10-31 02:30 -0400", "11-01 02:30 -0500", "11-02 02:30 -0500"]),
        # The whole day of 30 December 2011 was left out.
        ("Pacific/Apia", "2011-12-29T00:00-10:00", ["12-29 02:30 -1000", "12-31 00:00 +1400", "12-31 02:30 +1400"]),
    ],
)
def test_a_day_when_clocks_change_has_one_due_time(zone: str, start: str, expected: list[str]) -> None:
    assert _after("30 2 * * *", zone, start, 3) == expected


def test_an_hour_that_comes_twice_counts_once() -> None:
    twice = _after("30 1 * * *", "America/New_York", "2026-10-31T12:00-04:00", 2)
    assert twice == ["11-01 01:30 -0400", "11-02 01:30 -0500"]
    # Of a schedule that is due more than once an hour, too.
    quarters = _after("*/15 1 * * *", "America/New_York", "2026-11-01T00:00-04:00", 5)
    assert quarters == [f"11-01 01:{minute} -0400" for minute in ("00", "15", "30", "45")] + ["11-02 01:00 -0500"]
    # From within the hour that comes the second time, the next one is the one after it.
    assert _after("30 * * * *", "America/New_York", "2026-11-01T01:10-05:00", 1) == ["11-01 02:30 -0500"]


def test_due_times_that_fall_into_the_gap_are_one() -> None:
    found = _after("0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00+01:00", 4)
    assert found == ["03-29 03:00 +0200", "03-29 03:15 +0200", "03-29 03:30 +0200", "03-30 02:00 +0200"]


@given(
    st.sampled_from(["30 2 * * *", "*/20 * * * *", "0 */3 * * *", "15,45 1-3 * * 1-5", "0 0 L * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)),
)
@settings(max_examples=60)
def test_forwards_and_backwards_are_the_same_times(cron: str, zone: str, start: datetime) -> None:
    times = DueTimes(cron, zone)
    first = start.replace(tzinfo=UTC)
    last = first + timedelta(days=3)
    forwards = []
    for due in times.after(first):
        if due > last:
            break
        forwards.append(due)
    assert list(times.before(last, first))[::-1] == forwards
    assert all(one < other for one, other in pairwise(forwards))


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("every night", "has 2 fields"),
        ("0 15 3 * * *", "has 6 fields"),
        ("61 3 * * *", "Bad minute"),
        ("15 3 * * MOON", "Bad day-of-week"),
        ("0 0 31 4,6 *", "Bad day-of-month"),
        ("0 0 * * 1#9", "Bad day-of-week"),
    ],
)
def test_what_is_no_cron_expression_is_said(cron: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"^cron: .*{said}"):
        DueTimes(cron, "UTC")


@pytest.mark.parametrize(
    ("zone", "said"),
    [("Europe/Berln", "Europe/Berlin"), ("America", "America/"), ("../../etc/passwd", "IANA|such as"), ("", "such as")],
)
def test_what_is_no_time_zone_is_said_with_the_nearest(zone: str, said: str) -> None:
    with pytest.raises(SpecError, match=f"^time_zone: there is no time zone .*{said}"):
        DueTimes("15 3 * * *", zone)


@given(st.text(alphabet="0123456789*/,-L#W MONJAN", max_size=25))
def test_any_text_is_a_cron_expression_or_refused(cron: str) -> None:
    try:
        times = DueTimes(cron, "Europe/Berlin")
    except SpecError:
        return
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert next(times.after(start)) > start

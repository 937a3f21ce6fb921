"""Ids of jobs."""

from datetime import datetime, timedelta, tzinfo

import pytest

from jobs.storage.catalog import JOB_ID
from jobs.submission.accept import new_job_id


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

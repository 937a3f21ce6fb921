"""Policies: what is decided of a due time, as a table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobs.schedules.policies import Standing, decide, jitter
from schemas.errors import SpecError
from schemas.schedule import ON_TIME_S, Outcome, Schedule, parse_schedule

DUE = datetime(2026, 11, 20, 2, 15, tzinfo=UTC)
STARTED, SKIPPED, MISSED, WAIT = Outcome.STARTED, Outcome.SKIPPED, Outcome.MISSED, None
LATE = ON_TIME_S + 1


def _schedule(**policies: Any) -> Schedule:
    return parse_schedule({"name": "n", "cron": "15 2 * * *", "spec": {}} | policies)


@pytest.mark.parametrize(
    ("policies", "late_s", "later", "open_runs", "outcome"),
    [
        ({}, -1, 0, 0, WAIT),  # its jitter
        ({}, 0, 0, 0, STARTED),
        ({}, ON_TIME_S, 0, 0, STARTED),
        ({"catch_up": "none"}, ON_TIME_S, 0, 0, STARTED),
        ({"catch_up": "none"}, LATE, 0, 0, MISSED),
        ({"catch_up": "latest"}, LATE, 0, 0, STARTED),
        ({"catch_up": "latest"}, LATE, 1, 0, MISSED),
        ({"catch_up": "all", "catch_up_limit": 3}, LATE, 2, 0, STARTED),
        ({"catch_up": "all", "catch_up_limit": 3}, LATE, 3, 0, MISSED),
        # What is caught up runs one after the other, whatever `overlap` says.
        ({"catch_up": "all", "overlap": "skip"}, LATE, 1, 1, WAIT),
        ({"catch_up": "latest", "overlap": "cancel_older"}, LATE, 0, 1, WAIT),
        ({"overlap": "skip"}, 0, 0, 1, SKIPPED),
        ({"overlap": "queue"}, 0, 0, 1, WAIT),
        ({"overlap": "queue"}, LATE, 0, 1, WAIT),  # it waits, and isn't missed
        ({"overlap": "queue", "catch_up_limit": 2}, LATE, 2, 1, SKIPPED),
        ({"overlap": "cancel_older"}, 0, 0, 2, STARTED),
        ({"start_deadline_s": 60}, 60, 0, 0, STARTED),
        ({"start_deadline_s": 60}, 61, 0, 0, MISSED),
        ({"start_deadline_s": 60, "overlap": "queue"}, 61, 0, 1, MISSED),
    ],
)
def test_a_due_time_is_decided(
    policies: dict[str, Any], late_s: float, later: int, open_runs: int, outcome: Outcome | None
) -> None:
    open_ones = tuple(f"older-{number}" for number in range(open_runs))
    found = decide(_schedule(**policies), Standing(DUE + timedelta(seconds=late_s), DUE, later, open_ones))
    assert found.outcome is outcome
    assert found.cancels == (open_ones if outcome is STARTED else ())
    assert (found.why != "") == (outcome is not STARTED or (late_s > ON_TIME_S and not open_runs))


def test_a_run_that_waited_in_the_queue_was_not_missed() -> None:
    freed = DUE + timedelta(hours=5)
    seen = Standing(freed + timedelta(seconds=30), DUE, 0, (), freed)
    assert decide(_schedule(overlap="queue", catch_up="none"), seen).outcome is STARTED
    assert decide(_schedule(overlap="skip", catch_up="none"), seen).outcome is MISSED
    late = Standing(freed + timedelta(seconds=LATE), DUE, 0, (), freed)
    assert decide(_schedule(overlap="queue", catch_up="none"), late).outcome is MISSED


def test_jitter_is_the_same_everywhere_and_within_its_bound() -> None:
    schedule = _schedule(jitter_s=600)
    found = {jitter(schedule, bytes([number]) * 32) for number in range(256)}
    assert len(found) > 100
    assert min(found) >= timedelta(0)
    assert max(found) <= timedelta(seconds=600)
    assert jitter(schedule, b"\xff" * 32) == jitter(schedule, b"\xff" * 32) == timedelta(seconds=600)
    assert jitter(_schedule(), b"\xff" * 32) == timedelta(0)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"name": "Nightly Reviews"}, "name", "pattern"),
        ({"name": "../../x"}, "name", "pattern"),
        ({"corn": "15 3 * * *"}, "corn", "did you mean 'cron'"),
        ({"overlap": "both"}, "overlap", "skip"),
        ({"catch_up_limit": 101}, "catch_up_limit", "100"),
        ({"retry_failed": "2"}, "retry_failed", "integer"),
        ({"notify": "ftp://x"}, "notify", "http"),
        ({"spec": "job.yaml"}, "spec", "dictionary"),
        ({"cron": None}, "cron", "string"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_said_with_its_field(change: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        _schedule(**change)
    [problem] = caught.value.problems
    assert problem.field == field
    assert said in problem.message

"""What becomes of a failed attempt, as a table."""

import pytest

from schemas.errors import (
    AccessDenied,
    InputChanged,
    JobEnded,
    LeaseLost,
    NotFound,
    Permanent,
    ServiceUnavailable,
    ShuttingDown,
    Transient,
    Unreadable,
)
from schemas.manifest import ErrorInfo
from workers.execution.retry_policy import CAP_S, NEVER, FailJob, FailShard, PutBack, decide


def passing(code: str, kind: str, delay_s: float) -> FailShard:
    """Twelve of these give up the shard, if more than one machine sees them."""
    return FailShard(ErrorInfo(code=code, message="x"), kind, 12, delay_s)


@pytest.mark.parametrize(
    ("error", "tries", "expected"),
    [
        (ShuttingDown("x"), 0, PutBack()),
        (LeaseLost("x"), 99, PutBack()),
        (JobEnded("x"), 0, PutBack()),
        (Transient("x"), 0, passing("transient", "Transient", 0.5)),
        (Transient("x"), 3, passing("transient", "Transient", 4.0)),
        (Transient("x"), 10, passing("transient", "Transient", CAP_S / 2)),
        (
            ServiceUnavailable("x"),
            1,
            FailShard(ErrorInfo(code="service_unavailable", message="x"), "ServiceUnavailable", 12, 1.0),
        ),
        (Transient("x"), 11, "shard"),
        (Unreadable("x"), 0, "shard"),
        (InputChanged("x"), 0, "shard"),
        (Permanent("x"), 0, "job"),
        (NotFound("x"), 0, "job"),
        (AccessDenied("x"), 0, FailJob(ErrorInfo(code="access_denied", message="x"), NEVER, 0.5)),
        (AccessDenied("x"), 11, "job"),
        (ValueError("x"), 0, FailShard(ErrorInfo(code="internal", message="ValueError: x"), "ValueError", 3, 0.5)),
        (ValueError("x"), 2, "shard"),
    ],
)
def test_decisions(error: Exception, tries: int, expected: object) -> None:
    decision = decide(error, tries, max_tries=12, jitter=0.0)
    if expected == "shard":
        assert isinstance(decision, FailShard)
    elif expected == "job":
        assert isinstance(decision, FailJob)
    else:
        assert decision == expected


def test_jitter_spreads_a_delay_over_its_upper_half() -> None:
    delays = [decide(Transient("x"), 4, 12, jitter) for jitter in (0.0, 0.5, 0.999)]
    assert [round(d.delay_s, 1) for d in delays if isinstance(d, FailShard)] == [8.0, 12.0, 16.0]


def test_an_unforeseen_error_keeps_its_class_in_the_message() -> None:
    decision = decide(ZeroDivisionError("by zero"), 5, 12, 0)
    assert isinstance(decision, FailShard)
    assert decision.error.code == "internal"
    assert decision.error.message == "ZeroDivisionError: by zero"

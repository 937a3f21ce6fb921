"""What happens to a shard whose attempt failed? A pure function of the error and the number of tries decides."""

import random
from dataclasses import dataclass

from schemas.errors import (
    AccessDenied,
    AlreadyExists,
    Interrupted,
    NotFound,
    Permanent,
    ServiceUnavailable,
    SpecError,
    Transient,
    Unreadable,
)
from schemas.manifest import ErrorInfo

BASE_S = 1.0
CAP_S = 300.0


@dataclass(frozen=True)
class PutBack:
    """Release the shard again after `delay_s` seconds. 0 means at once, and doesn't count as a try."""

    delay_s: float


@dataclass(frozen=True)
class FailShard:
    """Give up on the shard. The job goes on, and ends as failed."""

    error: ErrorInfo


@dataclass(frozen=True)
class FailJob:
    """Stop the job."""

    error: ErrorInfo


Decision = PutBack | FailShard | FailJob


def decide(error: Exception, tries: int, max_tries: int, jitter: float) -> Decision:
    """Decide what to do after `error`, given `tries` earlier transient faults of this shard.

    The delay is an exponential backoff with full jitter over its upper half; `jitter`, in [0, 1), spreads retries:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    if isinstance(error, Interrupted):
        return PutBack(0)
    # Credentials expire and are renewed, so refused access is final only if it stays refused.
    if isinstance(error, AccessDenied) and tries + 1 < max_tries:
        return PutBack(_backoff(tries, jitter))
    if isinstance(error, Permanent | NotFound | AccessDenied | AlreadyExists | SpecError):
        return FailJob(ErrorInfo(code=error.code, message=error.message))
    if isinstance(error, Unreadable):
        return FailShard(ErrorInfo(code=error.code, message=error.message))
    known = isinstance(error, Transient | ServiceUnavailable)
    info = ErrorInfo(
        code=error.code if isinstance(error, Transient | ServiceUnavailable) else "internal",
        message=str(error) if known else f"{type(error).__name__}: {error}",
    )
    # An unforeseen error (a full disk, a defect) gets three tries, and never fails the whole job.
    if tries + 1 >= (max_tries if known else 3):
        return FailShard(info)
    return PutBack(_backoff(tries, jitter))


def _backoff(tries: int, jitter: float) -> float:
    return min(CAP_S, BASE_S * 2.0**tries) * (0.5 + 0.5 * jitter)


def jitter() -> float:
    return random.random()

"""What happens to a shard whose attempt failed? A pure function of the error and the number of tries decides."""

import random
from dataclasses import dataclass

from schemas.errors import (
    AccessDenied,
    AlreadyExists,
    Interrupted,
    NightshiftError,
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


#: Faults that count as evidence, and are never enough of it.
NEVER = 1_000_000_000


@dataclass(frozen=True)
class PutBack:
    """Release the shard again at once. It is no fault and no try."""


@dataclass(frozen=True)
class FailShard:
    """Give up on the shard, if a fault of this kind happened so many times; the job goes on, and ends as failed.

    Unless that is `certain`, another machine must have seen it fail so too, if there is one. Until then the shard is
    released again after `delay_s` seconds.
    """

    error: ErrorInfo
    kind: str
    times: int
    delay_s: float
    certain: bool = False


@dataclass(frozen=True)
class FailJob:
    """Stop the job, if so many faults were seen since it last got on, and by another machine too if there is one.

    Until then the shard is released again after `delay_s` seconds.
    """

    error: ErrorInfo
    times: int
    delay_s: float


Decision = PutBack | FailShard | FailJob


def decide(error: Exception, tries: int, max_tries: int, jitter: float) -> Decision:
    """Decide what to do after `error`, given `tries` earlier faults of this shard.

    The delay is an exponential backoff with full jitter over its upper half; `jitter`, in [0, 1), spreads retries:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    if isinstance(error, Interrupted):
        return PutBack()
    delay = _backoff(tries, jitter)
    # Credentials expire and are renewed, so refused access is final only if it stays refused.
    if isinstance(error, AccessDenied):
        return FailJob(_info(error), 1 if tries + 1 >= max_tries else NEVER, delay)
    if isinstance(error, Permanent | NotFound | AlreadyExists | SpecError):
        return FailJob(_info(error), 1, delay)
    kind = type(error).__name__
    if isinstance(error, Unreadable):
        return FailShard(_info(error), kind, 1, 0.0, certain=True)
    # An unforeseen error (a full disk, a defect) gets three tries, and never fails the whole job.
    times = max_tries if isinstance(error, Transient | ServiceUnavailable) else 3
    return FailShard(_info(error), kind, times, delay)


def _info(error: Exception) -> ErrorInfo:
    if isinstance(error, NightshiftError):
        return ErrorInfo(code=error.code, message=error.message)
    return ErrorInfo(code="internal", message=f"{type(error).__name__}: {error}")


def _backoff(tries: int, jitter: float) -> float:
    return min(CAP_S, BASE_S * 2.0 ** min(tries, 30)) * (0.5 + 0.5 * jitter)


def jitter() -> float:
    return random.random()

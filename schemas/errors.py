"""The one error tree. Code decides by class, never by a message's text.

    NightshiftError
    ├── SpecError              what was asked for is wrong; nothing was queued
    ├── NotFound, AlreadyExists, AccessDenied    what a store answered about one object
    │   └── LinkRefused        … because a symbolic link leads to it, out of what may be used
    ├── ServiceUnavailable     Redis can't be reached from here
    ├── StateLost              Redis has forgotten a job that has not ended
    ├── Unauthenticated, Forbidden, TooManyRequests    what the API answers about who asks
    ├── NotFinished            the job has no manifest yet: its results aren't final
    ├── LeftToOthers           the shards that wait are to be run by other machines
    ├── Permanent              fails the job: trying again would fail again
    │   └── Damaged            … because an object of the job, or of the catalog, is gone or can't be read
    ├── Transient              the shard is tried again later; not counted against it
    ├── Unreadable             a slice of the input can't be read: its shard fails, the job goes on
    │   └── InputChanged       … because the object is not the one that was planned
    ├── RecordError            one record can't be done: its `error` column says why
    └── Interrupted            the attempt ends without an outcome; its shard goes back
        ├── LeaseLost, ShuttingDown, JobEnded

Foreign errors (botocore, pyarrow, redis, torch, OSError) are translated once, where they enter. A message quotes what
was wrong, and ends in logs, manifests and answers: what looks like a secret in it is masked as it is made.
"""

from dataclasses import dataclass

from schemas.redaction import masked


class NightshiftError(Exception):
    """Base of every error that Nightshift raises on purpose."""

    code = "error"

    def __init__(self, message: str) -> None:
        self.message = masked(message)
        super().__init__(self.message)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a job spec: the dotted path of the field, and what to do about it."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", masked(self.message))


class SpecError(NightshiftError):
    """A job spec that can't be accepted, with every problem found in it."""

    code = "invalid_spec"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in problems))
        self.problems = problems

    @classmethod
    def of(cls, field: str, message: str) -> "SpecError":
        return cls([Problem(field, message)])


class NotFound(NightshiftError):
    code = "not_found"


class AlreadyExists(NightshiftError):
    code = "already_exists"


class AccessDenied(NightshiftError):
    code = "access_denied"


class LinkRefused(AccessDenied):
    pass


class ServiceUnavailable(NightshiftError):
    code = "service_unavailable"


class StateLost(NightshiftError):
    code = "state_lost"


class Unauthenticated(NightshiftError):
    code = "unauthenticated"


class Forbidden(NightshiftError):
    code = "forbidden"


class TooManyRequests(NightshiftError):
    """`retry_after_s` is when to ask again, in seconds from now."""

    code = "too_many_requests"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFinished(NightshiftError):
    code = "not_finished"


class LeftToOthers(NightshiftError):
    code = "left_to_others"


class Permanent(NightshiftError):
    code = "permanent"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class Damaged(Permanent):
    code = "damaged"


class Transient(NightshiftError):
    code = "transient"


class Unreadable(NightshiftError):
    code = "unreadable"


class InputChanged(Unreadable):
    code = "input_changed"


class RecordError(NightshiftError):
    """One record can't be done. `code` is stable and documented with the task; `message` is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Interrupted(NightshiftError):
    code = "interrupted"


class LeaseLost(Interrupted):
    code = "lease_lost"


class ShuttingDown(Interrupted):
    code = "shutting_down"


class JobEnded(Interrupted):
    code = "job_ended"

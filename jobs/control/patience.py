"""Which faults of the control process are waited out, and for how long?"""

import time

from jobs.state import State
from schemas.errors import AccessDenied, LinkRefused, NightshiftError, Permanent, SpecError, Transient

#: Seconds at most between two faults that count.
_LONGEST_S = 300.0


def may_pass(error: Exception) -> bool:
    """Return whether another try may go well, here or on another host.

    So it is while a store is away or refuses these credentials, and with faults that no code foresaw, such as a full
    disk. What is wrong with the input or the spec stays wrong, a link in it included.
    """
    if isinstance(error, SpecError | Permanent) and isinstance(error.__cause__, NightshiftError):
        return may_pass(error.__cause__)
    if isinstance(error, LinkRefused):
        return False
    return isinstance(error, Transient | AccessDenied) or not isinstance(error, NightshiftError)


def message_of(error: Exception) -> str:
    """Return an error as people read it: one that no code foresaw with its class."""
    return error.message if isinstance(error, NightshiftError) else f"{type(error).__name__}: {error}"


def code_of(error: Exception) -> str:
    return error.code if isinstance(error, NightshiftError) else "internal"


class Patience:
    """Counts the faults of a job in planning, or in ending. The sweep asks for both again and again."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name

    def rests(self, job: str, what: str) -> bool:
        """Return whether a fault was counted so lately that another try is too early."""
        return self._state.locks.is_held(f"{what}_fault:{job}")

    def tries(self, job: str, what: str, most: int) -> int | None:
        """Count a fault. Return None while it is to be waited out, and how many there were once they are `most`.

        A fault counts only after twice the time of the last one, up to five minutes. So a store that is away costs a
        job no more here than in a shard.
        """
        counting, owner = f"{what}_fault:{job}", f"{self._name}-{time.monotonic()}"
        if not self._state.locks.take(counting, owner, 1):
            return None
        tries = self._state.jobs.tried(job, what)
        self._state.locks.take(counting, owner, min(_LONGEST_S, 2.0**tries))
        return tries if tries >= most else None

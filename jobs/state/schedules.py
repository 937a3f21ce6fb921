"""A hint in Redis that schedules have changed, so that supervisors needn't list the catalog at each round.

If it is lost, they list the catalog.
"""

import secrets

from jobs.state.connection import Connection

_CHANGES = "nightshift:schedules"


class ScheduleChanges:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection.redis

    def note(self) -> None:
        """Note that a schedule, or a run of one, was changed by something else than a supervisor."""
        self._redis.set(_CHANGES, secrets.token_hex(8))

    def seen(self) -> str | None:
        """Return a text that differs whenever something was noted since; None if nothing was, or Redis was emptied."""
        found: str | None = self._redis.get(_CHANGES)
        return found

"""The epoch: how a Redis that may have forgotten jobs is recognised.

The epoch of a whole Redis is the run id of the server process that every unfinished job was entered into. A Redis that
was emptied has no epoch. One that was restarted from a snapshot, or was a replica, has the run id of another process.
"""

import secrets
from dataclasses import dataclass

from redis.exceptions import NoPermissionError

from jobs.state.connection import Connection


@dataclass(frozen=True)
class Rebuilding:
    """A rebuilding under way. Its end counts only for the server process that it began with."""

    token: str
    run: str


class Epoch:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.redis

    def is_whole(self) -> bool:
        """Return whether every unfinished job was entered into this Redis since it was started."""
        found: str | None = self._redis.get("nightshift:epoch")
        return found is not None and found == self._run_id()

    def begin(self) -> Rebuilding:
        begun = Rebuilding(secrets.token_hex(8), self._run_id())
        self._redis.set("nightshift:rebuilding", begun.token)
        return begun

    def end(self, begun: Rebuilding) -> bool:
        """Note that Redis is whole. Return False if it was emptied meanwhile, or another rebuilding began."""
        return bool(self._connection.run("epoch_set", token=begun.token, run_id=begun.run))

    def _run_id(self) -> str:
        try:
            return str(self._redis.info("server").get("run_id", ""))
        except NoPermissionError:  # then only an emptied Redis is recognised
            return ""

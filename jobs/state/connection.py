"""The connection to Redis: its errors translated, its scripts loaded and called by named arguments."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from jobs.settings import Settings
from schemas.errors import ServiceUnavailable

#: Replies of a server that is full, a replica for now, loading, or busy with a script: the next call may go well.
_PASSING = ("OOM", "READONLY", "MISCONF", "BUSY", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")
_PASSING_CLASSES = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ExecAbortError,  # the reply to one of a transaction's commands
)


def _passes(error: redis.ResponseError) -> bool:
    """Return whether a reply is about the server's state. A script's error begins with it, or has it after a dash."""
    words = re.findall(r"(?:^|-|: )([A-Z]{3,}) ", str(error))
    return isinstance(error, _PASSING_CLASSES) or any(word in _PASSING for word in words)


@contextmanager
def _translated(pool: Any) -> Iterator[None]:
    where = pool.connection_kwargs
    address = where.get("path") or f"{where.get('host')}:{where.get('port')}"
    try:
        yield
    except redis.AuthenticationError:
        raise ServiceUnavailable(f"Redis at {address} refuses the password in NIGHTSHIFT_REDIS_URL") from None
    except redis.ResponseError as error:
        if not _passes(error):
            raise
        raise ServiceUnavailable(f"Redis at {address} can't do this now: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise ServiceUnavailable(
            f"Redis at {address} can't be reached: {str(error).rstrip('.')}. Start it, correct NIGHTSHIFT_REDIS_URL, "
            "or unset that to run everything on this machine"
        ) from error


class _Pipeline(redis.client.Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _translated(self.connection_pool):
            return super().execute(raise_on_error)


class _Redis(redis.Redis):
    """A client that raises ServiceUnavailable if the server can't be reached."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with _translated(self.connection_pool):
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> _Pipeline:
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def job_key(job: str, part: str = "") -> str:
    """Return the key of a job's hash, or of a part of the job; `lua/prelude.lua` lists the parts."""
    return f"nightshift:job:{job}" + (f":{part}" if part else "")


@dataclass(frozen=True)
class Script:
    """A Lua script: `prelude.lua`, the libraries that its line `-- needs:` names, then the script itself.

    Its line `local a, b = unpack(ARGV)` names its arguments. A line `local c = unpack(KEYS)` names the keys that it is
    given; it makes all others from the prefix `nightshift:`.
    """

    name: str

    @cached_property
    def body(self) -> str:
        return _read(self.name)

    @cached_property
    def libraries(self) -> list[str]:
        needed = re.search(r"^-- needs: (.+)$", self.body, re.MULTILINE)
        return needed[1].split(", ") if needed else []

    @cached_property
    def source(self) -> str:
        return "".join(map(_read, ["prelude", *self.libraries])) + self.body

    @cached_property
    def keys(self) -> list[str]:
        """The names of the keys that the script is given, in order."""
        return self._slots("KEYS")

    @cached_property
    def arguments(self) -> list[str]:
        """The names of its arguments, in order."""
        return self._slots("ARGV")

    def _slots(self, table: str) -> list[str]:
        bound = re.search(rf"^local (.+) = unpack\({table}\)$", self.body, re.MULTILINE)
        return bound[1].split(", ") if bound else []

    def ordered(self, named: dict[str, str | float]) -> tuple[list[str | float], list[str | float]]:
        """Return the keys and the arguments in the script's order. Raise TypeError unless they are those it names."""
        if {*self.keys, *self.arguments} != named.keys():
            wanted = ", ".join([*self.keys, *self.arguments])
            raise TypeError(f"{self.name}.lua takes {wanted}; given: {', '.join(named)}")
        return [named[name] for name in self.keys], [named[name] for name in self.arguments]


def _read(name: str) -> str:
    return (files("jobs.state") / "lua" / f"{name}.lua").read_text()


class Connection:
    """Redis, as the settings name it."""

    def __init__(self, settings: Settings) -> None:
        if settings.redis_url is None:
            raise ServiceUnavailable("no Redis is set up: set NIGHTSHIFT_REDIS_URL, such as redis://localhost:6379/0")
        self.redis: Any = _Redis.from_url(
            settings.redis_url.get_secret_value(),
            decode_responses=True,
            socket_timeout=10,
            socket_connect_timeout=5,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=1.0, base=0.1), 3),
        )
        self._scripts: dict[str, tuple[Script, Any]] = {}

    def run(self, name: str, **named: str | float) -> Any:
        """Run `lua/{name}.lua` with these keys and arguments; return its answer."""
        if name not in self._scripts:
            script = Script(name)
            self._scripts[name] = script, self.redis.register_script(script.source)
        script, registered = self._scripts[name]
        keys, arguments = script.ordered(named)
        return registered(keys=keys, args=arguments)

    def now(self) -> float:
        """Return the time by Redis's clock, in Unix seconds."""
        seconds, micros = self.redis.time()
        return float(seconds + micros / 1e6)

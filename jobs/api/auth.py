"""Who asks, and what may they do? A bearer token names the principal, and the tenant's rate limits the requests.

The routes apply the principal's scopes and prefixes; another tenant's job is a 404 there.
"""

import ipaddress
import time
from dataclasses import dataclass
from threading import Lock

from jobs.api.tokens import Scope, Tokens
from jobs.settings import Settings
from schemas.errors import Forbidden, SpecError, TooManyRequests, Unauthenticated

#: Seconds of its rate that a tenant may have asked for at once.
_BURST_S = 5


@dataclass(frozen=True)
class Principal:
    """Who asks. `tenant` owns the jobs that they submit; prefixes are as in `jobs.api.tokens.Token`.

    `token_id` is no secret: it says in a log which token it was; empty for the user of the machine itself.
    """

    tenant: str
    scopes: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_running_jobs: int | None
    token_id: str = ""
    max_priority: int | None = None

    def may(self, scope: str) -> bool:
        """Return whether the principal has the scope. An admin has every scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: str) -> None:
        """Raise Forbidden if the principal doesn't have the scope."""
        if not self.may(scope):
            raise Forbidden(f"this token has no scope {str(scope)!r}; it has: {', '.join(sorted(self.scopes))}")

    def sees(self, tenant: str) -> bool:
        """Return whether a tenant's jobs exist for this principal."""
        return tenant == self.tenant or Scope.ADMIN in self.scopes


#: The user of the machine itself, in the embedded mode. They may do all that the settings allow.
LOCAL = Principal("", frozenset(Scope), ("*",), ("*",), None)


class Authenticator:
    """Recognises who asks. `host` is the address that the server listens on.

    If the server is embedded and listens on loopback alone, a request from there needs no token. A proxy on the same
    machine doesn't change that, as long as the server takes the peer's address from the proxy's X-Forwarded-For.
    """

    def __init__(self, settings: Settings, tokens: Tokens, host: str) -> None:
        self._settings = settings
        self._tokens = tokens
        self._open = settings.redis_url is None and is_loopback(host)
        self._rates: dict[str, _Bucket] = {}
        self._lock = Lock()

    def check_start(self) -> None:
        """Raise SpecError if the server needs tokens and no token works: it would be of no use."""
        if not self._open and not self._tokens.any_works():
            raise SpecError.of(
                "NIGHTSHIFT_TOKENS_FILE",
                f"{str(self._tokens.file)!r} holds no token that works, and only an embedded server on loopback does "
                "without; make one: nightshift token new --tenant NAME --inputs s3://… --outputs s3://…",
            )

    def authenticate(self, authorization_header: str | None, peer: str) -> Principal:
        """Return who asks, by the Authorization header and the address that the request comes from.

        Raise Unauthenticated for a token that is missing, wrong, expired or revoked, TooManyRequests above its
        tenant's rate, ServiceUnavailable if the tokens can't be read.
        """
        if authorization_header is None:
            if self._open and is_loopback(peer):
                return LOCAL
            raise Unauthenticated("a token is needed: send the header 'Authorization: Bearer TOKEN'")
        kind, _, secret = authorization_header.strip().partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("the Authorization header is not of the form 'Bearer TOKEN'")
        token = self._tokens.find(secret.strip())
        if token is None:  # one message for all cases: it doesn't say whether a token once worked
            raise Unauthenticated("this token doesn't work: it is wrong, expired or revoked")
        self._count(token.tenant, token.requests_per_s or self._settings.requests_per_s)
        return Principal(
            token.tenant,
            frozenset(token.scopes),
            token.inputs,
            token.outputs,
            token.max_running_jobs,
            token.id,
            token.max_priority,
        )

    def _count(self, tenant: str, rate: float) -> None:
        with self._lock:
            bucket = self._rates.setdefault(tenant, _Bucket(rate))
            wait = bucket.take(rate, time.monotonic())
        if wait > 0:
            raise TooManyRequests(f"tenant {tenant!r} asks more than {rate:g} times a second", wait)


class _Bucket:
    """The requests that a tenant has left: filled at its rate, up to a burst."""

    def __init__(self, rate: float) -> None:
        self._left = max(1.0, rate * _BURST_S)
        self._at = time.monotonic()

    def take(self, rate: float, now: float) -> float:
        """Take one request. Return 0, or the seconds until there is one to take."""
        self._left = min(max(1.0, rate * _BURST_S), self._left + (now - self._at) * rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / rate
        self._left -= 1
        return 0.0


def is_loopback(host: str) -> bool:
    """Return whether the address is this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)

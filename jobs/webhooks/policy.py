"""Which URLs may get a webhook, and when is it sent again? See docs/operations.md."""

import random
from fnmatch import fnmatch
from urllib.parse import urlsplit

from jobs.settings import Settings
from jobs.webhooks.ssrf_safe_post import check_literal
from schemas.errors import Permanent, SpecError

_LONGEST_WAIT_S = 3600.0


def check_notify(url: str, settings: Settings) -> None:
    """Raise SpecError if a job may not ask for a webhook to this URL."""
    if settings.notify_secret is None:
        raise SpecError.of("notify", "no webhooks are sent here: NIGHTSHIFT_NOTIFY_SECRET, which signs them, isn't set")
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.username or parts.password:
        raise SpecError.of("notify", "a password in the URL would be kept with the job; rely on the signature instead")
    try:
        check_host(host, settings)
        check_literal(host, settings.notify_networks)
    except Permanent as error:
        raise SpecError.of("notify", error.message) from None


def check_host(host: str, settings: Settings) -> None:
    """Raise Permanent if the settings don't allow the host."""
    if not any(fnmatch(host, pattern.lower()) for pattern in settings.notify_hosts):
        allowed = ", ".join(settings.notify_hosts) or "none"
        raise Permanent(f"host {host!r} may get no webhooks here; allowed: {allowed}", code="host_not_allowed")


def next_try_s(tries: int, settings: Settings, jitter: float | None = None) -> float | None:
    """Return the seconds until a webhook that failed so many times is sent again; None to give it up."""
    if tries >= settings.notify_tries:
        return None
    wait = min(_LONGEST_WAIT_S, settings.notify_backoff_s * 3.0 ** (tries - 1))
    return wait * (random.uniform(0.8, 1.2) if jitter is None else jitter)

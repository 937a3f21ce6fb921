"""What a webhook says, how it is signed, which URLs may get one, and when it is sent again. See docs/operations.md.

It says that a job has ended, and how; never what is in the results. It is signed as Standard Webhooks has it
(https://www.standardwebhooks.com), so that a receiver checks it with a library of its language.
"""

import base64
import hmac
import json
import random
from datetime import UTC, datetime
from fnmatch import fnmatch
from urllib.parse import urlsplit

from standardwebhooks import Webhook

from jobs.settings import Settings
from jobs.webhooks.ssrf_safe_post import check_literal
from schemas import __version__
from schemas.errors import Permanent, SpecError
from schemas.job import AcceptedJob
from schemas.manifest import Manifest

_LONGEST_WAIT_S = 3600.0


def check_notify(url: str, settings: Settings) -> None:
    """Raises SpecError where a job may not ask for a webhook to this URL."""
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
    """Raises Permanent for a host that the settings don't allow."""
    if not any(fnmatch(host, pattern.lower()) for pattern in settings.notify_hosts):
        allowed = ", ".join(settings.notify_hosts) or "none"
        raise Permanent(f"host {host!r} may get no webhooks here; allowed: {allowed}", code="host_not_allowed")


def body(job: AcceptedJob, manifest: Manifest) -> bytes:
    """How the job ended, as JSON: the manifest without its lists."""
    said = manifest.model_dump(mode="json", exclude={"parts", "lost", "seconds", "versions"})
    said |= {"output": job.output, "labels": job.spec.labels}
    said |= {"parts": len(manifest.parts), "lost": len(manifest.lost)}
    return json.dumps({"event": "job.ended"} | said).encode()


def signing_key(secret: str, tenant: str) -> str:
    """Return the key of one tenant's webhooks, in the form that receivers' libraries take: `whsec_` and base64.

    Each tenant has its own, so that no receiver can forge what another one gets.
    """
    key = hmac.digest(secret.encode(), b"webhooks of " + tenant.encode(), "sha256")
    return "whsec_" + base64.b64encode(key).decode()


def headers(job: str, content: bytes, key: str, now: float) -> dict[str, str]:
    """Return the headers of a request. `webhook-id` is the job's id, the same each time the webhook is sent."""
    sent = datetime.fromtimestamp(int(now), UTC)
    return {
        "Content-Type": "application/json",
        "User-Agent": f"nightshift/{__version__}",
        "webhook-id": job,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": Webhook(key).sign(job, sent, content.decode()),
    }


def next_try_s(tries: int, settings: Settings, jitter: float | None = None) -> float | None:
    """Seconds until a webhook is sent again that failed so many times; None to give it up."""
    if tries >= settings.notify_tries:
        return None
    wait = min(_LONGEST_WAIT_S, settings.notify_backoff_s * 3.0 ** (tries - 1))
    return wait * (random.uniform(0.8, 1.2) if jitter is None else jitter)

"""What does a webhook say, and how is it signed? See docs/operations.md.

It says that a job has ended, and how; never what is in the results. It is signed by Standard Webhooks
(https://www.standardwebhooks.com), so that a receiver can check it with a library of its language.
"""

import base64
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from standardwebhooks import Webhook

from schemas import __version__
from schemas.job import AcceptedJob
from schemas.manifest import Manifest
from schemas.schedule import RunEnd, RunRecord


def body(job: AcceptedJob, manifest: Manifest) -> bytes:
    """Return how the job ended, as JSON: the manifest without its lists."""
    said = manifest.model_dump(mode="json", exclude={"parts", "lost", "seconds", "versions"})
    said |= {"output": job.output, "labels": job.spec.labels}
    said |= {"parts": len(manifest.parts), "lost": len(manifest.lost)}
    return json.dumps({"event": "job.ended"} | said).encode()


def run_body(record: RunRecord, end: RunEnd) -> bytes:
    """Return how a run of a schedule ended, as JSON. There may be no job of it."""
    said = {"event": "run.ended", "schedule": record.schedule, "run": record.run, "due": record.due.isoformat()}
    told: dict[str, Any] = said | end.model_dump(mode="json")
    return json.dumps(told | {"job": end.jobs[-1] if end.jobs else None}).encode()


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

"""What the integrations do alike: find or submit a job that bears a key of theirs, and say how it ended."""

from collections.abc import Mapping
from typing import Any

from nightshift import Client, Job

#: A code of a job that is complete, but for the commit to its table.
_TABLE_REFUSED = "table_refused"


def started(client: Client, spec: Mapping[str, Any], key: str) -> Job:
    """Return the job of this key, which is under way or has succeeded.

    A job that had ended otherwise, in an earlier try of the scheduler's, goes on: what has no answer runs as a retry of
    it; a commit that its table refused is tried again.
    """
    job = client.submit(spec, idempotency_key=key)
    if not job.ended or job.status == "succeeded":
        return job
    if job.data["error"] and job.data["error"]["code"] == _TABLE_REFUSED:
        return client.resume(job.id)
    return client.retry(job.id)


def summary(job: Job) -> dict[str, Any]:
    """Return what a scheduler keeps of a job."""
    return {
        "job": job.id,
        "status": job.status,
        "output": job.output,
        "records": job.records,
        "error_rows": job.error_rows,
        "table_version": (job.data["end"] or {}).get("table_version"),
        "error": job.error,
    }

"""How is a table's library kept from harming the control process? It runs in a process of its own, once a job.

A table's log or metadata may have been written by anyone who may write to its location: it may be made to end the
process that reads it, or to fill its memory. The libraries also have threads, which don't go with forks.
"""

import base64
import json
import subprocess
import sys
from typing import Any

import pyarrow as pa

from schemas.errors import AccessDenied, NightshiftError, NotFound, Permanent, Transient
from schemas.job import AcceptedJob

#: What a child's error is raised as.
KINDS: dict[str, type[NightshiftError]] = {kind.__name__: kind for kind in (AccessDenied, NotFound, Transient)}


class ChildLost(Exception):
    """The process that was to commit ended without an answer."""


def commit_apart(job: AcceptedJob, limit_s: float) -> str | None:
    """Return what `jobs.tables.commit.commit_job` returns, from a process that has so many seconds.

    Raise as that does; ChildLost if the process ended, which may have been before or after the commit.
    """
    answer = _asked({"job": job.model_dump_json()}, limit_s)
    return None if answer is None else str(answer)


def check_apart(job: AcceptedJob, columns: pa.Schema, limit_s: float) -> None:
    """Raise as `jobs.tables.commit.check_job` does, from a process that has so many seconds; or ChildLost."""
    schema = base64.b64encode(columns.serialize().to_pybytes()).decode()
    _asked({"job": job.model_dump_json(), "columns": schema}, limit_s)


def _asked(request: dict[str, str], limit_s: float) -> Any:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobs.tables"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildLost(f"the commit to the table took more than {limit_s:.0f} s") from None
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise ChildLost(f"the process that commits to the table ended ({done.returncode}): {last or 'without a word'}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        error = answer["error"]
        kind = KINDS.get(error["kind"])
        raise Permanent(error["message"], code=error["code"]) if kind is None else kind(error["message"])
    return answer["version"]

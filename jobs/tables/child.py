"""The program of `jobs.tables.apart`: it reads one request from standard input, and answers on standard output."""

import base64
import json
import os
import resource
import sys
from typing import Any

import pyarrow as pa

from jobs.storage import Storage
from jobs.tables.apart import KINDS
from jobs.tables.commit import check_job, commit_job
from schemas.errors import NightshiftError
from schemas.job import STORED, AcceptedJob

#: Bytes that this process may have.
_MEMORY = 8 << 30


def main() -> None:
    """Answer one request: the version that a job became, or the error that kept it from it."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, hard))
    request = json.load(sys.stdin)
    print_to = sys.stdout
    sys.stdout = sys.stderr  # a library's own words are no part of the answer
    print_to.write(json.dumps(_answer(request)))
    print_to.flush()
    sys.stderr.flush()
    os._exit(0)  # the libraries' threads may end the process with an error while Python shuts down


def _answer(request: dict[str, str]) -> dict[str, Any]:
    job = AcceptedJob.model_validate_json(request["job"], extra="allow", context=STORED)
    try:
        if "columns" in request:
            columns = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(request["columns"])))
            check_job(job, columns)
            return {"version": None}
        return {"version": commit_job(job, Storage())}
    except NightshiftError as error:
        kind = next((name for name, one in KINDS.items() if isinstance(error, one)), "Permanent")
        return {"error": {"kind": kind, "code": error.code, "message": error.message}}

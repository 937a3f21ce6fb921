"""The OpenAPI document against a linter, and the running server against the document: schemathesis makes up requests,
right and wrong ones, for jobs that are there and some that are not, and looks for a 500, an undocumented answer, a
wrong schema, a way round the token."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from openapi_spec_validator import validate

from jobs.settings import Settings
from tests.acceptance.api import new_token, secret_of, server
from tests.acceptance.cli import environment, events
from tests.acceptance.contract_jobs import JobsOfEveryState, tended
from tests.integration.harness import House

HOOKS = Path(__file__).with_name("contract_hooks.py")
#: Left out: a spec that fits the schema may name a bucket that doesn't exist, and is refused then.
LEFT_OUT = "positive_data_acceptance"
#: What must have been answered with success at least once, for a job that is there.
REACHED = {"POST /v1/jobs", "POST /v1/jobs:plan", "GET /v1/jobs/ID"}
REACHED |= {f"GET /v1/jobs/ID/{part}" for part in ("events", "shards", "errors", "results", "manifest")}
REACHED |= {"POST /v1/schedules", "GET /v1/schedules", "GET /v1/schedules/contract/next"}
REACHED |= {f"POST /v1/jobs/ID:{action}" for action in ("cancel", "pause", "continue", "resume", "retry")}


def _schemathesis(settings: Settings, classifier: Path, tmp_path: Path, *options: str) -> None:
    """Run it on a server with a token of every scope."""
    jobs = JobsOfEveryState(House(settings), classifier, tmp_path)
    allowed = ["--inputs", "*", "--outputs", f"{jobs.outputs}/"]
    headers = new_token("fuzz", *allowed, "--scopes", "submit,read,admin", "--requests-per-s", "100000")
    log = tmp_path / "api.log"
    with server(log, NIGHTSHIFT_ALLOW_FILES="true") as url, tended(jobs):
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json", "--no-color"]
        command += ["--header", f"Authorization: {headers['Authorization']}", "--exclude-checks", LEFT_OUT]
        command += ["--continue-on-failure", "--suppress-health-check", "all", *options]
        own = {"SCHEMATHESIS_HOOKS": str(HOOKS), "CONTRACT_JOBS": str(jobs.file)}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=1500, cwd=tmp_path, env=environment(**own), check=False
        )
    assert secret_of(headers["Authorization"]) not in log.read_text(), "a log has no token"
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert _succeeded(log) >= REACHED, REACHED - _succeeded(log)


def _succeeded(log: Path) -> set[str]:
    """Method and path of the requests that were answered with success."""
    asked = [one for one in events(log, "request") if one["status"].startswith("2")]
    return {f"{one['method']} {re.sub(r'[0-9]{8}-[0-9]{6}-[0-9a-z]{6}', 'ID', one['path'])}" for one in asked}


def test_the_openapi_document_is_right(settings: Settings, tmp_path: Path) -> None:
    new_token("docs", "--scopes", "read")
    with server(tmp_path / "api.log") as url:
        document = httpx2.get(f"{url}/openapi.json").json()
    validate(document)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert "HTTPValidationError" not in str(operation), path


def test_the_server_keeps_to_its_document(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"]
    _schemathesis(settings, classifier, tmp_path, *options)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_server_keeps_to_its_document_for_long(settings: Settings, classifier: Path, tmp_path: Path) -> None:
    _schemathesis(settings, classifier, tmp_path, "--max-examples", "100", "--max-time", "1200")

"""The OpenAPI document against a linter, and the running server against the document: schemathesis makes up requests,
right and wrong ones, and looks for a 500, an undocumented answer, a wrong schema, a way round the token."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate

from jobs.settings import Settings
from tests.acceptance.api import new_token, server
from tests.acceptance.cli import environment

#: Left out: a spec that fits the schema may name a bucket that doesn't exist, and is refused then.
LEFT_OUT = "positive_data_acceptance"


def _schemathesis(settings: Settings, tmp_path: Path, *options: str) -> str:
    """What it says of a server with a token of every scope."""
    everything = ["--inputs", "*", "--outputs", "*", "--scopes", "submit,read,admin", "--requests-per-s", "100000"]
    headers = new_token("fuzz", *everything)
    log = tmp_path / "api.log"
    with server(log, NIGHTSHIFT_ALLOW_FILES="true") as url:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json", "--no-color"]
        command += ["--header", f"Authorization: {headers['Authorization']}", "--exclude-checks", LEFT_OUT]
        command += ["--continue-on-failure", "--suppress-health-check", "all", *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=1500, cwd=tmp_path, env=environment(), check=False
        )
    assert headers["Authorization"].rpartition("_")[2] not in log.read_text(), "a log has no token"
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_the_openapi_document_is_right(settings: Settings, tmp_path: Path) -> None:
    new_token("docs", "--scopes", "read")
    with server(tmp_path / "api.log") as url:
        document = httpx.get(f"{url}/openapi.json").json()
    validate(document)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert "HTTPValidationError" not in str(operation), path


def test_the_server_keeps_to_its_document(settings: Settings, tmp_path: Path) -> None:
    options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--max-time", "20", "--seed", "1"]
    _schemathesis(settings, tmp_path, *options)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_server_keeps_to_its_document_for_long(settings: Settings, tmp_path: Path) -> None:
    _schemathesis(settings, tmp_path, "--max-examples", "100", "--max-time", "1200")

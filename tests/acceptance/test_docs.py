"""What README and docs/api.md tell people to type, typed: in order, in one shell, in a fresh folder.

As it is written, but for ports, and the address that a server listens on.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.acceptance.cli import environment
from tests.acceptance.test_api import upload
from tests.checkpoints import make_classifier
from tests.servers import free_ports, redis_at, s3_client
from tests.texts import sentences

ROOT = Path(__file__).parents[2]
HUB = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"


def blocks(file: str, *languages: str, section: str = "") -> list[tuple[str, str]]:
    """The code blocks in these languages, each with its language; of the section with this heading alone."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if section:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def as_shell(language: str, code: str) -> str:
    return f"python3 <<'END_OF_PYTHON'\n{code}END_OF_PYTHON\n" if language == "python" else code


def typed(code: list[tuple[str, str]], folder: Path, instead: dict[str, str], **env: str) -> tuple[int, str]:
    """The exit code of a shell that these blocks are typed into, and what it printed. What it started ends with it.

    `instead` are ports and addresses, as they are written and as they are here.
    """
    commands = "".join(as_shell(language, text) for language, text in code)
    for written, meant in instead.items():
        assert written in commands
        commands = commands.replace(written, meant)
    script = f"set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{commands}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder.parent / "shell.log").open("ab") as log:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=folder, env=environment(PATH=path, **env), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        said, _ = shell.communicate(timeout=240)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGTERM)
            shell.communicate(timeout=60)
    return shell.returncode, said


def put_in_hub_cache(model: Path, name: str, home: Path) -> None:
    """The folder, as if it had been fetched from the hub."""
    place = home / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    shutil.copytree(model, place / "snapshots" / ("a" * 40))


def put_table(endpoint: str, bucket: str, key: str, column: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({column: sentences(50)}), buffer)
    s3_client(endpoint).put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())


def rows_at(endpoint: str, prefix: str) -> int:
    """Rows of a job's parts in the bucket of outputs."""
    client = s3_client(endpoint)
    parts = client.list_objects_v2(Bucket="annotated", Prefix=f"{prefix}data/part-")["Contents"]
    read = (client.get_object(Bucket="annotated", Key=part["Key"])["Body"].read() for part in parts)
    return sum(pq.read_metadata(io.BytesIO(data)).num_rows for data in read)


def test_a_deployment_as_the_pages_have_it(s3: str, s3_endpoint: str, tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model", "distilbert")
    put_in_hub_cache(model, HUB, tmp_path / "hub")
    for bucket in ("raw", "annotated"):
        s3_client(s3_endpoint).create_bucket(Bucket=bucket)
    put_table(s3_endpoint, "raw", "reviews/2026-11-20/a.parquet", "review_body")
    put_table(s3_endpoint, "raw", "search/reviews.parquet", "review")
    upload(s3_endpoint, model, "s3://raw/search/models/sentiment")
    for name in ("place", "redis"):
        (tmp_path / name).mkdir()
    ((_, job),) = blocks("README.md", "yaml", section="Your own data")
    (tmp_path / "place" / "job.yaml").write_text(job)
    code = blocks("README.md", "sh", section="A deployment") + blocks("docs/api.md", "sh", "python")[1:]
    assert [language for language, _ in code] == ["sh", "sh", "sh", "python"]
    with redis_at(tmp_path / "redis") as url:
        instead = {"8000": str(free_ports(1)[0]), "redis://localhost:6379/0": url, "0.0.0.0": "127.0.0.1"}
        status, said = typed(code, tmp_path / "place", instead, HF_HOME=str(tmp_path / "hub"))
    assert status == 0, said + (tmp_path / "shell.log").read_text()
    for part in (
        "succeeded: 50 records",
        '"status":"ready","redis":"up"',
        "event: end",
        '"next":"0.2"',
        "50 ['review', 'prediction', 'error', 'source_uri', 'source_row']",
    ):
        assert part in said, said
    for prefix in ("reviews/2026-11-20/", "search/reviews/", "search/reviews-again/"):
        assert rows_at(s3_endpoint, prefix) == 50, prefix


@pytest.mark.slow
def test_a_server_for_its_user_alone_as_the_page_has_it(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    status, said = typed(blocks("docs/api.md", "sh")[:1], tmp_path / "place", {"8000": str(free_ports(1)[0])})
    assert (status, '"id":"token-classification"' in said) == (0, True), said

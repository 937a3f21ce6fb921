"""The search for secrets finds what is planted: in every way of writing it, in every kind of place."""

import base64
import gzip
import io
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from tests.acceptance.cli import environment
from tests.acceptance.leaks import Search, forms
from tests.acceptance.secret_places import (
    Asked,
    all_of_redis,
    arguments_of_processes,
    commands_of_redis,
    other_side,
)
from tests.servers import redis_at, running, wait_for

PLANTED = "s3/Secret+Key/=" + "z" * 20


def planted(secret: str) -> list[bytes]:
    """A secret in every way of writing it, in the middle of something else."""
    ways = [b"x=" + way + b"&y" for way in sorted(forms(secret))]
    ways += [base64.b64encode(b"." * before + secret.encode() + b":pw") for before in range(6)]
    return [*ways, f"http://h/?a={quote(secret, safe='')}".encode()]


def found(content: bytes | str) -> set[str]:
    search = Search({"it": PLANTED})
    search.add("here", content)
    return {leak.secret for leak in search.leaks}


@pytest.mark.parametrize("text", planted(PLANTED), ids=bytes.decode)
def test_the_search_finds_every_way_of_writing_it(text: bytes) -> None:
    line = text.decode()
    assert found(text) == {"it"}
    assert found(gzip.compress(text)) == {"it"}
    for table in (
        pa.table({"a": ["b" * 100, line] * 50}),
        pa.table({"a": [{"error": {"message": line}}]}),
        pa.table({"a": [text]}),
        pa.table({"a": [1]}).replace_schema_metadata({"note": line}),
    ):
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        assert found(buffer.getvalue()) == {"it"}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        assert found(sink.getvalue().to_pybytes()) == {"it"}


def test_the_search_finds_it_in_every_place(tmp_path: Path, classifier: Path) -> None:
    with redis_at(tmp_path, password=PLANTED + "&") as url, commands_of_redis(url, tmp_path / "commands.txt"):
        assert found(all_of_redis(url)) == set()
        client: Any
        with redis.Redis.from_url(url) as client:
            client.ping()
            wait_for("a command", lambda: b"PING" in (tmp_path / "commands.txt").read_bytes().upper())
            assert found((tmp_path / "commands.txt").read_bytes()) == set(), "Redis tells nobody of a password"
            for command in (
                ("SET", "key", PLANTED), ("SET", PLANTED, 1), ("HSET", "key", "field", PLANTED),
                ("RPUSH", "key", PLANTED), ("SADD", "key", PLANTED), ("ZADD", "key", 1, PLANTED),
            ):  # fmt: skip
                client.flushall()
                client.execute_command(*command)
                assert found(all_of_redis(url)) == {"it"}
            wait_for("it in a command", lambda: found((tmp_path / "commands.txt").read_bytes()) == {"it"})
    with arguments_of_processes() as arguments:
        sleeping = [sys.executable, "-c", "import time; time.sleep(60)", PLANTED]
        with running(sleeping, environment(), tmp_path / "sleep.log"):
            wait_for("its arguments", lambda: found("\n".join(arguments)) == {"it"})
    with other_side(classifier) as side:
        side.files["leak"] = PLANTED.encode()
        search = Search({"it": PLANTED})
        with Asked(side.url, {}, search) as asked:
            asked("GET", "/nothing/config.json", token=None)
            assert not search.leaks
            asked("GET", "/a/leak", token=None)
            asked("POST", "/hook", token=None, content=PLANTED)
        assert {leak.place for leak in search.leaks} == {"answer: GET /a/leak"}
        assert found(side.webhooks[0]) == {"it"}
    for signed in (f"X-Amz-Signature={'a' * 64}", "Signature%3Dabc", "AWS4-HMAC-SHA256 Credential=AKIA/2026"):
        assert found(signed) == {"a signature"}
    assert found("X-Amz-Signature=***&x") == set()

"""A deployment whose Redis user may use only the keys, channels and commands that docs/operations.md lists."""

import re
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.acceptance.cli import nightshift, options, worker
from tests.integration.harness import write_reviews
from tests.servers import redis_at
from tests.texts import sentences

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_user_that_the_docs_show_is_enough(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = re.search(r"^ACL SETUSER nightshift (.+?)$", OPERATIONS.read_text().replace("\\\n", ""), re.MULTILINE)
    assert rules is not None
    source = write_reviews(tmp_path / "in.parquet", sentences(20))
    with redis_at(tmp_path) as url:
        server: Any = redis.Redis.from_url(url, decode_responses=True)
        server.execute_command("ACL", "SETUSER", "nightshift", *rules[1].split())
        server.acl_log_reset()
        monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", url.replace("://", "://nightshift:SECRET@"))
        monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path / "home"))
        with worker(tmp_path / "worker.log"):
            chosen = options(classifier, source, tmp_path / "out", "--set", "shard.rows=5")
            done = nightshift("run", *chosen)
            assert done.code == 0, done.err
        refused = {entry["object"] for entry in server.acl_log() if entry["username"] == "nightshift"}
        assert refused <= {"info"}
        server.close()

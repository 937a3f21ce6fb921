"""The seeded random killer over a job of 200 shards, with a small job of another user's beside it."""

import json
from pathlib import Path

import pytest

from schemas.layout import MANIFEST
from schemas.manifest import JobStatus
from tests.faults.conftest import Note, make_stage, seeds
from tests.faults.killer import Killer
from tests.faults.redis_server import RedisServer

pytestmark = pytest.mark.slow

#: Of a job that takes a minute where nothing is killed.
BOUND_S = 900.0


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("persistent", [True, False], ids=["redis-keeps", "redis-forgets"])
def test_random_kills(copy: Path, stub_task: None, note: Note, tmp_path: Path, seed: int, persistent: bool) -> None:
    """No row is lost, twice or mixed, and no shard is given up for what the killer did to it."""
    print(f"seed {seed}")  # noqa: T201 (shown where the test fails)
    with RedisServer(tmp_path, persistent) as redis_server:
        stage = make_stage(copy, tmp_path, redis_server.url)
        job = stage.job("job", 2000, params={"batch_ms": 200})
        other = stage.job("other", 50, labels={"tenant": "another"})
        manifest_file = Path(job.output, MANIFEST)
        killer = Killer(stage, redis_server, seed)
        killer.run(lambda: len(list(Path(job.output).glob("data/part-*"))), manifest_file.exists, kills=25)
        ended, beside = stage.ended(job), stage.ended(other)
        stage.check(beside, other, bound_s=BOUND_S, attempts=10)
        manifest = stage.check(ended, job, bound_s=BOUND_S, attempts=10, meanwhile=[beside])
    assert (manifest.status, manifest.shards) == (JobStatus.SUCCEEDED, 200), manifest.error
    claims = stage.failpoints.claims(job.id)
    killed = ", ".join(f"{count} {what}" for what, count in sorted(killer.killed.items()))
    keeps = "keeps its data" if persistent else "forgets"
    again, most = sum(claims.values()) - 200, max(claims.values())
    errors = f"{manifest.error_rows} error rows {json.dumps(manifest.errors) if manifest.errors else ''}".strip()
    took = (manifest.ended_at - manifest.accepted_at).total_seconds()
    note(
        f"random killer, seed {seed}, 200 shards, Redis {keeps}: {killed}",
        killer.killed.total(),
        f"complete after {took:.0f} s; {again} runs more than shards, {most} of one at most; {errors}",
    )

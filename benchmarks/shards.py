"""Shards: what one costs beside its work. A job of shards that do nothing, from real messages to committed parts.

The task is a stub, `benchmarks/noop`, put into a copy of the packages as an outside developer's would be. Two worker
processes of one `nightshift worker`, a Redis of their own, a local folder. Prints shards a second, milliseconds of each
process a shard, and what Redis held for the job at most.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.inputs import tell
from tests.packages import copy_packages
from tests.servers import redis_at, running, wait_for

ROOT = Path(__file__).parents[1]
STUB = Path(__file__).parent / "noop"
SHARDS = 1000
#: With --full.
MANY = 100_000
PROCESSES = 2
#: Shards that are run first, so that every process has begun.
WARM_UP = 100
DEADLINE_S = 1800
TARGET = 200


def main(full: bool = False) -> bool:
    with tempfile.TemporaryDirectory(prefix="nightshift-shards-") as name:
        folder = Path(name)
        copy = _copy_with_stub(folder / "copy")
        with redis_at(folder) as url:
            env = dict(os.environ) | {"NIGHTSHIFT_REDIS_URL": url, "NIGHTSHIFT_HOME": str(folder / "home")}
            env |= {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
            with _worker(copy, env, folder / "worker.log") as worker:
                stage = _Stage(copy, env, folder, redis.Redis.from_url(url, decode_responses=True), worker)
                stage.run("warm-up", WARM_UP)
                for shards in (SHARDS, MANY) if full else (SHARDS,):
                    stage.measure(shards)
    return True


def _copy_with_stub(root: Path) -> Path:
    copy_packages(root, STUB)
    model = root / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["StubForNothing"]}')
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return root


@contextmanager
def _worker(copy: Path, env: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "nightshift", "worker", "--processes", str(PROCESSES)]
    with running(command, env, log, copy) as process:
        yield psutil.Process(process.pid)


class _Stage:
    def __init__(self, copy: Path, env: dict[str, str], folder: Path, server: Any, worker: psutil.Process) -> None:
        self._copy = copy
        self._env = env
        self._folder = folder
        self._redis = server
        self._worker = worker

    def run(self, name: str, shards: int) -> tuple[float, int]:
        """Run a job of so many shards. Seconds from the first claim to the last commit; bytes in Redis at most, over
        those before."""
        table = pa.table({"text": pa.array(str(number) for number in range(shards))})
        pq.write_table(table, self._folder / f"{name}.parquet", row_group_size=10_000)
        before = self._redis.info("memory")["used_memory"]
        job = self._submit(name)
        most = 0

        def over() -> bool:
            nonlocal most
            most = max(most, self._redis.info("memory")["used_memory"] - before)
            return int(self._redis.hget(f"nightshift:job:{job}", "done") or 0) == shards

        wait_for("the job's first shard", lambda: self._started(job), 120, every_s=0.01)
        wait_for(f"{shards} shards", over, DEADLINE_S, every_s=0.02)
        seconds, micros = self._redis.time()
        took = seconds + micros / 1e6 - self._started(job)
        wait_for("the manifest", (self._folder / name / "_manifest.json").exists, DEADLINE_S)
        manifest = json.loads((self._folder / name / "_manifest.json").read_text())
        assert (manifest["status"], manifest["rows"]) == ("succeeded", shards), manifest["error"]
        return took, most

    def _started(self, job: str) -> float:
        return float(self._redis.hget(f"nightshift:job:{job}", "started") or 0)

    def _submit(self, name: str) -> str:
        spec = ["--task", "no-op", "--model", str(self._copy / "model"), "--set", "shard.rows=1"]
        places = ["--input", str(self._folder / f"{name}.parquet"), "--output", str(self._folder / name)]
        command = [sys.executable, "-m", "nightshift", "submit", *spec, *places]
        done = subprocess.run(command, env=self._env, cwd=self._copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def measure(self, shards: int) -> None:
        load, cpu = os.getloadavg()[0], self._cpu()
        began = time.monotonic()
        took, most = self.run(f"job-{shards}", shards)
        used = self._cpu() - cpu
        print(f"{shards:,} shards that do nothing, {PROCESSES} processes (load before: {load:.1f})")
        rate = shards / took
        tell("shards a second", f"{rate:,.0f}", f">= {TARGET}", rate >= TARGET)
        tell("milliseconds of a process, a shard", f"{1000 * PROCESSES / rate:.1f}")
        tell("milliseconds of CPU, a shard, without Redis and the store", f"{1000 * used / shards:.1f}")
        tell("MB more in Redis, at most", f"{most / 1e6:.2f}")
        tell("seconds from submission to manifest", f"{time.monotonic() - began:.1f}")

    def _cpu(self) -> float:
        """CPU seconds of the worker's processes so far."""
        family = [self._worker, *self._worker.children(recursive=True)]
        return float(sum(sum(member.cpu_times()[:2]) for member in family))

"""Objects: a job over many small pictures in a bucket, by the command line: memory of every process, the plan's CPU.

The server is SeaweedFS on this machine, so that client, planner and worker show and not the network. The pictures are a
few hundred made here, under as many names as wanted; the model is a ViT with random weights.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import psutil
from PIL import Image

from benchmarks.inputs import quiet, tell
from jobs.planning.planner import Limits, plan_objects
from jobs.storage import ObjectInfo, Storage
from jobs.storage.job_folder import JobFolder
from schemas.plan import NO_COLUMNS, Planned
from tests.checkpoints_vision import make_image_classifier
from tests.servers import S3_ENV, s3_client, seaweedfs

OBJECTS = 100_000
LISTED = 1_000_000
SIDE = 32
SAMPLE_S = 0.5


def pictures() -> list[bytes]:
    random = np.random.default_rng(1)
    made = []
    for _ in range(256):
        data = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(data, "PNG")
        made.append(data.getvalue())
    return made


def put_all(endpoint: str) -> None:
    client = s3_client(endpoint)
    client.create_bucket(Bucket="objects")
    made = pictures()

    def put(number: int) -> None:
        key = f"in/{number // 1000:04}/{number:07}.png"
        client.put_object(Bucket="objects", Key=key, Body=made[number % len(made)])

    with ThreadPoolExecutor(16) as pool:
        for start in range(0, OBJECTS, 1000):
            list(pool.map(put, range(start, start + 1000)))


def measure_plan() -> None:
    """CPU and memory of planning a listing of LISTED objects that is made up here."""

    def listing(count: int) -> Planned:
        infos = (ObjectInfo(f"s3://b/in/{n // 1000:05}/{n:09}.png", 100_000, f'"{n:032x}"') for n in range(count))
        return Planned(NO_COLUMNS, plan_objects(infos, Limits(1024, 64 << 20)), {})

    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        JobFolder(f"{folder}/warm", Storage()).write_plan(listing(100_000), "bench")
        before, start = psutil.Process().memory_info().rss, time.process_time()
        JobFolder(f"{folder}/out", Storage()).write_plan(listing(LISTED), "bench")
        seconds = time.process_time() - start
        grown = psutil.Process().memory_info().rss - before
    tell(f"plan of {LISTED:,} objects, CPU", f"{seconds:.1f} s", "< 60 s", seconds < 60)
    tell("memory that it adds to a plan of 100,000", f"{grown / 1e6:.0f} MB")


class Watch:
    """The resident size of a command's processes over time, by what they are."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self.sizes: defaultdict[str, list[int]] = defaultdict(list)

    def look(self) -> None:
        for process in self._root.children(recursive=True):
            try:
                command = " ".join(process.cmdline())
                size = process.memory_info().rss
            except psutil.Error:
                continue
            if "spawn_main" in command:
                parent = process.parent()
                command = " ".join(parent.cmdline()) if parent else ""
                kind = "worker" if "workers.celery_app" in command else ""
            else:
                kind = (
                    "planner" if "jobs.control.celery_app" in command else "redis" if "redis-server" in command else ""
                )
            if kind:
                self.sizes[kind].append(size)


def run_job(folder: Path) -> bool:
    quiet()
    model = make_image_classifier(folder / "model")
    command = [sys.executable, "-m", "nightshift", "run", "--task", "image-classification", "--model", str(model)]
    command += ["--input", "s3://objects/in/", "--output", str(folder / "out"), "--json"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watch, over = Watch(process.pid), threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            watch.look()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        out, _ = process.communicate()
    finally:
        over.set()
        thread.join()
        process.kill()
    seconds = time.monotonic() - start
    done = json.loads(out)
    print(f"  {done['rows']:,} records in {done['shards']} shards, {done['error_rows']} errors, in {seconds:.0f} s")
    flat = done["rows"] == OBJECTS and not done["error_rows"]
    for kind, sizes in sorted(watch.sizes.items()):
        # From when it has run a few shards: what loading and the first batches take stays.
        quarter = len(sizes) // 4
        early, late = max(sizes[quarter : 2 * quarter]), max(sizes[-quarter:])
        tell(
            f"{kind}: largest in the second quarter {early / 1e6:.0f} MB, in the last {late / 1e6:.0f} MB",
            f"{(late - early) / 1e6:+.0f} MB",
        )
        flat &= late - early < 0.1 * early + 50e6
    return flat


def main() -> bool:
    """Print the figures; whether memory stayed flat and every object has its row."""
    measure_plan()
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as temporary:
        folder = Path(temporary)
        (folder / "s3").mkdir()
        with seaweedfs(folder / "s3") as endpoint:
            own = {"AWS_ENDPOINT_URL": endpoint, "NIGHTSHIFT_HOME": str(folder / "home")}
            with patch.dict(os.environ, S3_ENV | own):
                print(f"Objects: a job over {OBJECTS:,} pictures in SeaweedFS", flush=True)
                put_all(endpoint)
                return run_job(folder)

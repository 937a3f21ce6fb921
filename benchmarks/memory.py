"""Memory: what a worker needs beyond its model while it works through a 5 GB Parquet file of one row group.

A process of its own runs shards of that file through `workers.execution.attempt.execute`, all of it but Redis: it
reads, tokenises, computes with a tiny model, writes and commits. This process samples its memory meanwhile.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs import TINY, make_job, make_model, quiet, tell
from jobs.planning.planner import planned, shard_limits
from jobs.settings import Settings
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from schemas.plan import ShardOrder
from workers.engine.heartbeat import Watch
from workers.execution.attempt import Attempt, execute
from workers.execution.job_context import JobContext
from workers.io.parquet_reader import READ_BUFFER, ParquetReader
from workers.models.cache import ModelCache

ROWS = 1_000_000
#: Bytes a text, on average; texts are 10 % longer or shorter.
CELL = 5000
#: Rows a second, as if measured: much, so that the plan has the largest shards that it ever has.
RATE = 10_000.0
#: Tokens that the model reads of a text.
MAX_LENGTH = 16
SAMPLE_S = 0.05
LIMIT_GB = 1.0
ROUNDS = 3


def write_input(file: Path, words: list[bytes]) -> None:
    """The file, in bounded memory though it is one row group, which Parquet writers take as one table.

    The table's texts are windows of different places and lengths into one pool of random words, so that it is as large
    as the pool and its offsets while no two texts are the same.
    """
    rng = np.random.default_rng(0)
    pool = b" ".join(words[i] for i in rng.integers(0, len(words), 10_000_000))
    longest = CELL + CELL // 10
    data = pa.py_buffer(pool)
    chunks = []
    for first in range(0, ROWS, 10_000):
        lengths = rng.integers(CELL - CELL // 10, longest, min(10_000, ROWS - first))
        start = rng.integers(0, len(pool) - longest * len(lengths))
        offsets = start + np.concatenate([[0], np.cumsum(lengths)])
        chunks.append(pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets.astype(np.int32)), data))
    table = pa.table({"id": pa.array(np.arange(ROWS)), "text": pa.chunked_array(chunks)})
    with pq.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(table, row_group_size=ROWS)


def vocabulary(model: Path) -> list[bytes]:
    """The tokenizer's whole words."""
    words = (model / "vocab.txt").read_text().split("\n")
    return [word.encode() for word in words if word.isascii() and word.isalpha() and len(word) > 1]


def make_plan(file: Path, folder: Path) -> int:
    """Accept and plan a job for the file under `folder`/output; how many shards it has."""
    storage, settings = Storage(), Settings.read()
    params: dict[str, object] = {"max_length": MAX_LENGTH}
    job = make_job(file, folder / "model", folder / "output", params, storage, settings)
    there = JobFolder(job.output, storage)
    there.write_job(job)
    plan = planned(job.spec, None, storage, settings, shard_limits(job.spec, RATE))
    return there.write_plan(plan, job.id).shards


def chosen(shards: int, full: bool) -> list[int]:
    """Four consecutive shards at the beginning, in the middle and at the end; or all."""
    middle = shards // 2
    some = [*range(4), *range(middle, middle + 4), *range(shards - 4, shards)]
    return list(range(shards)) if full else some


def work(output: str, shards: int, numbers: list[int]) -> Iterator[dict[str, int]]:
    """Run shards as a worker does. Yields once the model is loaded, then after each shard."""
    quiet()
    storage, settings = Storage(), Settings.read()
    context = JobContext(output, storage, settings)
    models = ModelCache(settings, storage)
    models.get(context.accepted, context.handler)
    yield {"loaded": 1}
    process = SimpleNamespace(
        state=SimpleNamespace(shards=SimpleNamespace(deaths=lambda order: [])),
        settings=settings,
        note_rate=lambda job, rows_per_s: None,
        storage=storage,
        models=models,
        name="bench",
        versions={},
        existing_report=lambda part, job: None,
        job=lambda job, output: context,
    )
    lease = SimpleNamespace(
        check=lambda rows: None, check_for_commit=lambda: None, loading=nullcontext, name=lambda rows: None
    )
    for number in numbers:
        order = ShardOrder(job=context.accepted.id, task=context.task.id, output=output, shard=number, shards=shards)
        attempt = Attempt(order, f"bench-{number}", cast(Any, process))
        outcome = execute(attempt, cast(Any, lease), Watch())
        assert outcome.report is not None
        yield {"rows": outcome.report.rows, "errors": outcome.report.error_rows, "kernels_peak": kernels_peak()}


def kernels_peak() -> int:
    """The largest resident size of this process so far, as Linux keeps it; 0 elsewhere.

    Not `ru_maxrss`, which begins at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


class Sampler:
    """The largest resident size of a process, looked at every SAMPLE_S."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.peak = self.now()

    def now(self) -> int:
        return int(self._process.memory_info().rss)

    @contextmanager
    def sampling(self) -> Iterator[None]:
        over = threading.Event()

        def look() -> None:
            while not over.wait(SAMPLE_S):
                try:
                    self.peak = max(self.peak, self.now())
                except psutil.NoSuchProcess:
                    return

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def measure(output: str, shards: int, numbers: list[int]) -> None:
    """Run the shards in a fresh process and print what memory it took."""
    command = [sys.executable, "-m", "benchmarks.memory", output, str(shards), *map(str, numbers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        sampler = Sampler(process.pid)
        before = sampler.peak
        start = time.monotonic()
        with sampler.sampling():
            done = [json.loads(line) for line in process.stdout]
        seconds = time.monotonic() - start
    finally:
        process.kill()
        process.wait()
    if len(done) != len(numbers):
        raise SystemExit(f"the worker ended after {len(done)} of {len(numbers)} shards")
    rows, errors, kernels = (
        f(row[name] for row in done) for f, name in ((sum, "rows"), (sum, "errors"), (max, "kernels_peak"))
    )
    print(f"  ran {len(done)} of {shards} shards, {rows:,} rows ({errors:,} errors), in {seconds:.0f} s")
    print(f"  resident with the model loaded {before / 1e9:.2f} GB, peak {sampler.peak / 1e9:.2f} GB")
    added = max(sampler.peak, kernels) - before
    tell("peak beyond the loaded model, sampled", f"{(sampler.peak - before) / 1e9:.2f} GB")
    tell("the same, by the kernel's own peak", f"{(kernels - before) / 1e9:.2f} GB" if kernels else "unknown")
    tell("memory beyond the model", f"{added / 1e9:.2f} GB", f"< {LIMIT_GB:.0f} GB", added < LIMIT_GB * 1e9)


def compare_skipping(output: str, number: int) -> None:
    """How long a worker that begins in the middle of the row group takes to get there, against pyarrow alone."""
    storage, settings = Storage(), Settings.read()
    context = JobContext(output, storage, settings)
    shard = context.shard(number)
    part = shard.slices[0]
    columns = context.output_schema.names[: context.output_schema.get_field_index("prediction")]

    def product() -> None:
        reader = ParquetReader(storage, pa.schema([context.output_schema.field(n) for n in columns]), 16 << 20, {})
        next(reader.blocks(shard, context.task_columns))
        reader.close()

    def plain() -> None:
        rows = 0
        with pq.ParquetFile(part.uri, pre_buffer=False, buffer_size=READ_BUFFER) as file:
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                rows += batch.num_rows
                if rows > part.start:
                    return

    ratios = []
    for _ in range(ROUNDS):
        plain_s, product_s = seconds_of(plain), seconds_of(product)
        ratios.append(product_s / plain_s)
    print(f"  to row {part.start:,} of {ROWS:,}: plain pyarrow {plain_s:.1f} s, the reader {product_s:.1f} s")
    tell("reading forward to the middle shard, over plain pyarrow", f"{median(ratios):.2f}x")


def seconds_of(function: Callable[[], None]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def main(full: bool = False) -> bool:
    """Print what the worker needed; True, as there are no answers to compare."""
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as temporary:
        folder = Path(temporary)
        file = folder / "texts.parquet"
        model = make_model(folder / "model", TINY)
        write_input(file, vocabulary(model))
        group = pq.read_metadata(file)
        assert group.num_row_groups == 1, group
        size = group.row_group(0).total_byte_size
        print(
            f"Memory: {ROWS:,} rows, {size / 1e9:.2f} GB in one row group, {file.stat().st_size / 1e9:.2f} GB on disk"
        )
        shards = make_plan(file, folder)
        output = str(folder / "output")
        compare_skipping(output, shards // 2)
        measure(output, shards, chosen(shards, full))
    return True


if __name__ == "__main__":
    for message in work(sys.argv[1], int(sys.argv[2]), [int(number) for number in sys.argv[3:]]):
        print(json.dumps(message), flush=True)

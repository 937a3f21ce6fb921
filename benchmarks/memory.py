"""Memory: what a worker needs beyond its model while it works through a 5 GB Parquet file of one row group.

A process of its own runs shards of that file as a worker does, with a Redis of its own: it takes them, reads,
tokenises, computes with a tiny model, writes and commits. This process samples its memory meanwhile.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.inputs import TINY, make_model, quiet, tell
from jobs.storage import Storage
from jobs.storage.job_folder import JobFolder
from jobs.storage.parquet import READ_BUFFER
from nightshift.testing import private_settings
from schemas.job import JobSpec, parse_spec
from schemas.output import task_columns
from tests.integration.harness import House
from workers.io.parquet_reader import ParquetReader

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


def spec_of(folder: Path) -> JobSpec:
    """The job on the file: its texts are cut at MAX_LENGTH."""
    model, output = str(folder / "model"), {"uri": f"{folder}/output"}
    table = {"uri": f"{folder}/texts.parquet"}
    params = {"max_length": MAX_LENGTH}
    spec = {"task": "text-classification", "model": model, "input": table, "output": output, "params": params}
    return parse_spec(spec)


def chosen(shards: int, full: bool) -> list[int]:
    """Four consecutive shards at the beginning, in the middle and at the end; or all."""
    middle = shards // 2
    some = [*range(4), *range(middle, middle + 4), *range(shards - 4, shards)]
    return list(range(shards)) if full else some


def work(folder: Path, full: bool) -> Iterator[dict[str, int]]:
    """Run shards as a worker does. Yields once the model is loaded, then after each shard."""
    quiet()
    with private_settings() as settings:
        house, spec = House(settings), spec_of(folder)
        house.state.jobs.note_rate(spec.task, spec.model, RATE)
        job = house.submit(spec)
        shards = house.plan(job)
        context = house.process.job(job.id)
        house.process.models.get(context.accepted, context.handler)
        yield {"shards": shards}
        for number in chosen(shards, full):
            report = house.attempt(job, number, id=f"bench-{number}").report
            assert report is not None
            yield {"rows": report.rows, "errors": report.error_rows, "kernels_peak": kernels_peak()}


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


def measure(folder: Path, full: bool) -> None:
    """Run the shards in a fresh process and print what memory it took."""
    command = [sys.executable, "-m", "benchmarks.memory", str(folder), *(["full"] if full else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        shards = json.loads(process.stdout.readline())["shards"]
        numbers = chosen(shards, full)
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


def compare_skipping(folder: Path) -> None:
    """How long a worker that begins in the middle of the row group takes to get there, against pyarrow alone."""
    storage, spec = Storage(), spec_of(folder)
    plan = JobFolder(spec.output.uri, storage).plan()
    shard = next(plan.shards(plan.size().shards // 2))
    schema, part = plan.columns(), shard.slices[0]

    def product() -> None:
        reader = ParquetReader(storage, schema, 16 << 20, {})
        next(reader.blocks(shard, task_columns(spec, schema)))
        reader.close()

    def plain() -> None:
        rows = 0
        with pq.ParquetFile(part.uri, pre_buffer=False, buffer_size=READ_BUFFER) as file:
            for batch in file.iter_batches(batch_size=1024, columns=schema.names):
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
        measure(folder, full)
        compare_skipping(folder)
    return True


if __name__ == "__main__":
    for message in work(Path(sys.argv[1]), "full" in sys.argv[2:]):
        print(json.dumps(message), flush=True)

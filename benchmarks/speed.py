"""Speed: the product's runner against a bare loop and against Transformers' pipeline, on the same texts and model.

Float32, with as many threads as torch takes by itself, all in one process. The contestants take turns within each
round, a ratio is of one round, and the median of the rounds' ratios counts.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers

from benchmarks.inputs import MINILM, make_job, make_model, tell
from benchmarks.texts import docstrings
from jobs.planning.planner import Limits, planned
from jobs.settings import Settings
from jobs.storage import Storage
from schemas.output import kept_columns, output_schema, task_columns
from workers.engine.runner import ShardRun
from workers.handler import Loaded
from workers.io.parquet_reader import ParquetReader
from workers.io.part_writer import PartWriter
from workers.models.cache import ModelCache
from workers.tasks import handler_of

T = TypeVar("T")
#: The label and score of each text.
Answers = list[tuple[str, float]]

TEXTS = 6000
#: Texts for the comparison with the pipeline, which is slow.
PIPELINE_TEXTS = 1000
#: The first of those, for the pipeline at batch 32, which is slower still.
BATCHED_TEXTS = 300
ROUNDS = 3
#: Padded tokens a batch of the bare loop.
BATCH_TOKENS = 2048
#: How far apart two scores of one text may be.
TOLERANCE = 1e-4


def bare_loop(loaded: Loaded, texts: list[str]) -> Answers:
    """What anyone would write who knows how: tokenise all, sort by length, batch by padded tokens, pad, forward."""
    tokens = loaded.processor(texts, truncation=True, max_length=512, return_attention_mask=False)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
    answers: Answers = [("", 0.0)] * len(texts)
    start = 0
    with torch.inference_mode():
        while start < len(order):
            batch = order[start : start + max(1, BATCH_TOKENS // len(tokens[order[start]]))]
            start += len(batch)
            logits = loaded.model(**_padded([tokens[i] for i in batch], loaded)).logits
            scores, labels = logits.softmax(-1).max(-1)
            for i, score, label in zip(batch, scores.tolist(), labels.tolist(), strict=True):
                answers[i] = (loaded.model.config.id2label[label], score)
    return answers


def _padded(rows: list[list[int]], loaded: Loaded) -> dict[str, torch.Tensor]:
    """Rows of tokens, the longest first, as tensors; a mask only where there is padding."""
    longest = len(rows[0])
    ids = np.full((len(rows), longest), loaded.processor.pad_token_id, dtype=np.int64)
    for place, row in zip(ids, rows, strict=True):
        place[: len(row)] = row
    arrays = {"input_ids": ids}
    if len(rows[-1]) < longest:
        lengths = np.array([len(row) for row in rows])[:, None]
        arrays["attention_mask"] = (np.arange(longest) < lengths).astype(np.int64)
    return {name: torch.from_numpy(array).to(loaded.device) for name, array in arrays.items()}


class Runner:
    """The product, from a Parquet file of texts to a finished part on local disk, its model loaded beforehand.

    All texts are one shard. Each run reads the file anew and creates a part of its own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._storage = Storage()
        self._settings = Settings.read()
        self._model = make_model(folder / "model", MINILM)
        self._numbers = count()
        placeholder = self.write("placeholder", ["a text"])
        self._job = make_job(placeholder, self._model, folder / "output", {}, self._storage, self._settings)
        self._handler = handler_of(self._job.spec.task_schema)
        self._held = ModelCache(self._settings, self._storage).get(self._job, self._handler)

    @property
    def loaded(self) -> Loaded:
        return self._held.loaded

    def write(self, name: str, texts: list[str]) -> Path:
        """The texts as a Parquet file."""
        file = self._folder / f"{name}.parquet"
        pq.write_table(pa.table({"text": texts}), file)
        return file

    def plan(self, file: Path) -> Callable[[], str]:
        """A function that runs the file's only shard and answers with the part's place."""
        job = make_job(file, self._model, self._folder / "output", {}, self._storage, self._settings)
        whole = Limits(rows=1 << 30, bytes=1 << 40)
        plan = planned(job.spec, None, self._storage, self._settings, whole)
        (shard,) = plan.shards
        return partial(self._run, job.spec, shard, plan.columns)

    def _run(self, spec: Any, shard: Any, columns: pa.Schema) -> str:
        number = next(self._numbers)
        kept = pa.schema([columns.field(name) for name in kept_columns(spec, columns)])
        reader = ParquetReader(self._storage, columns, self._settings.max_cell_mb << 20, {})
        with PartWriter(output_schema(spec, kept)) as writer:
            handler = self._handler(self.loaded, spec.task_params, spec)
            run = ShardRun(handler, self._held.budget, lambda rows: None)
            run.run(shard, reader, task_columns(spec, columns), writer)
            known = {"job": "bench", "attempt": "bench", "worker": "bench", "fingerprint": "", "versions": {}}
            report = run.report(shard=shard.shard, device=str(self.loaded.device), dtype="float32", **known)
            part = str(self._folder / "output" / f"part-{number}.parquet")
            self._storage.create(part, writer.close(report), "bench")
        reader.close()
        return part


def answers_of(part: str) -> Answers:
    rows = pq.read_table(part, columns=["prediction", "error"]).to_pylist()
    return [(row["prediction"]["label"], row["prediction"]["score"]) for row in rows]


def pipeline_answers(pipe: Any, batch_size: int, texts: list[str]) -> Answers:
    return [(row["label"], row["score"]) for row in pipe(texts, truncation=True, batch_size=batch_size)]


def timed(function: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds by the clock and of all this process's threads, and what the function gave."""
    start, cpu_start = time.monotonic(), time.process_time()
    result = function()
    return time.monotonic() - start, time.process_time() - cpu_start, result


class Disagreement:
    """Counts texts on which two contestants agree: the same label, and scores within TOLERANCE."""

    def __init__(self) -> None:
        self.compared = self.different = 0
        self.furthest = 0.0

    def compare(self, one: Answers, other: Answers) -> None:
        for (label, score), (other_label, other_score) in zip(one, other, strict=True):
            self.compared += 1
            self.furthest = max(self.furthest, abs(score - other_score))
            self.different += label != other_label or abs(score - other_score) > TOLERANCE


def against_bare_loop(runner: Runner, texts: list[str], answers: Disagreement) -> None:
    run = runner.plan(runner.write("all", texts))
    ratios, cpu_ratios = [], []
    for number in range(1, ROUNDS + 1):
        bare_s, bare_cpu_s, bare = timed(partial(bare_loop, runner.loaded, texts))
        run_s, run_cpu_s, part = timed(run)
        answers.compare(bare, answers_of(part))
        ratios.append(run_s / bare_s)
        cpu_ratios.append(run_cpu_s / bare_cpu_s)
        print(f"  round {number}: bare loop {bare_s:.1f} s, runner {run_s:.1f} s", flush=True)
    labels = sorted({label for label, _ in bare})
    shares = ", ".join(f"{sum(label == one for one, _ in bare):,} {label}" for label in labels)
    print(f"  {len(texts):,} docstrings, labels: {shares}")
    tell("runner: CPU time added (hardly moved by other load)", f"{100 * (median(cpu_ratios) - 1):+.1f} %")
    added = 100 * (median(ratios) - 1)
    tell("runner: time added to the bare loop's", f"{added:+.1f} %", "at most 10 %", added <= 10)


def against_pipeline(runner: Runner, texts: list[str], answers: Disagreement) -> None:
    """One by one on all the texts; at batch 32, which is slow, on the first of them, the runner on the same."""
    pipe: Any = transformers.pipeline(
        "text-classification",
        model=runner.loaded.model,
        tokenizer=runner.loaded.processor,
        device=runner.loaded.device,
    )
    for batch_size, some, target in ((1, texts, 1.35), (32, texts[:BATCHED_TEXTS], 5.0)):
        run = runner.plan(runner.write(f"batch-{batch_size}", some))
        ratios, cpu_ratios = [], []
        for number in range(1, ROUNDS + 1):
            run_s, run_cpu_s, part = timed(run)
            pipe_s, pipe_cpu_s, theirs = timed(partial(pipeline_answers, pipe, batch_size, some))
            answers.compare(answers_of(part), theirs)
            ratios.append(pipe_s / run_s)
            cpu_ratios.append(pipe_cpu_s / run_cpu_s)
            print(f"  round {number}: runner {run_s:.1f} s, pipeline at batch {batch_size} {pipe_s:.1f} s", flush=True)
        name = f"runner over pipeline at batch {batch_size}, {len(some):,} docstrings"
        tell(f"{name}: CPU time", f"{median(cpu_ratios):.2f}x")
        tell(name, f"{median(ratios):.2f}x", f">= {target}x", median(ratios) >= target)


def main() -> bool:
    """Print the comparison; whether all contestants gave the same answers."""
    texts = docstrings(TEXTS)
    answers = Disagreement()
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-") as folder:
        runner = Runner(Path(folder))
        device = runner.loaded.device
        print(f"Speed: MiniLM-sized BERT, float32, {device}, {torch.get_num_threads()} threads", flush=True)
        bare_loop(runner.loaded, texts[:100])
        runner.plan(runner.write("warm", texts[:100]))()
        against_bare_loop(runner, texts, answers)
        against_pipeline(runner, texts[:PIPELINE_TEXTS], answers)
    same = f"{answers.compared - answers.different:,} of {answers.compared:,}"
    tell(f"same label, scores within {TOLERANCE}", same, "all", not answers.different)
    print(f"  scores at most {answers.furthest:.1e} apart")
    return not answers.different

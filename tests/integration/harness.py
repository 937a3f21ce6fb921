"""A job inside the test's own process: the code of a worker and of the control process, on real Redis and storage."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs.broker import CONTROL_QUEUE
from jobs.state.connection import job_key
from jobs.submission.accept import enqueue
from nightshift.testing import InProcess
from schemas.job import AcceptedJob, JobSpec, parse_spec
from schemas.plan import ShardOrder
from workers.execution.attempt import Attempt, Outcome, run_attempt
from workers.execution.ticket import run_next


def spec_for(model: Path, source: str | list[str], output: str, **changes: Any) -> JobSpec:
    """A text classification whose input column is called `review`."""
    table = {"uri": source, "columns": {"text": "review"}} | changes.pop("input", {})
    return parse_spec(
        {"task": "text-classification", "model": str(model), "input": table, "output": {"uri": output}} | changes
    )


def write_reviews(file: Path, texts: list[Any], row_group: int = 1000) -> Path:
    """A table of id, review and a binary column."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(len(texts)), "review": pa.array(texts, pa.string()), "raw": [b"\x00"] * len(texts)})
    pq.write_table(table, file, row_group_size=row_group)
    return file


def read_output(output: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = ds.dataset(output, format="parquet").to_table().to_pylist()
    return rows


class House(InProcess):
    """A deployment in the test's own process, and what tests do to it one step at a time."""

    def plan(self, job: AcceptedJob) -> int:
        """Plan the job; how many shards it has."""
        self.control.plan_job(job.id, job.output)
        progress = self.state.jobs.progress(job.id)
        assert progress is not None
        return progress.shards

    def submit_again(self, job: AcceptedJob) -> bool:
        """Enter a job once more, as `nightshift resume` does; whether Redis had let go of it."""
        return enqueue(job, self.state, self.broker)

    def attempt(self, job: AcceptedJob, shard: int, id: str = "a1") -> Outcome:
        """Take this very shard, and run it."""
        order, taken_as = self.take(job, shard, id)
        return run_attempt(Attempt(order, taken_as, self.process))

    def take(self, job: AcceptedJob, shard: int, id: str) -> tuple[ShardOrder, str]:
        """Take what waits until this shard of the job comes; put back what came before.

        Return it with the attempt that holds it: `id`, with a number if others came before.
        """
        others: list[tuple[ShardOrder, str]] = []
        while True:
            attempt = f"{id}-{len(others)}" if others else id
            order = self.state.shards.take({job.spec.task}, [], attempt)
            assert order is not None, f"shard {shard} does not wait"
            if (order.job, order.shard) == (job.id, shard):
                for other, held_by in others:
                    self.state.shards.requeue(other, held_by)
                return order, attempt
            others.append((order, attempt))

    def end_delays(self) -> None:
        """Release the shards that wait for a delay to pass."""
        for member in self.state._redis.zrange("nightshift:delayed", 0, -1):
            self.state._redis.zadd("nightshift:delayed", {member: 0})
        self.state.shards.sweep(CONTROL_QUEUE)

    def settle(self, job: AcceptedJob) -> None:
        """Let the lease pass that a job waits for before its end, after it was entered again."""
        assert self.state._redis.hset(job_key(job.id), "settles", 0) == 0, "it had to settle"

    def nothing_waits(self, job: AcceptedJob) -> bool:
        """Whether no shard of the job's task would be handed out now."""
        return self.state.shards.take({job.spec.task}, [], "nobody") is None

    def next(self, task: str = "text-classification") -> Outcome | None:
        """What a worker does on a message of this task."""
        return run_next(task, self.process)

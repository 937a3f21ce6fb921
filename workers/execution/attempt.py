"""One attempt at one shard: claim, run, commit, tell. What surrounds the work is one ordered list of wrappers.

noted      logs how the attempt ended
overseen   lets the supervisor know what is worked on, so that a crash or a hang is seen from outside
settled    tells Redis how it ended, and releases what may run next
leased     claims a shard that is not yet, and keeps its lease while the work goes on
execute    reads, computes, writes and commits the part
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from jobs.logs import bound, event
from schemas.errors import AlreadyExists, ServiceUnavailable
from schemas.layout import child, part_name
from schemas.report import ShardReport
from schemas.shard import ShardOrder
from schemas.task import Task
from schemas.tasks import find_task
from workers.engine.heartbeat import Watch, watched
from workers.engine.poison_rows import careful_after
from workers.engine.runner import ShardRun
from workers.execution.lease import Lease
from workers.execution.process import Process
from workers.execution.retry_policy import FailJob, FailShard, decide, jitter
from workers.io.part_writer import PartWriter
from workers.models.device import DEVICE_LOST

_log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """An execution of a shard in this process: of one `taken`, its lease held already, or of one to claim. `lease` is
    set while it is held."""

    order: ShardOrder
    id: str
    process: Process
    taken: bool = False
    lease: Lease | None = None
    watch: Watch = field(default_factory=Watch)
    started: float = field(default_factory=time.monotonic)

    @property
    def task(self) -> Task:
        return find_task(self.order.task)

    @property
    def part(self) -> str:
        return child(self.order.output, part_name(self.order.shard, self.order.shards))


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `committed`, `found` (another attempt's part stands), `skipped` or `failed`."""

    how: str
    why: str = ""
    report: ShardReport | None = None


Step = Callable[[Attempt], Outcome]
Wrapper = Callable[..., Outcome]


def noted(attempt: Attempt, step: Step) -> Outcome:
    with bound(job=attempt.order.job, shard=attempt.order.shard, attempt=attempt.id, task=attempt.order.task):
        outcome = step(attempt)
        report = outcome.report
        event(
            _log,
            f"shard_{outcome.how}",
            logging.WARNING if outcome.how == "failed" else logging.INFO,
            **({"why": outcome.why} if outcome.why else {}),
            **({"rows": report.rows, "error_rows": report.error_rows, "batches": report.batches} if report else {}),
            seconds=time.monotonic() - attempt.started,
        )
        return outcome


def overseen(attempt: Attempt, step: Step) -> Outcome:
    settings = attempt.process.settings
    limits = settings.record_timeout_s, settings.silence_s
    with watched(settings.work_folder, attempt.order, attempt.id, *limits) as watch:
        attempt.watch = watch
        return step(attempt)


def settled(attempt: Attempt, step: Step) -> Outcome:
    """Redis being away here loses nothing: the part stands, or the lease runs out and the sweep does the rest."""
    process, order = attempt.process, attempt.order
    try:
        outcome, finish = _settle(attempt, step)
        if finish:
            process.broker.finish_job(order.job, order.output)
        if outcome.how == "put_back":
            process.broker.release(process.state, attempt.task)
        return outcome
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)
        return Outcome("failed", error.message)


def _settle(attempt: Attempt, step: Step) -> tuple[Outcome, bool]:
    state, order = attempt.process.state, attempt.order
    try:
        outcome = step(attempt)
    except DEVICE_LOST:
        _log.exception("device_lost")
        attempt.process.leave()
        raise
    except Exception as error:  # noqa: BLE001 (decided by class; logged by `noted`, with its traceback where nobody foresaw it)
        decision = decide(error, state.tries(order), attempt.process.settings.max_transient, jitter())
        if not hasattr(error, "code"):
            _log.exception("unexpected_error")
        why = f"{type(error).__name__}: {error}"
        if isinstance(decision, FailJob):
            state.fail(order.job, decision.error)
            return Outcome("failed", why), state.put_back(order, attempt.id)
        if isinstance(decision, FailShard):
            return Outcome("failed", why), state.fail_shard(order, attempt.id, decision.error)
        return Outcome("put_back", why), state.put_back(order, attempt.id, decision.delay_s)
    if outcome.report is None:
        return outcome, False
    return outcome, state.commit(order, attempt.id, outcome.report.rows, outcome.report.errors)


def leased(attempt: Attempt, step: Step) -> Outcome:
    process, order = attempt.process, attempt.order
    if not attempt.taken:
        answer = process.state.claim(order, attempt.id)
        if answer != "claimed":
            return Outcome("skipped", answer)
    with Lease(process.state, process.settings, order, attempt.id, process.stop_file, attempt.started) as lease:
        attempt.lease = lease
        return step(attempt)


def execute(attempt: Attempt) -> Outcome:
    """Make the shard's part and create it; where another attempt's stands already, that one counts."""
    process, order, lease = attempt.process, attempt.order, attempt.lease
    assert lease is not None
    found = process.existing_report(attempt.part, order.job)
    if found is not None:
        return Outcome("found", report=found)
    job = process.job(order.job, order.output)
    shard = job.shard(order.shard)
    held = process.models.get(job.accepted, job.handler, lease.loading)
    handler = job.handler(held.loaded, job.accepted.spec.task_params, job.accepted.spec)
    run = ShardRun(handler, job.budget(held), lease.check, attempt.watch)
    limits = process.settings.record_timeout_s, process.settings.process_memory_gb
    careful = careful_after(process.state.deaths(order), *limits, lease.name)
    loaded_now = held.load_s
    held.load_s = 0.0
    with PartWriter(job.output_schema) as writer:
        run.run(shard, job.reader, job.task_columns, writer, careful)
        report = run.report(
            job=order.job,
            shard=order.shard,
            attempt=attempt.id,
            worker=process.name,
            fingerprint=job.fingerprint(shard),
            device=str(process.models.device),
            dtype=str(held.loaded.dtype).removeprefix("torch."),
            versions=process.versions,
            seconds={"wall": round(time.monotonic() - attempt.started, 4), "load": round(loaded_now, 4)},
        )
        part = writer.close(report)
        lease.check_for_commit()
        try:
            process.storage.create(attempt.part, part, attempt.id)
        except AlreadyExists:
            found = process.existing_report(attempt.part, order.job)
            if found is None:
                raise
            return Outcome("found", report=found)
    seconds = time.monotonic() - attempt.started - loaded_now
    process.note_rate(job, report.rows / max(seconds, 1e-3))
    return Outcome("committed", report=report)


WRAPPERS: tuple[Wrapper, ...] = (noted, overseen, settled, leased)


def run_attempt(attempt: Attempt) -> Outcome:
    """The attempt, inside its wrappers, the first of them outermost."""
    step: Step = execute
    for wrapper in reversed(WRAPPERS):
        step = partial(wrapper, step=step)
    return step(attempt)

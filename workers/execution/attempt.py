"""How is one attempt at a shard run? Under a lease, watched by the supervisor. Its outcome is told to Redis and logged.

run_attempt   logs the outcome, and keeps the heartbeat file, so that a crash or a hang is seen from outside
_told         tells Redis the outcome, and releases the shards that may run next
_decided      keeps the lease during the work, and decides how to handle an error
execute       reads, computes, writes and commits the part
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from jobs.logs import bound, event
from jobs.settings import Settings
from jobs.state import State, Verdict
from jobs.storage.job_folder import JobFolder
from schemas.errors import AlreadyExists, NightshiftError, ServiceUnavailable, Transient
from schemas.heartbeat import FETCH, OPEN, UPLOAD
from schemas.layout import part_name
from schemas.plan import ShardOrder
from schemas.report import ShardReport
from schemas.tasks import find_task
from workers.engine.heartbeat import Watch, watched
from workers.engine.poison_rows import careful_after
from workers.engine.runner import ShardRun
from workers.execution.lease import Lease
from workers.execution.process import Process
from workers.execution.retry_policy import Decision, FailJob, FailShard, PutBack, decide, jitter
from workers.execution.self_check import device_fault
from workers.execution.suspension import resumed, suspended
from workers.io.answers import AnswerWriter, KnownAnswers, Reuse
from workers.io.block import Reading
from workers.io.part_writer import PartWriter
from workers.models.device import DEVICE_LOST

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """One execution of a shard by this process, which holds its lease as `id`. `started` is when it asked for it."""

    order: ShardOrder
    id: str
    process: Process
    started: float = field(default_factory=time.monotonic)

    @property
    def part(self) -> str:
        """The name of the part."""
        return part_name(self.order.shard, self.order.shards)

    def is_last(self) -> bool:
        """Return whether the shard is given up if it fails once more: others, if there are any, failed at it too."""
        shards = self.process.state.shards
        is_last = shards.tries(self.order) + 1 >= self.process.settings.max_transient
        return is_last and shards.is_confirmed(self.order)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: `committed`, `found` (another attempt's part stands), `put_back` or `failed`."""

    how: str
    why: str = ""
    report: ShardReport | None = None


def run_attempt(attempt: Attempt) -> Outcome:
    """Run a shard whose lease is held. The outcome, an error included, is told to Redis and logged, never raised."""
    order, settings = attempt.order, attempt.process.settings
    limits = settings.record_timeout_s, settings.io_timeout_s, settings.silence_s
    with bound(job=order.job, shard=order.shard, attempt=attempt.id, task=order.task):
        with watched(settings.work_folder, settings.slot, order, attempt.id, *limits) as watch:
            outcome = _told(attempt, watch)
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


def _told(attempt: Attempt, watch: Watch) -> Outcome:
    """Run the shard, tell Redis how it ended, and release the shards that may run next.

    Nothing is lost if Redis is away: either the part is in storage, or the lease runs out and the sweep does the rest.
    """
    process, order = attempt.process, attempt.order
    try:
        outcome, verdict = _decided(attempt, watch)
        _judge(attempt, outcome, verdict)
        if verdict.finish:
            process.broker.finish_job(order.job, order.output)
        if outcome.how == "put_back":
            process.broker.release(process.state, find_task(order.task))
        return outcome
    except ServiceUnavailable as error:
        event(_log, "redis_away", logging.WARNING, error=error.message)
        return Outcome("failed", error.message)


def _judge(attempt: Attempt, outcome: Outcome, verdict: Verdict) -> None:
    """Note in the breaker whether this machine did the shard, or failed at what others do."""
    process, job = attempt.process, attempt.order.job
    if outcome.report is not None:
        was_clear, was_open = not process.breaker.failures, process.breaker.is_open
        process.breaker.succeeded(job)
        if not was_clear:
            process.forget_failures()
        if was_open:
            resumed(process)
    elif verdict.suspect:
        process.suspect_folder = JobFolder(attempt.order.output, process.storage)
        process.breaker.failed(outcome.why, job)
        if process.breaker.is_open:
            suspended(process)


def _decided(attempt: Attempt, watch: Watch) -> tuple[Outcome, Verdict]:
    """Run the shard. Return how it ended, and what that means for the shard, the job and this machine."""
    process, order, id = attempt.process, attempt.order, attempt.id
    state = process.state
    try:
        with Lease(state, process.settings, order, id, process.stop_file, attempt.started, watch.hurry) as lease:
            outcome = execute(attempt, lease, watch)
    except DEVICE_LOST:
        _log.exception("device_lost")
        process.leave()
        raise
    except Exception as error:  # noqa: BLE001 (decided by class; logged with its traceback if it is not one of ours)
        decision = decide(error, state.shards.tries(order), process.settings.max_transient, jitter())
        if not isinstance(error, NightshiftError):
            _log.exception("unexpected_error")
        verdict = _carried_out(decision, state, order, id)
        is_final = verdict.stands and not isinstance(decision, PutBack)
        return Outcome("failed" if is_final else "put_back", f"{type(error).__name__}: {error}"), verdict
    report = outcome.report
    finish = state.shards.commit(order, id, report.rows, report.errors) if report is not None else False
    return outcome, Verdict(stands=True, finish=finish, suspect=False)


def _carried_out(decision: Decision, state: State, order: ShardOrder, id: str) -> Verdict:
    if isinstance(decision, FailJob):
        return state.shards.refuse(order, id, decision.error, decision.times, decision.delay_s)
    if isinstance(decision, FailShard):
        return state.shards.fail(
            order, id, decision.error, decision.kind, decision.times, decision.delay_s, is_certain=decision.certain
        )
    return Verdict(stands=True, finish=state.shards.requeue(order, id), suspect=False)


@contextmanager
def _loading(lease: Lease, watch: Watch, settings: Settings) -> Iterator[None]:
    with lease.loading(), watch.loading(settings.load_timeout_s):
        yield


def execute(attempt: Attempt, lease: Lease, watch: Watch) -> Outcome:
    """Compute the shard's part and create it in storage. If another attempt's part is there already, it counts."""
    process, order = attempt.process, attempt.order
    with watch.moving(OPEN):
        job = process.job(order.job)
        folder = JobFolder.of(job.accepted, process.storage)
        found = folder.find_report(attempt.part, order.job)
        if found is not None:
            return Outcome("found", report=found)
        shard = job.shard(order.shard)
    loading, fetching = partial(_loading, lease, watch, process.settings), partial(watch.moving, FETCH)
    held = process.models.get(job.accepted, job.handler, loading, fetching)
    dtype = str(held.loaded.dtype).removeprefix("torch.")
    handler = job.handler(held.loaded, job.accepted.spec.task_params, job.accepted.spec)
    backend = f"{process.models.device.type} {dtype}"
    with watch.moving(FETCH):
        known = job.known_answers(backend, handler.deterministic)
    limits = process.settings.record_timeout_s, process.settings.process_memory_gb
    careful = careful_after(process.state.shards.deaths(order), *limits, lease.name)
    loaded_now = held.load_s
    held.load_s = 0.0
    with PartWriter(job.output_schema) as writer, _reuse(known) as reuse:
        run = ShardRun(handler, job.budget(held), lease.check, watch, *([reuse] if reuse else []))
        run.run(shard, job.reader, job.task_columns, writer, careful, Reading(attempt.is_last))
        _check_unexpected(run, attempt)
        report = run.report(
            job=order.job,
            shard=order.shard,
            attempt=attempt.id,
            worker=process.name,
            fingerprint=job.fingerprint(shard),
            device=str(process.models.device),
            dtype=dtype,
            versions=process.versions,
            checksum=writer.checksum,
            seconds={"wall": round(time.monotonic() - attempt.started, 4), "load": round(loaded_now, 4)},
        )
        part = writer.close(report, partial(watch.moved, UPLOAD))
        if reuse is not None and reuse.new.rows:  # right, whoever's part counts
            with watch.moving(UPLOAD):
                reuse.known.ledger.add(order.job, order.shard, reuse.new.close(), attempt.id)
        lease.check_for_commit()
        try:
            with watch.moving(UPLOAD):
                folder.write_part(attempt.part, part, attempt.id)
        except AlreadyExists:
            with watch.moving(OPEN):
                found = folder.find_report(attempt.part, order.job)
            if found is None:
                raise
            return Outcome("found", report=found)
    seconds = time.monotonic() - attempt.started - loaded_now
    process.note_rate(job, report.rows / max(seconds, 1e-3))
    return Outcome("committed", report=report)


@contextmanager
def _reuse(known: KnownAnswers | None) -> Iterator[Reuse | None]:
    if known is None:
        yield None
        return
    with AnswerWriter(known.ledger.schema) as new:
        yield Reuse(known, new)


def _check_unexpected(run: ShardRun, attempt: Attempt) -> None:
    """Raise Transient if records failed as none should, and this machine may be at fault: others are to try them."""
    process = attempt.process
    if run.unexpected is None:
        return
    why = device_fault(process.models.device)
    if why is None and not run.answered and not process.state.shards.is_confirmed(attempt.order):
        why = f"no record could be done on this machine; the first error: {run.unexpected.message}"
    if why is not None:
        raise Transient(why)

"""What is to be done about a due time? A pure function of the schedule's policies and of what is under way."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.schedule import ON_TIME_S, Outcome, Schedule


@dataclass(frozen=True)
class Standing:
    """How a due time stands. `later` due times came after it, and `open_runs` started before it and have not ended.

    A run may start from `ready` on, its due time with the jitter. `freed` is when the last run before it ended.
    """

    now: datetime
    ready: datetime
    later: int
    open_runs: tuple[str, ...]
    freed: datetime | None = None


@dataclass(frozen=True)
class Decision:
    """Start the run, or not, and why. Wait if there is no outcome. `cancels` are the runs to be cancelled."""

    outcome: Outcome | None
    why: str = ""
    cancels: tuple[str, ...] = ()


def decide(schedule: Schedule, seen: Standing) -> Decision:
    """Return what to do about a due time that nothing was decided of.

    Due times that are caught up run one after the other, whatever `overlap` says.
    """
    if seen.now < seen.ready:
        return Decision(None, "its jitter is not over")
    late_s = (seen.now - seen.ready).total_seconds()
    if schedule.start_deadline_s is not None and late_s > schedule.start_deadline_s:
        return Decision(Outcome.MISSED, f"it didn't start within {schedule.start_deadline_s} s")
    queues = schedule.overlap == "queue"
    if queues and seen.later >= schedule.catch_up_limit:
        return Decision(Outcome.SKIPPED, f"{seen.later} later ones wait already, and {schedule.catch_up_limit} may")
    if queues and seen.open_runs:
        return Decision(None, f"run {seen.open_runs[0]} is under way")
    ready = max(seen.ready, seen.freed) if queues and seen.freed is not None else seen.ready
    if seen.now - ready > timedelta(seconds=ON_TIME_S):
        return _catch_up(schedule, seen)
    if not seen.open_runs:
        return Decision(Outcome.STARTED)
    if schedule.overlap == "cancel_older":
        return Decision(Outcome.STARTED, cancels=seen.open_runs)
    return Decision(Outcome.SKIPPED, f"run {seen.open_runs[0]} was under way")


def _catch_up(schedule: Schedule, seen: Standing) -> Decision:
    """Decide on a due time that was missed."""
    if schedule.catch_up == "none":
        return Decision(Outcome.MISSED, "nothing could start it in time, and catch_up is none")
    if schedule.catch_up == "latest" and seen.later:
        return Decision(Outcome.MISSED, "nothing could start it in time, and catch_up takes the latest one")
    limit = schedule.catch_up_limit
    if seen.later >= limit:
        return Decision(Outcome.MISSED, f"nothing could start it in time, and catch_up_limit is {limit}")
    if seen.open_runs:
        return Decision(None, f"run {seen.open_runs[0]} is under way")
    return Decision(Outcome.STARTED, "caught up")


def jitter(schedule: Schedule, digest: bytes) -> timedelta:
    """Return by how much a run starts later than it is due. Every process finds the same, from a hash of the run."""
    share = int.from_bytes(digest[-4:], "big") / 2**32
    return timedelta(seconds=int(share * (schedule.jitter_s + 1)) if schedule.jitter_s else 0)

"""Bugs that are planted on purpose, to see that the simulation finds them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import jobs.control.build_manifest
import jobs.state.connection
import jobs.supervisor.recovery
import workers.execution.attempt
from jobs.control.finisher import Finisher
from jobs.supervisor.recovery import Standing
from schemas.errors import AccessDenied, Transient
from schemas.manifest import JobStatus
from workers.execution.lease import Lease
from workers.execution.retry_policy import FailJob, FailShard, decide


@contextmanager
def _script(name: str, right: str, wrong: str) -> Iterator[None]:
    """Other text in one of the scripts."""
    read = jobs.state.connection._read

    def changed(file: str) -> str:
        text = read(file)
        if file == name:
            assert right in text, f"{name}.lua has no {right!r} any more"
            text = text.replace(right, wrong)
        return text

    with patch.object(jobs.state.connection, "_read", changed):
        yield


def one_machine_is_believed() -> Any:
    """A job fails for what one machine of several saw."""
    return _script("losses", "return math.min(2, math.max(1, tonumber(able)))", "return 1")


def a_job_never_counts_as_done() -> Any:
    """All shards are done, and control isn't asked for the end."""
    right = "done + redis.call('HLEN', job_key(id, 'failed')) >= shards"
    return _script("prelude", right, right.replace(">=", ">"))


def nobody_gives_up() -> Any:
    """A shard that ends each worker is released again and again."""
    return _script("losses", "local too_many = without >= limit", "local too_many = false and without >= limit")


def what_is_left_to_others_is_lost() -> Any:
    """A shard that failed here is taken from the list, and not put back for others."""
    return _script("shard_take", "redis.call('RPUSH', list, shard)", "")


def a_delayed_shard_is_forgotten() -> Any:
    """The delay is over, and the shard isn't released."""
    return _script("sweep", "if unfinished(id) then again(id, shard) end", "")


def promised_messages_are_waited_for_ever() -> Any:
    """A process dies between promising messages and sending them."""
    return _script("tickets_missing", "redis.call('PEXPIRE', promised, 5000)", "")


def refused_access_is_final() -> Any:
    """Credentials that are refused for seconds fail the job."""

    def hasty(error: Exception, tries: int, max_tries: int, jitter: float) -> Any:
        decision = decide(error, tries, max_tries, jitter)
        if isinstance(error, AccessDenied) and isinstance(decision, FailJob):
            return FailJob(decision.error, 1, decision.delay_s)
        return decision

    return patch.object(workers.execution.attempt, "decide", hasty)


def a_passing_fault_is_final() -> Any:
    """Two machines that can't reach the store for seconds give up the shard."""

    def hasty(error: Exception, tries: int, max_tries: int, jitter: float) -> Any:
        decision = decide(error, tries, max_tries, jitter)
        if isinstance(error, Transient) and isinstance(decision, FailShard):
            return FailShard(decision.error, decision.kind, 1, decision.delay_s)
        return decision

    return patch.object(workers.execution.attempt, "decide", hasty)


def a_commit_without_a_lease() -> Any:
    """A part is written though the job may have been cancelled, and ended, meanwhile."""
    return patch.object(Lease, "check_for_commit", lambda lease: None)


def lost_shards_succeed() -> Any:
    """A job that lost shards counts as succeeded."""
    right = jobs.control.build_manifest._final_status

    def wrong(*args: Any) -> JobStatus:
        status = right(*args)
        return JobStatus.SUCCEEDED if status is JobStatus.FAILED else status

    return patch.object(jobs.control.build_manifest, "_final_status", wrong)


def a_job_entered_again_does_not_settle() -> Any:
    """A stopped job ends while an attempt of before Redis was emptied writes its part."""
    return _script("job_add", "now() + tonumber(settle_s)", "0")


def redis_is_told_of_the_end_first() -> Any:
    """A job has ended in Redis before its manifest is written."""
    write = Finisher._write_manifest

    def early(finisher: Finisher, progress: Any) -> Any:
        finisher._state.jobs.finish(progress.job, JobStatus.SUCCEEDED)
        return write(finisher, progress)

    return patch.object(Finisher, "_write_manifest", early)


def a_rebuilding_that_forgets_what_is_away() -> Any:
    """Redis counts as whole again, though a job couldn't be read."""
    read = jobs.supervisor.recovery._read

    def blind(*args: Any) -> Any:
        seen = read(*args)
        away = seen.standing is Standing.AWAY
        return jobs.supervisor.recovery.Seen(seen.id, seen.output, Standing.UNREADABLE) if away else seen

    return patch.object(jobs.supervisor.recovery, "_read", blind)


#: `make simulate` looks for each in a thousand seeds.
PLANTED: list[Callable[[], Any]] = [
    one_machine_is_believed,
    a_job_never_counts_as_done,
    nobody_gives_up,
    what_is_left_to_others_is_lost,
    a_delayed_shard_is_forgotten,
    promised_messages_are_waited_for_ever,
    refused_access_is_final,
    a_passing_fault_is_final,
    a_commit_without_a_lease,
    lost_shards_succeed,
    a_job_entered_again_does_not_settle,
    redis_is_told_of_the_end_first,
    a_rebuilding_that_forgets_what_is_away,
]

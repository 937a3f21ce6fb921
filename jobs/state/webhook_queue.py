"""Webhooks that are due, in Redis: a job from the moment its manifest stands until its webhook is settled.

Lost with Redis, they are found again by the catalog: a job with a webhook is marked as ended only once that is settled.
"""

from jobs.state import State, _guarded


@_guarded
def add(state: State, job: str, output: str) -> None:
    """Note that a job has ended that wants a webhook. One that is noted stays as it is."""
    state._run("webhook_add", job, output)


@_guarded
def take_due(state: State, lease_s: float) -> list[tuple[str, str]]:
    """Jobs whose webhook is due, and their outputs; each is due again after `lease_s`, unless it is settled by then."""
    return [(job, output) for job, output in state._run("webhook_due", lease_s)]


@_guarded
def begin(state: State, job: str) -> int | None:
    """Count a try; how many that makes. None where the job's webhook is settled."""
    tries = int(state._run("webhook_tried", job))
    return tries or None


@_guarded
def again(state: State, job: str, delay_s: float) -> None:
    """Make the job's webhook due after so long."""
    state._run("webhook_later", job, delay_s)


@_guarded
def settle(state: State, job: str) -> None:
    """Forget the job's webhook: it was delivered, or given up."""
    state._run("webhook_settle", job)


@_guarded
def waiting(state: State) -> int:
    """How many webhooks are not settled."""
    return int(state._redis.zcard("nightshift:notices"))

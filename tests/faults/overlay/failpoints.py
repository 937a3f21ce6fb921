"""Failpoints: named steps of a job at which a test makes a real process fail. Imported by the copies' two Celery apps.

The product knows nothing of them. A test arms one by a file, `NAME@SHARD~NUMBER` with the action in it; the process
that reaches the step first takes the file, so that it fails once. The steps:

claimed, read, batch-1, batch-2 …            of a shard; the stub task reaches the last ones
before_commit, after_commit, told            before and after its part is created; after Redis is told, before the ack
before_plan, after_plan, before_manifest, after_manifest
before_run, after_run, before_seen, after_seen  of a series: a job gets its number, and is recorded
before_table, after_table                    around the commit to a job's table, in the control process
before_add, table_there, after_add           around it in its own process; the table is there, its parts not yet
"""

import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.broker import Broker
from jobs.state.shards import Shards
from jobs.storage import Storage
from schemas.layout import MANIFEST, PLAN, shard_of

FOLDER = Path(os.environ["FAULTS"])
#: How often each message is sent, and by how many seconds this process's clock is wrong.
DELIVERIES = int(os.environ.get("FAULTS_DELIVERIES", "1"))
CLOCK_S = float(os.environ.get("FAULTS_CLOCK_S", "0"))

HOST = os.environ.get("NIGHTSHIFT_HOST", "")

_shard: int | None = None


def reach(step: str, shard: int | None = None) -> None:
    """Do what is armed for this step, of this shard or of any; by default the shard claimed last."""
    shard = _shard if shard is None else shard
    for of in (str(shard), "any"):
        for arm in sorted((FOLDER / "armed").glob(f"{step}@{of}~*")):
            action = arm.read_text() if arm.exists() else ""
            try:
                arm.rename(FOLDER / "fired" / f"{arm.name}~{os.getpid()}")
            except FileNotFoundError:  # another process was first
                continue
            _act(action)


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "hang":
        while True:
            time.sleep(3600)
    else:
        raise ValueError(f"no such action: {action!r}")


_take, _commit, _create, _send = Shards.take, Shards.commit, Storage.create, Broker._send


def _taken(self: Shards, tasks: Any, models: Any, attempt: str, *more: Any) -> Any:
    global _shard
    order = _take(self, tasks, models, attempt, *more)
    with (FOLDER / "claims").open("a") as file:
        file.write(f"{order.job} {order.shard} {HOST}\n" if order else "nothing\n")
    if order is not None:
        _shard = order.shard
        reach("claimed")
    return order


def _told(self: Shards, *args: Any, **kwargs: Any) -> Any:
    answer = _commit(self, *args, **kwargs)
    reach("told")
    return answer


def _created(self: Storage, uri: str, body: Any, owner: str) -> Any:
    name = uri.rsplit("/", 1)[-1]
    shard = shard_of(name)
    series = next((kind for kind in ("run", "seen", "merged") if name.startswith(f"{kind}-")), "other")
    step = {MANIFEST: "manifest", PLAN: "plan"}.get(name, "commit" if shard is not None else series)
    reach(f"before_{step}", shard)
    info = _create(self, uri, body, owner)
    reach(f"after_{step}", shard)
    return info


def _sent(self: Broker, *args: Any) -> None:
    for _ in range(DELIVERIES):
        _send(self, *args)


Shards.take, Shards.commit, Storage.create = _taken, _told, _created  # type: ignore[method-assign, assignment]
Broker._send = _sent  # type: ignore[method-assign, assignment]

if find_spec("jobs.tables"):  # an earlier version has none
    import jobs.control.tables
    import jobs.tables.commit

    _commit_apart, _commit_job = jobs.control.tables.commit_apart, jobs.tables.commit.commit_job
    _table_of = jobs.tables.commit.table_of

    def _committed(*args: Any) -> str | None:
        reach("before_table")
        version = _commit_apart(*args)
        reach("after_table")
        return version

    _adding = False

    def _added(*args: Any) -> str | None:
        global _adding
        reach("before_add")
        _adding = True
        version = _commit_job(*args)
        reach("after_add")
        return version

    def _opened(spec: Any) -> Any:
        table = _table_of(spec)
        check = table._check

        def checked(*args: Any) -> None:
            check(*args)
            if _adding:  # at planning the table is looked at too
                reach("table_there")

        table._check = checked
        return table

    jobs.control.tables.commit_apart, jobs.tables.commit.table_of = _committed, _opened
    if "jobs.tables.child" in sys.modules:  # this is the process that commits, in the midst of its imports
        sys.modules["jobs.tables.child"].commit_job = _added  # type: ignore[attr-defined]

if os.environ.get("FAULTS_ON_DISK"):  # parts are written to a temporary file at once, however small they are
    import workers.io.part_writer

    workers.io.part_writer.IN_MEMORY = 1

if CLOCK_S:
    _time = time.time
    time.time = lambda: _time() + CLOCK_S

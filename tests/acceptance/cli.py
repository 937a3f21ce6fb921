"""The command line as a user runs it: a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from jobs.state import State
from tests.servers import running, wait_for

NIGHTSHIFT = [sys.executable, "-m", "nightshift"]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """This process's environment; one thread a process, since tests share the machine."""
    return dict(os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def nightshift(*arguments: object, timeout: float = 240, **env: str) -> Done:
    """Run a command to its end."""
    command = [*NIGHTSHIFT, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**env), stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def options(model: object, source: object, output: object, *more: str) -> list[str]:
    """The options of a text classification whose input column is called `review`."""
    chosen = ["--task", "text-classification", "--model", str(model), "--input", str(source), "--output", str(output)]
    return [*chosen, "--column", "text=review", *more]


@contextmanager
def worker(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A `nightshift worker`, ended with the context."""
    with running([*NIGHTSHIFT, "worker", *arguments], environment(), log) as process:
        yield process


def at_work(worker: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The first process of the worker that has a shard in hand."""
    for child in psutil.Process(worker.pid).children(recursive=True):
        with suppress(psutil.Error):
            folder = child.environ().get("NIGHTSHIFT_WORK_FOLDER")
            if folder is not None and Path(folder, f"{child.pid}.work").exists():
                return child
    return None


def stopped_in_a_shard(worker: "subprocess.Popen[bytes]", state: State, job: str, done: int = 0) -> psutil.Process:
    """Stop the worker's one process that computes in the middle of a shard, once so many are done; return it.

    It is stopped by a signal, so that a test may take its time; `resume` lets it go on.
    """
    stopped: list[psutil.Process] = []

    def half_done() -> bool:
        seen = state.jobs.progress(job)
        return bool(seen and seen.shards_done >= done and seen.rows_live)

    def caught() -> bool:
        process = at_work(worker) if half_done() else None
        if process is None:
            return False
        process.suspend()
        if half_done():
            stopped.append(process)
            return True
        process.resume()
        return False

    wait_for("a shard half done", caught, every_s=0.01)
    return stopped[0]


def events(log: Path, name: str) -> list[dict[str, str]]:
    """The lines of a log with this event, as their fields."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "event=" in line]
    return [fields for fields in found if fields.get("event") == name]

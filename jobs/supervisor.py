"""The supervisor: `nightshift worker`. Keeps one Celery process a GPU (or CPU) running, and one that plans and finishes
jobs; runs the sweep on a timer of its own, so that it goes on while every process is busy, and oversees their work.
"""

import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import processes
from jobs.broker import CONTROL_QUEUE, Broker, make_app, task_queue
from jobs.logs import event
from jobs.oversight import Oversight
from jobs.rebuild import rebuild_if_new
from jobs.settings import Settings
from jobs.state import State
from jobs.storage import Storage
from jobs.sweep import sweep
from schemas.errors import NightshiftError, ServiceUnavailable
from schemas.task import Group
from schemas.tasks import all_tasks

_log = logging.getLogger(__name__)
#: A process that ran this long before it exited is restarted at once.
_STEADY_S = 60.0
#: Seconds at most until a rebuilding of Redis that failed is tried again.
_LONGEST_WAIT_S = 60.0


@dataclass
class _Child:
    """A Celery process that is kept running."""

    name: str
    command: list[str]
    env: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Supervisor:
    """Serves these groups with so many processes on a machine without a GPU, or one a GPU."""

    def __init__(self, settings: Settings, groups: Sequence[Group], processes_wanted: int | None) -> None:
        self._settings = settings
        self._groups = list(groups)
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._state = State(settings)
        self._broker = Broker(make_app(settings, "supervisor"))
        self._runtime = Path(tempfile.mkdtemp(prefix="nightshift-worker-"))
        self._stop_file = self._runtime / "stop"
        self._work = self._runtime / "work"
        self._work.mkdir()
        self._oversight = Oversight(self._work, self._state, self._broker, settings)
        self._stopping = threading.Event()
        self._children = self._plan_children(processes_wanted)

    def _plan_children(self, wanted: int | None) -> list[_Child]:
        tasks = [task.id for task in all_tasks().values() if task.group in self._groups]
        own_files = {"stop_file": self._stop_file, "work_folder": self._work, "serves": tasks}
        env = self._settings.model_copy(update=own_files).environment(os.environ)
        children = []
        if Group.CONTROL in self._groups:
            children.append(self._child("control", "jobs.control_app", [CONTROL_QUEUE], env))
        queues = [task_queue(task) for task in tasks]
        gpus = visible_gpus()
        count = wanted or len(gpus) or 1
        self._devices = ([f"cuda:{gpu}" for gpu in gpus[:count]] or ["cpu"]) if queues else []
        for index in range(count if queues else 0):
            if gpus:
                own = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
            else:
                threads = str(max(1, (os.cpu_count() or 1) // count))
                own = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
            children.append(self._child(f"worker-{index}", "workers.celery_app", queues, own | env))
        return children

    def _child(self, name: str, app: str, queues: list[str], env: dict[str, str]) -> _Child:
        command = processes.python("celery", "--quiet", "-A", app, "worker", "-n", f"{name}-{self._name}@%h")
        command += ["-Q", ",".join(queues), "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        return _Child(name, command, env)

    @property
    def _workers(self) -> int:
        return sum(child.name != "control" for child in self._children)

    def run(self) -> None:
        """Until SIGTERM or SIGINT: keep the processes running and sweep; then let each put its shard back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        event(
            _log,
            "supervisor_started",
            groups=",".join(self._groups),
            processes=self._workers,
            name=self._name,
        )
        try:
            sweeper = threading.Thread(target=self._sweep_on_time, name="sweep", daemon=True)
            sweeper.start()
            overseer = threading.Thread(
                target=self._oversight.run, args=[self._stopping], name="oversight", daemon=True
            )
            overseer.start()
            if self._settings.rebuild:
                threading.Thread(target=self._rebuild_when_new, name="rebuild", daemon=True).start()
            while not self._stopping.wait(0.2):
                for child in self._children:
                    self._keep(child)
            sweeper.join(self._settings.sweep_s)
            overseer.join(self._settings.sweep_s)
        finally:
            self._end()

    def _keep(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.failures = 0 if now - child.started > _STEADY_S else child.failures + 1
            delay = 0.0 if not child.failures else min(60.0, 2.0 ** (child.failures - 1)) * random.uniform(0.5, 1)
            event(_log, "process_exited", logging.WARNING, process=child.name, status=code, restart_s=delay)
            child.process, child.not_before = None, now + delay
        if now >= child.not_before:
            child.process = processes.start(child.command, child.env, self._runtime)
            child.started = now

    def _sweep_on_time(self) -> None:
        while True:
            try:
                in_hand = self._oversight.in_hand()
                self._state.report_worker(self._name, self._groups, self._workers, self._devices, in_hand)
                sweep(self._state, self._broker, self._settings, self._name)
            except ServiceUnavailable as error:
                event(_log, "sweep_failed", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (the sweep is what everything else relies on: it goes on)
                _log.exception("sweep_failed")
            if self._stopping.wait(self._settings.sweep_s):
                return

    def _rebuild_when_new(self) -> None:
        storage, failures = Storage(), 0
        while True:
            try:
                rebuild_if_new(self._state, self._broker, storage, self._settings, self._name)
                failures = 0
            except NightshiftError as error:
                failures += 1
                event(_log, "rebuild_failed", logging.WARNING, error=error.message)
            except Exception:  # noqa: BLE001 (to be tried again)
                failures += 1
                _log.exception("rebuild_failed")
            if self._stopping.wait(min(_LONGEST_WAIT_S, self._settings.sweep_s * 2 ** min(failures, 10))):
                return

    def _end(self) -> None:
        event(_log, "supervisor_stopping")
        self._stop_file.touch()
        processes.stop([c.process for c in self._children if c.process is not None], self._settings.grace_s)
        try:
            self._oversight.put_back()
            self._state.forget_worker(self._name)
        except ServiceUnavailable as error:
            event(_log, "redis_away", logging.WARNING, error=error.message)
        shutil.rmtree(self._runtime, ignore_errors=True)


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA names them: what CUDA_VISIBLE_DEVICES lists, else all of nvidia-smi's."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name for name in listed.split(",") if name and name != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    found = subprocess.run(
        [tool, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return found.stdout.split() if found.returncode == 0 else []

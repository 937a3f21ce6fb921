"""The Celery processes of a machine: one a GPU, or on a CPU as many as asked for, and some that plan and finish jobs.

Kept apart from the supervisor so that a command can start them with little imported: they take longest to be ready.
"""

import logging
import os
import random
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.broker import CONTROL_QUEUE, task_queue
from jobs.logs import event
from jobs.settings import Settings
from jobs.supervisor import child_processes
from schemas.errors import ServiceUnavailable
from schemas.task import Group
from schemas.tasks import all_tasks

_log = logging.getLogger(__name__)
#: A process that ran this long before it exited is restarted at once.
_STEADY_S = 60.0
#: Exits in a row after which waiting for a process is of no use.
_TOO_MANY = 3


@dataclass
class _Child:
    """A Celery process that is kept running."""

    name: str
    command: list[str]
    env: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    failures: int = 0
    status: int = 0
    not_before: float = 0.0


class CeleryProcesses:
    """Processes that serve these groups: `wanted` on a machine without a GPU, by default 1, or one a GPU.

    Their output is appended to `log`, or goes where this process's goes. Their other files are in a
    temporary folder, which goes with the context.
    """

    def __init__(
        self, settings: Settings, groups: Sequence[Group], wanted: int | None = None, log: Path | None = None
    ) -> None:
        # A random end, since machines made from one image may have equal names and process ids.
        self.name = f"{settings.host}-{os.getpid()}-{secrets.token_hex(3)}"
        self.groups = list(groups)
        self._log_file = log
        self._runtime = Path(tempfile.mkdtemp(prefix="nightshift-worker-"))
        self._stop_file = self._runtime / "stop"
        #: Where the processes say what they have in hand.
        self.work = self._runtime / "work"
        self.work.mkdir()
        self.devices: list[str] = []
        #: Resident size of a process at most: the settings', or an equal share of this machine's memory.
        self.process_memory_gb = settings.process_memory_gb
        self._children = self._plan_children(settings, wanted)

    def _plan_children(self, settings: Settings, wanted: int | None) -> list[_Child]:
        tasks = [task.id for task in all_tasks().values() if task.group in self.groups]
        files = {"stop_file": self._stop_file, "work_folder": self.work, "worker": self.name, "host": settings.host}
        queues = [task_queue(task) for task in tasks]
        gpus = visible_gpus() if queues else []
        count = wanted or len(gpus) or 1
        if self.process_memory_gb is None:
            self.process_memory_gb = 0.9 * memory_bytes() / (1 << 30) / count
        given = {"serves": tasks, "process_memory_gb": self.process_memory_gb}
        env = settings.model_copy(update=files | given).environment(os.environ)
        env["TMPDIR"] = str(self._runtime)  # goes with the rest, whatever ended the process that left a file there
        children = []
        self.devices = ([f"cuda:{gpu}" for gpu in gpus[:count]] or ["cpu"]) if queues else []
        for index in range(count if queues else 0):
            if gpus:
                own = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]}
            else:
                threads = str(max(1, (os.cpu_count() or 1) // count))
                own = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
            own["NIGHTSHIFT_SLOT"] = str(index)
            children.append(self._child(f"worker-{index}", "workers.celery_app", queues, env | own))
        if Group.CONTROL in self.groups:  # last: it is ready long before a worker has imported torch
            for index in range(settings.control_processes):
                children.append(self._child(f"control-{index}", "jobs.control.celery_app", [CONTROL_QUEUE], env))
        return children

    def _child(self, name: str, app: str, queues: list[str], env: dict[str, str]) -> _Child:
        return _Child(name, ["-m", "jobs.supervisor.celery_worker", app, f"{name}-{self.name}", *queues], env)

    @property
    def workers(self) -> int:
        """How many of the processes run shards."""
        return sum(not child.name.startswith("control-") for child in self._children)

    def keep(self) -> None:
        """Start the processes that are not running, with backoff if one keeps exiting."""
        for child in self._children:
            self._keep(child)

    def _keep(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.status = code
            child.failures = 0 if now - child.started > _STEADY_S else child.failures + 1
            delay = 0.0 if not child.failures else min(60.0, 2.0 ** (child.failures - 1)) * random.uniform(0.5, 1)
            event(_log, "process_exited", logging.WARNING, process=child.name, status=code, restart_s=delay)
            child.process, child.not_before = None, now + delay
        if now >= child.not_before:
            child.process = child_processes.start(child.command, child.env, self._runtime, self._log_file)
            child.started = now

    def check(self) -> None:
        """Raise ServiceUnavailable if a process keeps exiting right after its start."""
        for child in self._children:
            if child.failures >= _TOO_MANY:
                raise ServiceUnavailable(f"the process {child.name} keeps ending, last with status {child.status}")

    def tell_to_stop(self) -> None:
        """Tell the processes to take no more shards, and to put back those they have in hand."""
        self._stop_file.touch()

    def stop(self, grace_s: float) -> None:
        """Let each process put its shard back and exit. Kill those left after the grace period."""
        self.tell_to_stop()
        child_processes.stop([child.process for child in self._children if child.process is not None], grace_s)

    def kill(self) -> None:
        """End the processes and their children at once. Only for idle ones whose Redis ends with them."""
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for process in running:
            process.wait()

    def __enter__(self) -> "CeleryProcesses":
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the processes' temporary files. They must have been stopped."""
        shutil.rmtree(self._runtime, ignore_errors=True)


def memory_bytes() -> int:
    """Return how much memory this machine has, or may use: a container's limit if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    found = [file.read_text().strip() for file in limits if file.is_file()]
    return min([total, *(int(limit) for limit in found if limit.isdecimal())])


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA names them: CUDA_VISIBLE_DEVICES, else all of nvidia-smi's."""
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

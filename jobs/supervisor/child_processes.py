"""Child processes that end with their parent, whatever ends it.

Run as `python -m jobs.supervisor.child_processes PARENT COMMAND…`, this module binds itself to its parent and becomes
the command, or runs the module that `-m MODULE` names. (The usual place for that, `preexec_fn`, is not safe in a
process that has threads.)
"""

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path | None = None
) -> "subprocess.Popen[bytes]":
    """Start a program, or a Python module as `["-m", MODULE, …]`, in a session of its own: Ctrl-C reaches us alone.

    `cwd` is a folder of ours: Python and Celery look for modules in the working folder, and the user's may have some by
    the same names. Output is appended to `log`, or goes where this process's goes. On Linux the child gets SIGTERM when
    this process is gone, even if that was killed.
    """
    wrapped = [sys.executable, "-P", "-m", __name__, str(os.getpid()), *command]
    safe = dict(env) | {"PYTHONSAFEPATH": "1"}  # for the processes that the child starts in turn

    def popen(output: IO[bytes] | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            wrapped,
            env=safe,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    if log is None:
        return popen(None)
    with log.open("ab") as output:
        return popen(output)


def stop(processes: "Sequence[subprocess.Popen[bytes]]", grace_s: float) -> None:
    """End these children together: SIGTERM, and SIGKILL to the whole session of one that outlives the grace period."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _run(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # gone before the call
            sys.exit(1)
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        os.execvp(command[0], command)


if __name__ == "__main__":
    _run(int(sys.argv[1]), sys.argv[2:])

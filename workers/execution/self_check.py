"""Is this machine fit to run shards? Its disk, its memory, its device; and storage, if a job is known that uses it."""

import tempfile
from pathlib import Path

import torch

from jobs.storage.job_folder import JobFolder
from schemas.errors import NightshiftError

#: Bytes that must be writable to the disk of temporary files, and free in memory.
_DISK_BYTES = 8 << 20
_MEMORY_BYTES = 128 << 20


def unfit(device: torch.device, folder: JobFolder | None = None) -> str | None:
    """Return why this machine shouldn't take a shard, or None. `folder` is of a job whose shards it ran."""
    return _disk() or _memory() or device_fault(device) or (_storage(folder) if folder is not None else None)


def _disk() -> str | None:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_DISK_BYTES))
            file.flush()
    except OSError as error:
        return f"temporary files can't be written in {tempfile.gettempdir()}: {error}"
    return None


def _memory() -> str | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # another system than Linux
        return None
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    if free is not None and free < _MEMORY_BYTES:
        return f"{free >> 20} MiB of memory are left, less than the {_MEMORY_BYTES >> 20} that a shard needs"
    return None


def device_fault(device: torch.device) -> str | None:
    """Return what is wrong with the device, or None. Any device multiplies small whole numbers exactly."""
    try:
        left = torch.arange(64, dtype=torch.float32, device=device).reshape(8, 8)
        trace = int((left @ left.T).trace().item())
    except RuntimeError as error:
        return f"the device {device} fails at a small product: {error}"
    right = sum(n * n for n in range(64))
    return None if trace == right else f"the device {device} computes {trace} where {right} is right"


def _storage(folder: JobFolder) -> str | None:
    """Read a job's file and try to create it, which the store refuses: by that it shows that it would let us write."""
    try:
        if folder.read_job() is None:
            return f"{folder.output} holds no job that can be seen from here"
        folder.refuses_overwrite()
    except NightshiftError as error:
        return f"storage can't be used from here: {error.message}"
    return None

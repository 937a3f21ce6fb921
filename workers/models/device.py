"""The device: which one this process has, the dtype it works in, and what running out of memory looks like there."""

import gc

import torch

#: Padded tokens a batch where nothing else is set. On a CPU as many as the bare loop of docs/performance.md, which
#: the runner keeps up with; on a GPU too small a batch leaves it idle, and the number there has not been measured.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}

OUT_OF_MEMORY: tuple[type[BaseException], ...] = (torch.OutOfMemoryError, MemoryError)

#: A device that is lost to this process, whatever it is asked: after a failed assertion in a CUDA kernel, say. Only a
#: new process helps. (Before torch 2.8 there is no class for it.)
DEVICE_LOST: tuple[type[BaseException], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()


def pick_device() -> torch.device:
    """The GPU that the supervisor gave this process, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(wanted: str, stored: str | None, device: torch.device) -> torch.dtype:
    """The dtype to load weights in.

    `auto` never changes an answer beyond rounding: float32 on a CPU; on a GPU the dtype the checkpoint is stored in.
    """
    if wanted == "auto":
        wanted = stored if stored in ("bfloat16", "float16") and device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def free_memory() -> None:
    """Give cached device memory back after running out of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def default_budget(device: torch.device) -> int:
    return BATCH_TOKENS[device.type]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device; to a GPU by way of pinned memory, without waiting for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""Which device does this process have? Also: its dtype, the size of its batches, and its out-of-memory errors."""

import gc

import torch

#: The default number of padded tokens per batch. On a CPU it is that of the bare loop in docs/performance.md, which the
#: runner keeps up with. On a GPU too small a batch would leave it idle; the number for GPUs has not been measured.
BATCH_TOKENS = {"cpu": 2048, "cuda": 65_536}

OUT_OF_MEMORY: tuple[type[BaseException], ...] = (torch.OutOfMemoryError, MemoryError)

#: Errors after which this process can no longer use the device: a failed assertion in a CUDA kernel, say. Only a new
#: process helps. (Before torch 2.8 there is no class for it.)
DEVICE_LOST: tuple[type[BaseException], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()


def pick_device() -> torch.device:
    """Return the GPU that the supervisor gave this process, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def pick_dtype(wanted: str, stored: str | None, device: torch.device) -> torch.dtype:
    """Return the dtype to load weights in.

    `auto` never changes an answer beyond rounding: it is float32 on a CPU, and on a GPU the dtype of the checkpoint.
    """
    if wanted == "auto":
        wanted = stored if stored in ("bfloat16", "float16") and device.type == "cuda" else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]


def free_memory() -> None:
    """Give cached device memory back, after the device ran out of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def available_memory(device: torch.device) -> int | None:
    """Return how many bytes of a GPU are free, or only cached by this process; None for the CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def default_budget(device: torch.device) -> int:
    return BATCH_TOKENS[device.type]


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the tensor on the device. A copy to a GPU goes by way of pinned memory and isn't waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

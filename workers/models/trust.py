"""Can this model's folder be loaded without harm? Anyone may have written it, and its configuration says what is built.

What is built must fit the weights that are there: a small file can't make a worker build millions of layers, or fill
its memory with numbers that are in no file.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModel

from jobs.storage.model_digest import MAX_CONFIG_BYTES
from schemas.errors import Permanent

#: Bytes of a vocabulary, and of any file but weights.
MAX_VOCABULARY_BYTES = 512 << 20
#: Keys that say how many modules are built, each of several tensors at least; those of sizes and the like are none.
_MODULES = re.compile(r"layer|block|expert|head|depth|stage|group|adapter|codebook|quantizer")
_SIZES = re.compile(
    r"size|dim|length|token|vocab|window|capacity|width|position|channel|pixel|resolution|freq|index|ids?$"
)
#: Numbers that make nothing larger.
_NO_COUNT = re.compile(r"_id$|theta")
_FEW, _MANY = 1_000, 10_000_000
#: Numbers of a model for each byte of its weights: two in four-bit weights, and some that are in no file.
_PER_BYTE = 3
_WEIGHTS = "*.safetensors"
#: The bits of a number in the name of a type in safetensors, such as BF16, I64 or F8_E4M3; BOOL has a byte.
_BITS = re.compile(r"^[A-Z]+(\d+)")
#: Implementations of attention that Transformers has itself. Others are code from the hub.
_ATTENTION = ("eager", "sdpa")


def check_folder(folder: Path) -> int:
    """Return the bytes of the folder's weights.

    Raise Permanent (code `model`) if loading it could run other code, or build more than its weights.
    """
    config = read_config(folder / "config.json")
    for file in folder.rglob("*"):
        limit = MAX_VOCABULARY_BYTES if file.name != "config.json" else MAX_CONFIG_BYTES
        if file.suffix != ".safetensors" and file.is_file() and file.stat().st_size > limit:
            raise _refused(f"{file.name} has {file.stat().st_size:,} bytes; {limit:,} are allowed")
    _check_index(folder)
    tensors, size = _weights(folder)
    _check_values(config, max(tensors, _FEW), max(size, _MANY))
    return size


def read_config(file: Path) -> dict[str, Any]:
    """Return a model's configuration. Raise Permanent (code `model`) if it can't be read, or is too large."""
    size = file.stat().st_size if file.is_file() else 0
    if size > MAX_CONFIG_BYTES:
        raise _refused(f"its config.json has {size:,} bytes; {MAX_CONFIG_BYTES:,} are allowed")
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(f"its config.json can't be read: {error}") from None
    if not isinstance(config, dict):
        raise _refused("its config.json is not an object")
    return config


def check_size(auto: Any, config: Any, size: int) -> None:
    """Raise Permanent (code `model`) if the model has more numbers than weights of `size` bytes can hold."""
    build: Any = getattr(auto, "from_config", AutoModel.from_config)
    for name in config.architectures or ():
        getattr(transformers, name, None)  # imports its module here: what a module computes at its import needs numbers
    with torch.device("meta"):  # which holds shapes and no numbers
        model = build(config)
    built = sum(parameter.numel() for parameter in model.parameters())
    built += sum(buffer.numel() for buffer in model.buffers())
    if built > max(_PER_BYTE * size, _MANY):
        raise _refused(f"its configuration has {built:,} numbers, its weights are {size:,} bytes")


def _refused(why: str) -> Permanent:
    return Permanent(f"the model doesn't load: {why}", code="model")


def _check_index(folder: Path) -> None:
    """Raise Permanent if an index of weights names anything but safetensors files of this very folder."""
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise _refused(f"{index.name} is no index of weights: {error!r}") from None
        for name in names:
            plain = isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name)
            if not plain or not (folder / name).is_file():
                raise _refused(f"{index.name} names {name!r}, which is no safetensors file beside it")


def loaded_size(folder: Path, dtype: torch.dtype) -> int:
    """Return the bytes that the folder's weights take once loaded: each float has the size of `dtype` then.

    Raise Permanent (code `model`) for weights that can't be read.
    """
    size = 0
    for weights in _opened(folder):
        for name in weights.keys():  # noqa: SIM118 (no mapping)
            tensor = weights.get_slice(name)
            stored = tensor.get_dtype()
            bits = _BITS.search(stored)
            own = int(bits[1]) // 8 if bits else 1
            size += math.prod(tensor.get_shape()) * (dtype.itemsize if "F" in stored else own)
    return size


def _weights(folder: Path) -> tuple[int, int]:
    """Return how many tensors the folder's weights have, and their bytes."""
    tensors = sum(len(weights.keys()) for weights in _opened(folder))
    return tensors, sum(file.stat().st_size for file in folder.glob(_WEIGHTS))


def _opened(folder: Path) -> Iterator[Any]:
    """Yield each file of the folder's weights, opened. Raise Permanent for one that can't be read."""
    for file in folder.glob(_WEIGHTS):
        try:
            with safe_open(file, "pt") as weights:
                yield weights
        except (SafetensorError, OSError) as error:
            raise _refused(f"{file.name}: {error}") from None


def _check_values(value: Any, modules: int, numbers: int, name: str = "") -> None:
    """Raise Permanent for a number that is larger than the weights allow, and for code of the model's own choice."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(inner, modules, numbers, str(key))
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, modules, numbers, name)
    elif "attn_implementation" in name and value is not None and value not in _ATTENTION:
        raise _refused(f"its configuration asks for {name} {value!r}; {' or '.join(_ATTENTION)} can be used")
    elif isinstance(value, int) and not _NO_COUNT.search(name):  # torch makes nothing as large as a float
        limit = modules if _MODULES.search(name) and not _SIZES.search(name) else numbers
        if abs(value) > limit:
            raise _refused(f"its configuration has {name} {value:,}; its weights allow {limit:,}")

"""Pool token vectors into one vector per text, by default as the model's sentence-transformers folder says.

Files and modes: https://sbert.net/docs/package_reference/sentence_transformer/modules.html
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from schemas.errors import Permanent

#: The flags by which older folders name the modes, in the order in which the vectors of several are concatenated.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Recipe:
    """How a sentence-transformers folder makes its vectors. If that can't be done here, `unfit` says why."""

    modes: tuple[str, ...]
    normalize: bool
    max_tokens: int | None = None
    lower_case: bool = False
    prompt: str = ""
    unfit: str | None = None


def read_recipe(folder: Path) -> Recipe | None:
    """Return the folder's recipe, or None if it has no modules.json. Raise Permanent (code `model`) if it is broken."""
    if not (folder / "modules.json").is_file():
        return None
    listed = [module for module in _parsed(folder / "modules.json", list) if isinstance(module, dict)]
    modules = [(str(module.get("type")).split(".")[-1], str(module.get("path", ""))) for module in listed]
    kinds = [kind for kind, _ in modules if kind != "Dropout"]  # Dropout acts only in training
    own = _first(sorted(folder.glob("sentence_*_config.json")))
    whole = _first([folder / "config_sentence_transformers.json"])
    prompt = (whole.get("prompts") or {}).get(whole.get("default_prompt_name")) or ""
    unfit = None
    pooling: dict[str, Any] = {}
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0][1] != "":
        unfit = f"modules.json lists {', '.join(kinds)}; what can be followed is Transformer, Pooling, Normalize"
    else:
        pooling = _parsed(_inside(folder, dict(modules)["Pooling"]) / "config.json", dict)
        if prompt and not pooling.get("include_prompt", True):
            unfit = "its default prompt is left out of the pooling"
    modes = _modes(pooling)
    if set(modes) - set(_FLAGS.values()):
        unfit = f"it pools by {', '.join(modes)}"
    return Recipe(
        modes,
        normalize="Normalize" in kinds,
        max_tokens=own.get("max_seq_length"),
        lower_case=bool(own.get("do_lower_case", False)),
        prompt=prompt,
        unfit=unfit,
    )


def _modes(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if named is not None:
        return (named,) if isinstance(named, str) else tuple(named)
    return tuple(mode for flag, mode in _FLAGS.items() if config.get(flag)) or ("mean",)


def _first(files: Sequence[Path]) -> dict[str, Any]:
    """Return the first of the files that exists, parsed, else an empty dict."""
    found = next((file for file in files if file.is_file()), None)
    return {} if found is None else dict(_parsed(found, dict))


def _inside(folder: Path, path: str) -> Path:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise Permanent(f"modules.json names {path!r}, outside the model", code="model")
    return folder / path


def _parsed(file: Path, kind: type) -> Any:
    """Return the file's parsed JSON. Raise Permanent if it can't be read or is another kind of value."""
    try:
        parsed = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise Permanent(f"the model's {file.name} can't be read: {error}", code="model") from error
    if not isinstance(parsed, kind):
        raise Permanent(f"the model's {file.name} is {type(parsed).__name__}, not {kind.__name__}", code="model")
    return parsed


def pool(hidden: torch.Tensor, mask: torch.Tensor | None, modes: Sequence[str]) -> torch.Tensor:
    """Return float32 vectors of shape (texts, modes x width) from token vectors of shape (texts, tokens, width).

    `mask`, of shape (texts, tokens), is 1 for a token and 0 for padding; None means no padding. No text may be empty.
    Formulas: sentence_transformers/sentence_transformer/modules/pooling.py.
    """
    hidden = hidden.float()
    mask = torch.ones(hidden.shape[:2], device=hidden.device) if mask is None else mask.float()
    return torch.cat([_pool(hidden, mask, mode) for mode in modes], dim=1)


def _pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    if mode == "cls":
        return hidden[rows, mask.argmax(dim=1)]
    if mode == "lasttoken":
        return hidden[rows, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
    if mode == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, float("-inf")).amax(dim=1)
    weights = mask.cumsum(dim=1) * mask if mode == "weightedmean" else mask
    total = (hidden * weights[:, :, None]).sum(dim=1)
    count = weights.sum(dim=1, keepdim=True)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)

"""Load a checkpoint's model and tokenizer from its folder: from safetensors only, and with every weight in place."""

from pathlib import Path
from typing import Any

import torch
import transformers

from schemas.errors import Permanent
from workers.models.device import OUT_OF_MEMORY
from workers.models.trust import check_folder, check_size, read_config

#: Errors of loading that are raised as they are.
_PASSED_ON: tuple[type[BaseException], ...] = (Permanent, *OUT_OF_MEMORY)


def load_model(auto: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """Return the model of the auto class `auto`, in evaluation mode on the device.

    Raise Permanent (code `model`) if the folder holds no such model, or if its weights leave a part of the model unset,
    which Transformers would fill with random numbers. Raise one of OUT_OF_MEMORY if there is no room for it.
    """
    size = check_folder(folder)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        check_size(auto, config, size)
        model, info = auto.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported below, in our words
            output_loading_info=True,
        )
    except _PASSED_ON:
        raise
    except Exception as error:  # Transformers and safetensors raise many classes for a broken folder
        if "auto_map" in read_config(folder / "config.json"):
            raise Permanent("the model needs code of its own, which is never run here", code="model") from error
        raise Permanent(f"the model doesn't load: {type(error).__name__}: {error}", code="model") from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing:
        raise Permanent(
            f"it is no {auto.__name__.removeprefix('AutoModelFor')} model: it lacks {', '.join(missing[:5])}"
            + (f" and {len(missing) - 5} more weights" if len(missing) > 5 else ""),
            code="model",
        )
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer. Raise Permanent (code `model`) if there is none that can be loaded."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # as above
        raise Permanent(f"the tokenizer doesn't load: {type(error).__name__}: {error}", code="model") from error
    if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
        raise Permanent(f"the tokenizer has no vocabulary: {folder} lacks the file with it", code="model")
    return tokenizer


def load_fast_tokenizer(folder: Path) -> Any:
    """Return a tokenizer that can map tokens to characters. Raise Permanent (code `model`) if it is of another kind."""
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise Permanent(
            f"the tokenizer, a {type(tokenizer).__name__}, can't tell where in a text its tokens are; "
            "use a model with a fast one, whose folder has a tokenizer.json",
            code="model",
        )
    return tokenizer

"""Load causal language models, and encode prompts for them as token ids."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from schemas.errors import RecordError
from workers.handler import Loaded
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import groups, max_tokens


@dataclass(frozen=True)
class Causal(Loaded):
    """A causal language model. `own` is its generation configuration.

    In the model itself, the configuration keeps only its token ids, since `generate` would fill in from there what a
    call leaves open.
    """

    own: GenerationConfig


def load_causal(folder: Path, device: torch.device, dtype: torch.dtype) -> Causal:
    """Load the model and its tokenizer. Raise Permanent (code `model`) if they don't load."""
    model = load_model(AutoModelForCausalLM, folder, device, dtype)
    tokenizer = load_tokenizer(folder)
    own: Any = copy.deepcopy(model.generation_config)
    ids = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    empty: Any = GenerationConfig
    model.generation_config = empty(**ids)
    return Causal(model, tokenizer, device, dtype, own)


class Prompts:
    """Encodes prompts, with the special tokens that the tokenizer puts before a text but without those after it."""

    def __init__(self, loaded: Causal) -> None:
        self._tokenizer = loaded.processor
        own, tokenizer = loaded.own, self._tokenizer
        self.positions = max_tokens(loaded, None)
        self.before = _tokens_before(tokenizer)
        self._begin = own.bos_token_id if own.bos_token_id is not None else tokenizer.bos_token_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without a limit on their number."""
        found: list[list[int]] = []
        for group in groups(texts, len):
            bare = self.bare(group)
            found += [self.before + ids for ids in bare]
        return found

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens unless the text itself has them."""
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids

    def cut(self, ids: list[int], room: int | None) -> list[int]:
        """Return the ids, cut at the start to at most `room`. The special tokens before any text stay.

        Raise RecordError (`no_tokens`) if there are no ids and the model has no token that begins a text.
        """
        if not ids and self._begin is None:
            raise RecordError("no_tokens", "the prompt is empty, and the model has no token that begins a text")
        ids = ids or [self._begin]
        if room is None or len(ids) <= room:
            return ids
        kept = max(0, room - len(self.before))
        return self.before[:room] + ids[len(ids) - kept :]


def _tokens_before(tokenizer: Any) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = (start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
    before: list[int] = whole[: next(starts, 0)]
    return before


def left_padded(loaded: Loaded, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids, padded on the left, and their attention mask, both int64 of shape (rows, longest) on the device.

    There is a mask even if nothing is padded. Without it, Transformers would take a padding token written in a text for
    padding. The ids used as padding are not read, so a model needs no padding token.
    """
    longest = max(map(len, rows))
    fill = loaded.processor.pad_token_id or 0
    ids = torch.tensor([[fill] * (longest - len(row)) + list(row) for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=loaded.device)
    return ids, mask

"""fill-mask: a forward pass over a text, then the likeliest tokens in the place of each mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.fill_mask import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import scores
from workers.models.device import to_device
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import encode, max_tokens, padded

#: The strings that stand for the mask in a text, besides the model's own token.
MASKS = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class Masked:
    """The positions of a text's masks among its tokens, and whether the text was cut."""

    places: list[int]
    truncated: bool


class FillMask(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, None)
        self._mask, self._pad = loaded.processor.mask_token_id, loaded.processor.pad_token_id
        self._targets: torch.Tensor | None = None
        if params.targets is not None:
            self._targets = torch.tensor(target_ids(loaded.processor, params.targets), device=loaded.device)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        tokenizer = load_tokenizer(folder)
        if tokenizer.mask_token_id is None:
            raise Permanent("the tokenizer has no mask token; use a model of masked language", code="model")
        tokenizer.padding_side = "right"  # these models count a token's position from the start of its row
        return Loaded(load_model(AutoModelForMaskedLM, folder, device, dtype), tokenizer, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        """Return one piece per record, or no piece if the text has no mask."""
        own = self.loaded.processor.mask_token
        texts = [with_mask(record["text"], own) for record in records]
        pieces = []
        for text, piece in zip(texts, encode(self.loaded, texts, None, self._limit), strict=True):
            ids = piece.inputs["input_ids"]
            places = [place for place, id in enumerate(ids) if id == self._mask]
            lost = piece.notes and own in text
            masked = Piece(piece.inputs, piece.cost, notes=Masked(places, piece.notes))
            pieces.append([masked] if places or lost else [])
        return pieces

    def infer(self, pieces: Sequence[Piece]) -> Sequence[torch.Tensor]:
        """Return for each piece a float32 tensor of shape (2, masks, top_k): the best scores and their tokens' ids.

        Float32 holds any integer up to 2^24, and no vocabulary is that large.
        """
        probabilities = self._logits(pieces).float().softmax(dim=-1)
        if self._targets is not None:
            probabilities = probabilities[:, self._targets]
        best, ids = probabilities.topk(min(self.params.top_k, probabilities.shape[-1]))
        ids = ids if self._targets is None else self._targets[ids]
        counts = [len(piece.notes.places) for piece in pieces]
        return torch.stack([best, ids.float()]).cpu().split_with_sizes(counts, dim=1)

    def _logits(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Return the logits of all masks in the batch, of shape (masks, vocabulary)."""
        model = self.loaded.model
        inputs = padded(self.loaded, pieces)
        at = [(row, place) for row, piece in enumerate(pieces) for place in piece.notes.places]
        places = to_device(torch.tensor(at, dtype=torch.int64).reshape(-1, 2), self.loaded.device).unbind(1)
        # The layer that gives logits over the vocabulary is by far the widest, so it gets only the masks.
        with model.get_output_embeddings().register_forward_pre_hook(lambda _, given: (given[0][places],)):
            logits: torch.Tensor = model(**inputs).logits
        return logits[places] if logits.dim() == 3 else logits  # 3 if a model uses the layer's weights without a call

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        if not pieces:
            raise RecordError("no_mask", f"the text has no mask; write {MASKS[0]} where a word is to be filled in")
        masked: Masked = pieces[0].notes
        if not masked.places:
            raise RecordError("mask_truncated", f"no mask is within the {self._limit} tokens that the model can read")
        values, tokens = outputs[0]
        masks = [
            [self._filled(pieces[0], place, *best) for best in zip(row.tolist(), ids.tolist(), strict=True)]
            for place, row, ids in zip(masked.places, scores(values, "none"), tokens.astype(int), strict=True)
        ]
        return {"masks": masks, "truncated": masked.truncated}

    def _filled(self, piece: Piece, place: int, score: float, token: int) -> Prediction:
        """Return a mask's answer. Special tokens are left out of `sequence` unless other masks would go too."""
        tokenizer = self.loaded.processor
        ids = list(piece.inputs["input_ids"])
        ids[place] = token
        ids = [id for id in ids if id != self._pad]
        sequence = tokenizer.decode(ids, skip_special_tokens=len(piece.notes.places) == 1)
        return {"score": score, "token": token, "token_str": tokenizer.decode([token]), "sequence": sequence}


def with_mask(text: str, own: str) -> str:
    """Return the text with each of MASKS replaced by the model's own mask token."""
    for mask in MASKS:
        text = text.replace(mask, own)
    return text


def target_ids(tokenizer: Any, targets: Sequence[str]) -> list[int]:
    """Return the token of each target, each once: its own, or the first of several. Targets without one are left out.

    Raise Permanent if no target is left. The rule is that of Transformers' FillMaskPipeline.
    """
    vocabulary = tokenizer.get_vocab()
    found: list[int] = []
    for target in targets:
        first = tokenizer(target, add_special_tokens=False, truncation=True, max_length=1)["input_ids"]
        found += [vocabulary[target]] if target in vocabulary else first
    if not found:
        named = ", ".join(map(repr, targets))
        raise Permanent(f"params.targets: the model has no token for any of {named}", code="bad_params")
    return sorted(set(found))

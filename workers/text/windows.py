"""Encode a text as one window or several that overlap, with each token's span in the original text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.handler import Loaded, Piece
from workers.text.encode import groups


@dataclass(frozen=True, slots=True)
class Window:
    """What a piece's tokens stand for in the text.

    `spans` are character offsets into `text`, int32 of shape (tokens, 2). `special`, bool of shape (tokens,), marks the
    tokens that the tokenizer added to the text's own. `truncated` means that the rest of a longer text isn't read.
    """

    text: str
    spans: np.ndarray
    special: np.ndarray
    truncated: bool


def encode_windows(loaded: Loaded, texts: Sequence[str], limit: int | None, stride: int | None) -> list[list[Piece]]:
    """Return each text's pieces of up to `limit` tokens; a piece's `notes` are a Window.

    With a stride, a longer text has several pieces, each beginning with the last `stride` tokens of the one before.
    Without a stride, it is cut. A text has no piece if it has no tokens and the tokenizer adds none. Needs a fast
    tokenizer, which is called for some of the texts at a time.
    """
    pieces: list[list[Piece]] = []
    for group in groups(texts, len):
        pieces += _encode(loaded, list(group), limit, stride)
    return pieces


def _encode(loaded: Loaded, texts: list[str], limit: int | None, stride: int | None) -> list[list[Piece]]:
    tokenizer = loaded.processor
    encoded = tokenizer(
        texts,
        truncation=limit is not None,
        max_length=limit,
        stride=stride or 0,
        return_overflowing_tokens=stride is not None,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    names = [name for name in encoded if name in tokenizer.model_input_names]
    owners = encoded["overflow_to_sample_mapping"] if stride is not None else range(len(texts))
    pieces: list[list[Piece]] = [[] for _ in texts]
    for place, owner in enumerate(owners):
        window = Window(
            texts[owner],
            np.array(encoded["offset_mapping"][place], dtype=np.int32).reshape(-1, 2),
            np.array(encoded["special_tokens_mask"][place], dtype=bool),
            truncated=stride is None and bool(encoded[place].overflowing),
        )
        inputs = {name: encoded[name][place] for name in names}
        if inputs["input_ids"]:
            pieces[owner].append(Piece(inputs, len(inputs["input_ids"]), notes=window))
    return pieces

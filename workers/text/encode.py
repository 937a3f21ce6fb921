"""What do tasks on text share? Encoding with truncation, and padding a batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from workers.handler import Loaded, Piece
from workers.models.device import to_device

T = TypeVar("T")
#: Tokenizers without a limit give this number or more as their maximum.
_NO_LIMIT = 1_000_000
#: The number of characters that a tokenizer gets at once. It keeps what truncation cuts off until the call's result is
#: freed, which for a block of long texts was half a gigabyte.
ENCODE_CHARACTERS = 1 << 20


def max_tokens(loaded: Loaded, wanted: int | None) -> int | None:
    """Return how many tokens a text may have: as wanted, but no more than the model can read. None means no limit.

    A checkpoint's tokenizer may have no limit although its model has a fixed table of positions. RoBERTa and related
    models use the first `padding_idx + 1` entries of that table for padding.
    """
    config = loaded.model.config
    limits = [wanted] if wanted is not None else []
    if loaded.processor.model_max_length < _NO_LIMIT:
        limits.append(loaded.processor.model_max_length)
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        table = _position_table(loaded.model)
        offset = (table.padding_idx + 1) if table is not None and table.padding_idx is not None else 0
        limits.append(positions - offset)
    return min(limits) if limits else None


def _position_table(model: Any) -> Any:
    """Return the model's learned table of absolute positions, or None if it has no such table."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None


def encode(
    loaded: Loaded,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    limit: int | None,
    truncation: str = "longest_first",
) -> list[Piece]:
    """Return a piece per text, or text and pair, truncated, with special tokens. `notes` says whether it was truncated.

    A pair is cut from its longer side, as with Transformers' `truncation=True`, or as `truncation` says. An empty
    second text counts as no second text, as in Transformers when it encodes a single record.
    """
    if pairs is None:
        return _encode(loaded, list(texts), None, limit, truncation)
    alone = [i for i, pair in enumerate(pairs) if not pair]
    paired = [i for i, pair in enumerate(pairs) if pair]
    pieces = dict(zip(alone, _encode(loaded, [texts[i] for i in alone], None, limit, truncation), strict=True))
    both = _encode(loaded, [texts[i] for i in paired], [pairs[i] for i in paired], limit, truncation)
    pieces |= zip(paired, both, strict=True)
    return [pieces[i] for i in range(len(texts))]


def _encode(
    loaded: Loaded, texts: list[str], pairs: list[str] | None, limit: int | None, truncation: str
) -> list[Piece]:
    together = list(zip(texts, pairs, strict=True)) if pairs else [(text, "") for text in texts]
    pieces: list[Piece] = []
    for group in groups(together, lambda both: len(both[0]) + len(both[1])):
        firsts, seconds = [first for first, _ in group], [second for _, second in group]
        pieces += _encode_group(loaded, firsts, seconds if pairs else None, limit, truncation)
    return pieces


def groups(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Yield the items in order, about as many at once as a tokenizer should get. `size` gives an item's characters."""
    start = total = 0
    for index, item in enumerate(items):
        total += size(item)
        if total >= ENCODE_CHARACTERS or index + 1 == len(items):
            yield items[start : index + 1]
            start, total = index + 1, 0


def _encode_group(
    loaded: Loaded, texts: list[str], pairs: list[str] | None, limit: int | None, truncation: str
) -> list[Piece]:
    tokenizer = loaded.processor
    encoded = tokenizer(
        texts,
        pairs,
        truncation=truncation if limit is not None else False,
        max_length=limit,
        padding=False,
        return_attention_mask=False,
    )
    names = list(encoded.keys())
    pieces = []
    for index, text in enumerate(texts):
        inputs = {name: encoded[name][index] for name in names}
        if encoded.is_fast:
            truncated = bool(encoded[index].overflowing)
        else:
            whole = tokenizer(text, pairs[index] if pairs else None, verbose=False)
            truncated = len(whole["input_ids"]) > len(inputs["input_ids"])
        pieces.append(Piece(inputs, len(inputs["input_ids"]), notes=truncated))
    return pieces


def padded(loaded: Loaded, pieces: Sequence[Piece]) -> dict[str, torch.Tensor]:
    """Return a batch of pieces as int64 tensors of shape (pieces, longest) on the model's device.

    The attention mask is left out if nothing is padded, since attention is faster without one.
    """
    tokenizer = loaded.processor
    fills = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    longest = max(piece.cost for piece in pieces)
    left = tokenizer.padding_side == "left"
    arrays: dict[str, np.ndarray] = {}
    for name in pieces[0].inputs:
        array = np.full((len(pieces), longest), fills.get(name, 0), dtype=np.int64)
        for row, piece in zip(array, pieces, strict=True):
            row[longest - piece.cost if left else 0 : longest if left else piece.cost] = piece.inputs[name]
        arrays[name] = array
    if any(piece.cost < longest for piece in pieces):
        place = np.arange(longest)
        costs = np.array([piece.cost for piece in pieces])[:, None]
        arrays["attention_mask"] = (place >= longest - costs if left else place < costs).astype(np.int64)
    return {name: to_device(torch.from_numpy(array), loaded.device) for name, array in arrays.items()}

"""What does all generation share? Where a text ends, and what happens if scores are not finite numbers."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from schemas.errors import RecordError

#: Stands in place of a token whose scores were not finite numbers.
NO_TOKEN = -1


def end_tokens(generation: Any) -> list[int]:
    """Return the ids that end a text by a generation configuration, which may have none, one or several."""
    ends = generation.eos_token_id
    return [] if ends is None else ends if isinstance(ends, list) else [ends]


def until_end(row: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Return the ids, of shape (tokens,), up to and including the first that is an end token or NO_TOKEN."""
    found = torch.isin(row, torch.tensor([*ends, NO_TOKEN], dtype=row.dtype)).nonzero()
    return row[: int(found[0]) + 1] if len(found) else row


def generated(output: Sequence[int]) -> list[int]:
    """Return the ids in a piece's output. Raise RecordError (`not_finite`) if the model's scores were not finite."""
    tokens = [int(token) for token in output]
    if NO_TOKEN in tokens:
        raise not_finite()
    return tokens


def not_finite() -> RecordError:
    return RecordError("not_finite", "the model's scores for this record are no finite numbers; try dtype: float32")


class Broken(LogitsProcessor):
    """Marks in `rows` (bool) the rows whose highest score was not finite at some step. `each` is the beams per row."""

    def __init__(self, rows: int, each: int, device: torch.device) -> None:
        self.rows = torch.zeros(rows, dtype=torch.bool, device=device)
        self._each = each

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.rows |= ~torch.isfinite(scores.amax(-1)).view(-1, self._each).all(1)
        return scores

    def marked(self, sequences: torch.Tensor) -> torch.Tensor:
        """Return the ids, of shape (rows, tokens), on the CPU, with NO_TOKEN first in each broken row."""
        sequences = sequences.clone()
        sequences[:, :1].masked_fill_(self.rows[:, None], NO_TOKEN)
        return sequences.cpu()

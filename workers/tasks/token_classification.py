"""token-classification: a forward pass over a text or its windows, then tokens joined to entities.

How tokens are joined is the rule of Transformers' TokenClassificationPipeline:
https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TokenClassificationPipeline
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification

from schemas.errors import Permanent
from schemas.job import JobSpec
from schemas.tasks.token_classification import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import scores
from workers.models.load import load_fast_tokenizer, load_model
from workers.text.encode import max_tokens, padded
from workers.text.windows import Window, encode_windows


@dataclass(frozen=True, slots=True)
class Word:
    """Tokens that share a label, by their positions in the window: a word, or under `simple` a single token."""

    label: str
    score: float
    places: list[int]


class TokenClassification(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, None)
        self._labels: dict[int, str] = loaded.model.config.id2label
        tokenizer = loaded.processor
        self._unknown = tokenizer.unk_token_id  # looked up at each use by the tokenizer
        self._marks_subwords = bool(getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None))
        self._shows_special = params.aggregation_strategy == "none" and not params.ignore_labels
        if params.stride is not None and self._limit is not None:
            room = self._limit - tokenizer.num_special_tokens_to_add()
            if params.stride >= room:
                raise Permanent(
                    f"params.stride: {params.stride} is too much for windows of {room} tokens; use less than {room}",
                    code="bad_params",
                )

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        tokenizer = load_fast_tokenizer(folder)
        tokenizer.padding_side = "right"  # these models count a token's position from the start of its row
        return Loaded(load_model(AutoModelForTokenClassification, folder, device, dtype), tokenizer, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        """Return a record's windows as its pieces: one without a stride, and an empty list if it has no tokens."""
        return encode_windows(self.loaded, [record["text"] for record in records], self._limit, self.params.stride)

    def infer(self, pieces: Sequence[Piece]) -> Sequence[torch.Tensor]:
        """Return each piece's probabilities, float32 of shape (tokens, labels)."""
        logits: torch.Tensor = self.loaded.model(**padded(self.loaded, pieces)).logits
        probabilities = logits.float().softmax(dim=-1).cpu()
        return [row[: piece.cost] for row, piece in zip(probabilities, pieces, strict=True)]

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        found: list[Prediction] = []
        for piece, output in zip(pieces, outputs, strict=True):
            found += self._entities(piece, scores(output, "none"))
        entities = without_overlaps(found) if len(pieces) > 1 else found
        return {"entities": entities, "truncated": any(piece.notes.truncated for piece in pieces)}

    def _entities(self, piece: Piece, values: np.ndarray) -> list[Prediction]:
        """Return a window's entities. `values` are its probabilities, of shape (tokens, labels)."""
        window: Window = piece.notes
        places = range(piece.cost) if self._shows_special else np.flatnonzero(~window.special).tolist()
        strategy = self.params.aggregation_strategy
        if strategy in ("none", "simple"):
            best, tops = values.argmax(axis=-1).tolist(), values.max(axis=-1).tolist()
            words = [Word(self._labels[best[at]], tops[at], [at]) for at in places]
        else:
            words = [self._word(values, of_word) for of_word in self._places_of_words(piece, places)]
        if strategy == "none":
            return [
                self._entity(piece, word.label, [word], word.places[0])
                for word in words
                if word.label not in self.params.ignore_labels
            ]
        named = [(group[0].label.split("-", 1)[-1], group) for group in joined(words)]
        return [self._entity(piece, name, group) for name, group in named if name not in self.params.ignore_labels]

    def _places_of_words(self, piece: Piece, places: Sequence[int]) -> list[list[int]]:
        """Return the tokens of each word.

        If the tokenizer marks a word's later tokens (BERT's ##), these are longer than their text. With any other
        tokenizer, a word is assumed to begin after a space.
        """
        words: list[list[int]] = []
        for place in places:
            token = piece.inputs["input_ids"][place]
            start, end = piece.notes.spans[place].tolist()
            if token == self._unknown:
                goes_on = False
            elif self._marks_subwords:
                goes_on = len(self.loaded.processor.convert_ids_to_tokens(token)) != end - start
            else:
                goes_on = start > 0 and " " not in piece.notes.text[start - 1 : start + 1]
            if goes_on and words:
                words[-1].append(place)
            else:
                words.append([place])
        return words

    def _word(self, values: np.ndarray, places: list[int]) -> Word:
        """Return a word with the label that the strategy chooses from its tokens' probabilities."""
        of_word = values[places]
        if self.params.aggregation_strategy == "first":
            chosen = of_word[0]
        elif self.params.aggregation_strategy == "max":
            chosen = of_word[of_word.max(axis=-1).argmax()]
        else:
            chosen = of_word.mean(axis=0)
        best = int(chosen.argmax())
        return Word(self._labels[best], float(chosen[best]), places)

    def _entity(self, piece: Piece, name: str, words: list[Word], index: int | None = None) -> Prediction:
        window: Window = piece.notes
        texts = [self._text(piece, word.places) for word in words]
        return {
            "entity": name,
            "score": sum(word.score for word in words) / len(words),
            "index": index,
            "word": texts[0] if index is not None else self.loaded.processor.convert_tokens_to_string(texts),
            "start": int(window.spans[words[0].places[0], 0]),
            "end": int(window.spans[words[-1].places[-1], 1]),
        }

    def _text(self, piece: Piece, places: list[int]) -> str:
        """Return a word as its tokens spell it, with an unknown token as it is in the text."""
        tokenizer = self.loaded.processor
        tokens: list[str] = []
        for place in places:
            token = piece.inputs["input_ids"][place]
            start, end = piece.notes.spans[place]
            as_written = token == self._unknown
            tokens.append(piece.notes.text[start:end] if as_written else tokenizer.convert_ids_to_tokens(token))
        if self.params.aggregation_strategy in ("none", "simple"):
            return tokens[0]
        return str(tokenizer.convert_tokens_to_string(tokens))


def joined(words: Sequence[Word]) -> list[list[Word]]:
    """Group neighbours of one tag. A label that begins with B- begins a new group; one without prefix counts as I-."""
    groups: list[list[Word]] = []
    last = None
    for word in words:
        tag = word.label[2:] if word.label.startswith(("B-", "I-")) else word.label
        if tag == last and not word.label.startswith("B-"):
            groups[-1].append(word)
        else:
            groups.append([word])
        last = tag
    return groups


def without_overlaps(entities: Sequence[Prediction]) -> list[Prediction]:
    """Return several windows' entities in the text's order. Of overlapping ones keep the longest, then the surest."""
    ordered = sorted(entities, key=lambda entity: entity["start"])
    kept = ordered[:1]
    for entity in ordered:  # the first meets itself, and is doubled if it spans nothing, as in the pipeline
        if kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            if _weight(entity) > _weight(kept[-1]):
                kept[-1] = entity
        else:
            kept.append(entity)
    return kept


def _weight(entity: Prediction) -> tuple[int, float]:
    return entity["end"] - entity["start"], entity["score"]

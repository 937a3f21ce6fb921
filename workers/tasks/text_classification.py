"""text-classification: a forward pass over a text or a pair of texts, then the best labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from schemas.job import JobSpec
from schemas.tasks.text_classification import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import best_labels, score_function, scores
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import encode, max_tokens, padded


class TextClassification(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, params.max_length)
        self._function = score_function(loaded.model.config, params.function_to_apply)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        model = load_model(AutoModelForSequenceClassification, folder, device, dtype)
        tokenizer = load_tokenizer(folder)
        if model.config.pad_token_id is None:  # GPT-2 and related models find a text's last token by it
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            model.config.pad_token_id = tokenizer.pad_token_id
        return Loaded(model, tokenizer, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        texts = [record["text"] for record in records]
        pairs = [record["text_pair"] for record in records] if "text_pair" in records[0] else None
        return [[piece] for piece in encode(self.loaded, texts, pairs, self._limit)]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        logits: torch.Tensor = self.loaded.model(**padded(self.loaded, pieces)).logits
        return logits

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        names = self.loaded.model.config.id2label
        best = best_labels(scores(outputs[0], self._function), names, self.params.top_k)
        return best | {"truncated": pieces[0].notes}

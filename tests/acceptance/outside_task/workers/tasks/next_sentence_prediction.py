"""next-sentence-prediction: a forward pass over a pair of texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForNextSentencePrediction

from schemas.tasks.next_sentence_prediction import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import scores
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import encode, max_tokens, padded


class NextSentencePrediction(Handler[Params]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        model = load_model(AutoModelForNextSentencePrediction, folder, device, dtype)
        return Loaded(model, load_tokenizer(folder), device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        texts, following = ([record[name] for record in records] for name in ("text", "next"))
        return [[piece] for piece in encode(self.loaded, texts, following, max_tokens(self.loaded, None))]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        logits: torch.Tensor = self.loaded.model(**padded(self.loaded, pieces)).logits
        return logits

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        score = float(scores(outputs[0], "softmax")[0])
        return {"follows": score >= self.params.threshold, "score": score}

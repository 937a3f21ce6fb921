"""image-classification: a forward pass over a picture, then the best labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageClassification

from schemas.job import JobSpec
from schemas.tasks.image_classification import TASK, Params
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.labels import best_labels, score_function, scores
from workers.models.load import load_model
from workers.vision.processor import in_equal_shapes, load_processor, prepare, probe


class ImageClassification(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._function = score_function(loaded.model.config, params.function_to_apply)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        processor = load_processor(folder)
        loaded = Loaded(load_model(AutoModelForImageClassification, folder, device, dtype), processor, device, dtype)
        probe(loaded)
        return loaded

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return prepare(self.loaded, records)

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return logits of shape (labels,) for each piece."""
        return in_equal_shapes(self.loaded, pieces, lambda inputs: list(self.loaded.model(**inputs).logits))

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        width, height = pieces[0].notes
        names = self.loaded.model.config.id2label
        best = best_labels(scores(outputs[0], self._function), names, self.params.top_k)
        return best | {"width": width, "height": height}

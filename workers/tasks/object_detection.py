"""object-detection: a forward pass over a picture, then the boxes and labels of the queries that found something.

Pictures are batched only with others of the same processed shape. The models take a mask for padding, but through the
convolutions padding still changes the features next to it, and so the answer.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForObjectDetection

from schemas.errors import Permanent, RecordError
from schemas.tasks.object_detection import TASK, Params
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.models.load import load_model
from workers.vision.processor import in_equal_shapes, load_processor, prepare

_EDGES = ("xmin", "ymin", "xmax", "ymax")


class ObjectDetection(Handler[Params]):
    task = TASK

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        processor = load_processor(folder)
        if not hasattr(processor, "post_process_object_detection"):
            raise Permanent(
                f"the image processor, a {type(processor).__name__}, is not one of a model that detects objects",
                code="model",
            )
        return Loaded(load_model(AutoModelForObjectDetection, folder, device, dtype), processor, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return prepare(self.loaded, records)

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return for each picture its queries' `logits`, (queries, labels), and `boxes`, (queries, 4), from 0 to 1."""
        return in_equal_shapes(self.loaded, pieces, self._compute)

    def _compute(self, inputs: dict[str, torch.Tensor]) -> list[Output]:
        outputs = self.loaded.model(**inputs)
        return [
            {"logits": logits, "boxes": boxes} for logits, boxes in zip(outputs.logits, outputs.pred_boxes, strict=True)
        ]

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        width, height = pieces[0].notes
        raw = {name: torch.from_numpy(values)[None] for name, values in outputs[0].items()}
        if not all(bool(torch.isfinite(values).all()) for values in raw.values()):
            raise RecordError(
                "not_finite", "the model's output is not a number; float16 may be too narrow for this model"
            )
        found = self.loaded.processor.post_process_object_detection(
            SimpleNamespace(logits=raw["logits"], pred_boxes=raw["boxes"]),
            self.params.threshold,
            torch.tensor([[height, width]], dtype=torch.int32),
        )[0]
        names = self.loaded.model.config.id2label
        objects = [
            {"label": names[label], "score": score, "box": dict(zip(_EDGES, box, strict=True))}
            for label, score, box in zip(
                found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True
            )
        ]
        return {"objects": objects, "width": width, "height": height}

"""audio-classification: a forward pass over a whole clip, then the best labels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForAudioClassification

from schemas.job import JobSpec
from schemas.tasks.audio_classification import TASK, Params
from workers.audio.clip import Clip
from workers.audio.features import batches, check_length, encode, load_feature_extractor, pads, shortest
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import best_labels, scores
from workers.models.load import load_model


class AudioClassification(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._shortest = shortest(loaded)
        self._pads = pads(loaded)
        self._function = params.function_to_apply or default_function(loaded.model.config)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        model = load_model(AutoModelForAudioClassification, folder, device, dtype)
        return Loaded(model, load_feature_extractor(folder), device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return [self._pieces(record["audio"]) for record in records]

    def _pieces(self, clip: Clip) -> Iterator[Piece]:
        """Yield one piece, the whole clip. Its notes are the clip's length in seconds."""
        rate = self.loaded.processor.sampling_rate
        samples = replace(clip, max_seconds=min(clip.max_seconds, self.params.max_seconds)).samples(rate)
        check_length(samples, self._shortest)
        yield encode(self.loaded, samples, notes=len(samples) / rate)

    def infer(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        logits: dict[int, torch.Tensor] = {}
        for places, inputs in batches(self.loaded, pieces, self._pads):
            logits |= zip(places, self.loaded.model(**inputs).logits, strict=True)
        return [logits[place] for place in range(len(pieces))]

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        names = self.loaded.model.config.id2label
        best = best_labels(scores(outputs[0], self._function), names, self.params.top_k)
        return best | {"duration_s": pieces[0].notes}


def default_function(config: Any) -> str:
    """Return the function of the audio pipeline. Unlike the text pipeline, it applies softmax to a single label."""
    by_problem = {"regression": "none", "multi_label_classification": "sigmoid"}
    return by_problem.get(config.problem_type, "softmax")

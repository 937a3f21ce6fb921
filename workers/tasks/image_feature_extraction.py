"""image-feature-extraction: a forward pass over a picture without the model's head, then its vectors pooled to one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.image_feature_extraction import TASK, Params
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.models.load import load_model
from workers.vision.processor import in_equal_shapes, load_processor, prepare, probe

#: The names of the class token's parameters in Transformers' models.
_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")


@dataclass(frozen=True)
class PictureEncoder(Loaded):
    """An encoder, and the poolings that it allows, with the preferred one first."""

    poolings: tuple[str, ...]


class AutoModelForImageFeatureExtraction:
    """AutoModel. Leaves out the pooling layer, which would be random, if the checkpoint was trained without one."""

    @staticmethod
    def from_pretrained(folder: Path, **options: Any) -> Any:
        auto: Any = AutoModel
        model, info = auto.from_pretrained(folder, **options)
        missing = info["missing_keys"]
        if missing and all(str(key).startswith("pooler.") for key in missing):
            model, info = auto.from_pretrained(folder, add_pooling_layer=False, **options)
        return model, info


class ImageFeatureExtraction(Handler[Params]):
    task = TASK

    def __init__(self, loaded: PictureEncoder, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        pooling = params.pooling or loaded.poolings[0]
        if pooling not in loaded.poolings:
            raise Permanent(
                f"params.pooling: a {loaded.model.config.model_type} of this checkpoint has no {pooling}; it allows "
                f"{' and '.join(loaded.poolings)}",
                code="bad_params",
            )
        self._pool = _POOLS[pooling]

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> PictureEncoder:
        processor = load_processor(folder)
        loaded = Loaded(load_model(AutoModelForImageFeatureExtraction, folder, device, dtype), processor, device, dtype)
        return PictureEncoder(loaded.model, processor, device, dtype, _poolings(loaded))

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return prepare(self.loaded, records)

    def infer(self, pieces: Sequence[Piece]) -> list[Output]:
        """Return a vector of shape (width,) for each piece, not normalised."""
        return in_equal_shapes(self.loaded, pieces, lambda inputs: list(self._pool(self.loaded.model(**inputs))))

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        vector = np.asarray(outputs[0], np.float32)
        if self.params.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if not np.isfinite(vector).all():
            raise RecordError("not_finite", "the vector is not a number; float16 may be too narrow for this model")
        return {"embedding": vector}


def _poolings(loaded: Loaded) -> tuple[str, ...]:
    """Return the poolings that the model's output for a picture allows, with the preferred one first.

    Raise Permanent (code `model`) if the model gives no vectors, or if it gives different vectors for equal pictures,
    as a model does that masks patches at random.
    """
    output = probe(loaded)
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None or hidden.ndim not in (3, 4):
        raise Permanent(f"a {loaded.model.config.model_type} gives no vectors for a picture", code="model")
    first, second = hidden.float()
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2, equal_nan=True):
        raise Permanent(
            f"a {loaded.model.config.model_type} draws at random: equal pictures have different vectors", code="model"
        )
    found = []
    if getattr(output, "pooler_output", None) is not None:
        found.append("pooler")
    if hidden.ndim == 3 and any(name.endswith(_CLASS_TOKENS) for name, _ in loaded.model.named_parameters()):
        found.append("cls")
    return (*found, "mean")


def _pooler(output: Any) -> torch.Tensor:
    """Return the model's own pooled output, of shape (pieces, width). ConvNets give two more axes of length 1."""
    pooled: torch.Tensor = output.pooler_output
    return pooled.flatten(1)


def _cls(output: Any) -> torch.Tensor:
    hidden: torch.Tensor = output.last_hidden_state
    return hidden[:, 0]


def _mean(output: Any) -> torch.Tensor:
    """Return the mean over tokens (pieces, tokens, width), or over places (pieces, width, height, width of the map)."""
    hidden: torch.Tensor = output.last_hidden_state
    return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


_POOLS: dict[str, Callable[[Any], torch.Tensor]] = {"pooler": _pooler, "cls": _cls, "mean": _mean}

"""feature-extraction: a forward pass over a text without the model's head, then one vector from the tokens' vectors."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers
from transformers import MODEL_MAPPING, AutoConfig, AutoModel

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.feature_extraction import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import encode, max_tokens, padded
from workers.text.pooling import Recipe, pool, read_recipe

_MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}


@dataclass(frozen=True)
class Embedder(Loaded):
    """An encoder, and its folder's recipe for making vectors of its output."""

    recipe: Recipe | None


class AutoModelForEmbeddings:
    """AutoModel without the pooling layer of BERT and related models.

    A vector is made from the tokens' last layer. The pooling layer is a further layer above the first token. A
    checkpoint that was trained without it, as for masked language modelling, lacks it, and it would be random.
    """

    @staticmethod
    def from_pretrained(folder: Path, **options: Any) -> Any:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if config.is_encoder_decoder:
            raise Permanent(f"a {config.model_type} encodes and decodes; embeddings are made by encoders", code="model")
        base: Any = MODEL_MAPPING.get(type(config), None)
        if isinstance(base, type) and "add_pooling_layer" in inspect.signature(base).parameters:
            options["add_pooling_layer"] = False
        return AutoModel.from_pretrained(folder, **options)


class FeatureExtraction(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Embedder, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, None)
        recipe = loaded.recipe
        if params.pooling is not None:
            recipe = Recipe((_MODES[params.pooling],), normalize=True)
        elif recipe is None:
            recipe = Recipe(("mean",), normalize=True)
        elif recipe.unfit:
            raise Permanent(
                f"the model's sentence-transformers files can't be followed: {recipe.unfit}. Its bare encoder can be "
                "had by naming params.pooling",
                code="model",
            )
        self._recipe = recipe
        self._normalize = recipe.normalize if params.normalize is None else params.normalize
        size = len(recipe.modes) * loaded.model.config.get_text_config().hidden_size
        if params.dimensions is not None and params.dimensions > size:
            raise Permanent(
                f"params.dimensions: {params.dimensions} of a vector's {size} can't be kept: ask for fewer",
                code="bad_params",
            )

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Embedder:
        recipe = read_recipe(folder)
        model = load_model(AutoModelForEmbeddings, folder, device, dtype)
        model.config.use_cache = False  # a decoder's keys and values are for the next token, which never comes
        tokenizer = load_tokenizer(folder)
        tokenizer.padding_side = "right"  # a token's position is then the same in every batch
        if recipe is not None and recipe.max_tokens is not None:
            tokenizer.model_max_length = recipe.max_tokens
        if recipe is not None and recipe.lower_case:
            _lower_case(tokenizer.backend_tokenizer)
        return Embedder(model, tokenizer, device, dtype, recipe)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        texts = [self._recipe.prompt + record["text"] for record in records]
        pieces = encode(self.loaded, texts, None, self._limit)
        if not all(piece.cost for piece in pieces):  # the runner retries each half, down to the text itself
            raise RecordError("no_tokens", "the text has no token that the model can read")
        return [[piece] for piece in pieces]

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Return vectors of shape (pieces, width), neither cut nor normalised."""
        inputs = padded(self.loaded, pieces)
        hidden = self.loaded.model(**inputs).last_hidden_state
        return pool(hidden, inputs.get("attention_mask"), self._recipe.modes)

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        vector = np.asarray(outputs[0][: self.params.dimensions], np.float32)
        if self._normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if self.params.dtype == "float16":
            with np.errstate(over="ignore"):
                vector = vector.astype(np.float16).astype(np.float32)
        if not np.isfinite(vector).all():
            raise RecordError("not_finite", "the vector is not a number; float16 may be too narrow for this model")
        return {"embedding": vector, "truncated": pieces[0].notes}


def _lower_case(tokenizer: Any) -> None:
    """Make a tokenizer lower-case a text before everything else."""
    lower = normalizers.Lowercase()
    then = tokenizer.normalizer
    tokenizer.normalizer = lower if then is None else normalizers.Sequence([lower, then])

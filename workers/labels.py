"""What do tasks with a label head share? Scores from logits, and the best labels.

Rule and names: https://huggingface.co/docs/transformers/main_classes/pipelines#transformers.TextClassificationPipeline
"""

from typing import Any

import numpy as np

from schemas.errors import RecordError
from workers.handler import Prediction


def score_function(config: Any, wanted: str | None) -> str:
    """Return `softmax`, `sigmoid` or `none`: as wanted, else by the configuration, as Transformers' classifiers do."""
    if wanted is not None:
        return wanted
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def scores(logits: np.ndarray, function: str) -> np.ndarray:
    """Return one record's float32 scores, shape (labels,). Raise RecordError (`not_finite`) for NaN or infinity."""
    logits = logits.astype(np.float32)
    if not np.isfinite(logits).all():
        raise RecordError("not_finite", "the model's output is not a number; float16 may be too narrow for this model")
    if function == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    if function == "softmax":
        shifted = np.exp(logits - logits.max())
        return np.asarray(shifted / shifted.sum())
    return logits


def best_labels(values: np.ndarray, names: dict[int, str], top_k: int) -> Prediction:
    """Return `label`, `score` and `top` of one record. If scores are equal, the first label comes first."""
    order = np.argsort(-values, kind="stable")[:top_k]
    top = [{"label": names[int(i)], "score": float(values[i])} for i in order]
    return {"label": top[0]["label"], "score": top[0]["score"], "top": top}

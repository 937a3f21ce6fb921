"""zero-shot-classification: a forward pass for each label's hypothesis after the text, then a softmax over labels.

Rule: transformers/pipelines/zero_shot_classification.py. If a model's configuration names no label that begins with
`entail`, the last label is used instead, as there, and a warning is logged.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.logs import event
from schemas.errors import Permanent
from schemas.job import JobSpec
from schemas.tasks.zero_shot_classification import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import scores
from workers.tasks.text_classification import TextClassification
from workers.text.encode import encode, max_tokens, padded

_log = logging.getLogger(__name__)


class ZeroShotClassification(Handler[Params]):
    """A record's pieces are pairs (text, hypothesis), one per label, in the order of `labels`."""

    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, None)
        self._entailment = entailment_index(loaded.model.config)
        self._hypotheses = [params.hypothesis_template.format(label) for label in params.labels]
        self._check_room()

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        loaded = TextClassification.load(folder, device, dtype)
        loaded.model.config.use_cache = False  # a decoder's keys and values are for the next token, which never comes
        if entailment_index(loaded.model.config) == -1:
            labels = list(loaded.model.config.label2id)
            event(_log, "no_entailment_label", logging.WARNING, labels=labels, taken=labels[-1])
        return loaded

    def _check_room(self) -> None:
        """Raise Permanent if a hypothesis, which is never cut, leaves no room for a token of text."""
        if self._limit is None:
            return
        encoded = self.loaded.processor([""] * len(self._hypotheses), self._hypotheses, verbose=False)
        for label, ids in zip(self.params.labels, encoded["input_ids"], strict=True):
            if len(ids) >= self._limit:
                raise Permanent(
                    f"params.labels: the hypothesis for {label[:80]!r} is {len(ids)} tokens, and text and hypothesis "
                    f"together may have {self._limit}: shorten the label or the template",
                    code="bad_params",
                )

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        count = len(self._hypotheses)
        texts = [record["text"] for record in records for _ in range(count)]
        pieces = encode(self.loaded, texts, self._hypotheses * len(records), self._limit, truncation="only_first")
        return [pieces[start : start + count] for start in range(0, len(pieces), count)]

    def infer(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Return the logits over the model's labels, of shape (labels,), for each piece."""
        logits: dict[int, torch.Tensor] = {}
        for group in self._alike(pieces):
            rows = self.loaded.model(**padded(self.loaded, [pieces[i] for i in group])).logits
            logits |= zip(group, rows, strict=True)
        return [logits[i] for i in range(len(pieces))]

    def _alike(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """Return the batch's indices, grouped by the pieces' number of end tokens if a batch needs it equal.

        BART and related models classify by the last end token, and refuse a batch if a text has more of them than
        another, as when `</s>` is written in it: transformers/models/bart/modeling_bart.py,
        BartForSequenceClassification.
        """
        config = self.loaded.model.config
        if not config.is_encoder_decoder:
            return [list(range(len(pieces)))]
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for index, piece in enumerate(pieces):
            groups[piece.inputs["input_ids"].count(config.eos_token_id)].append(index)
        return list(groups.values())

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        values = self._label_scores(np.stack(outputs))
        # If scores are equal, the last label comes first, as in the pipeline.
        order = np.argsort(values, kind="stable")[::-1]
        top = [{"label": self.params.labels[int(i)], "score": float(values[i])} for i in order]
        return top[0] | {"top": top, "truncated": any(piece.notes for piece in pieces)}

    def _label_scores(self, logits: np.ndarray) -> np.ndarray:
        """Return float32 scores of shape (labels,) from logits of shape (labels, labels of the model)."""
        if self.params.multi_label or len(logits) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            return np.array([scores(row[[contradiction, self._entailment]], "softmax")[1] for row in logits])
        return scores(logits[:, self._entailment], "softmax")


def entailment_index(config: Any) -> int:
    """Return the index of the first label that begins with `entail`, in any case, or -1, the last, if there is none."""
    found = (index for name, index in config.label2id.items() if name.lower().startswith("entail"))
    return next(found, -1)

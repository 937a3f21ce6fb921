"""zero-shot-classification: a forward pass for each label's hypothesis after the text, then a softmax over labels.

Rule: transformers/pipelines/zero_shot_classification.py. A model whose configuration names no label that begins with
`entail` is run, as there, with its last label in that place; the log has a warning.
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
    """A record's pieces are (text, hypothesis), one a label, in the order of `labels`."""

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
        """Raise Permanent where a hypothesis leaves no room for one token of text: it is never cut."""
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
        """Logits over the model's labels, shape (labels,), for each piece."""
        logits: dict[int, torch.Tensor] = {}
        for group in self._alike(pieces):
            rows = self.loaded.model(**padded(self.loaded, [pieces[i] for i in group])).logits
            logits |= zip(group, rows, strict=True)
        return [logits[i] for i in range(len(pieces))]

    def _alike(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """The batch's indices, apart by how many end tokens a piece has where the model wants that equal in a batch.

        BART and its kin classify by the last end token, and refuse a batch where a text has more of them, as one does
        that has `</s>` written in it: transformers/models/bart/modeling_bart.py, BartForSequenceClassification.
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
        # Of equal scores the last label comes first, as in the pipeline.
        order = np.argsort(values, kind="stable")[::-1]
        top = [{"label": self.params.labels[int(i)], "score": float(values[i])} for i in order]
        return top[0] | {"top": top, "truncated": any(piece.notes for piece in pieces)}

    def _label_scores(self, logits: np.ndarray) -> np.ndarray:
        """Float32 scores, shape (labels,), from logits of shape (labels, labels of the model)."""
        if self.params.multi_label or len(logits) == 1:
            contradiction = -1 if self._entailment == 0 else 0
            return np.array([scores(row[[contradiction, self._entailment]], "softmax")[1] for row in logits])
        return scores(logits[:, self._entailment], "softmax")


def entailment_index(config: Any) -> int:
    """The index of the first label whose name begins with `entail`, in any case; -1, the last, where there is none."""
    found = (index for name, index in config.label2id.items() if name.lower().startswith("entail"))
    return next(found, -1)

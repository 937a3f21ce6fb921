"""question-answering: a forward pass over each window of the context, then the likeliest spans of all windows.

Rule: QuestionAnsweringPipeline of Transformers 4.57, transformers/pipelines/question_answering.py, with its default of
answers that end at words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForQuestionAnswering

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.question_answering import TASK, Params
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.labels import scores
from workers.models.load import load_fast_tokenizer, load_model
from workers.text.answer_spans import Answer, Window, answers, best_spans, merged, window_of
from workers.text.encode import groups, max_tokens, padded

#: The default number of tokens that a window shares with the next one, or half a window if that is less.
DEFAULT_STRIDE = 128


@dataclass(frozen=True, slots=True)
class Notes:
    """A piece's window on the context, and its CLS tokens outside the window; the first one stands for no answer."""

    window: Window
    null: list[int]


class QuestionAnswering(Handler[Params]):
    """A record's pieces are the windows of its context, each with the whole question."""

    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        self._limit = max_tokens(loaded, params.max_seq_len) or params.max_seq_len
        stride = min(self._limit // 2, DEFAULT_STRIDE)
        self._stride = stride if params.doc_stride is None else params.doc_stride
        self._room = self._limit - loaded.processor.num_special_tokens_to_add(pair=True)
        if self._stride >= self._room:
            raise Permanent(
                f"params.doc_stride: windows can't share {self._stride} tokens, since a window of {self._limit}, the "
                f"most that this model and params.max_seq_len allow, has room for {self._room}",
                code="bad_params",
            )
        # If the tokenizer pads on the left, the context comes first, and the question is next to it.
        self._question_first = loaded.processor.padding_side == "right"
        # As many spans as the pipeline takes of each window. Words and merging leave fewer answers than spans.
        self._spans = 2 * params.top_k + 10

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        tokenizer = load_fast_tokenizer(folder)
        return Loaded(load_model(AutoModelForQuestionAnswering, folder, device, dtype), tokenizer, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        for record in records:
            for name in ("question", "context"):
                if not record[name].strip():
                    raise RecordError(f"empty_{name}", f"the {name} is empty")
        self._check_questions(records)
        grouped = groups(records, lambda record: len(record["question"]) + len(record["context"]))
        return [pieces for group in grouped for pieces in self._windows(group)]

    def _check_questions(self, records: Sequence[Record]) -> None:
        """Raise RecordError if a question leaves a long context no more room than the overlap of two windows.

        For such windows the tokenizer would panic.
        """
        tokenizer = self.loaded.processor
        encoded = tokenizer(
            [r["question"] for r in records], add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for record, ids in zip(records, encoded["input_ids"], strict=True):
            room = self._room - len(ids)
            if room > self._stride:
                continue
            context = tokenizer(record["context"], add_special_tokens=False, verbose=False)["input_ids"]
            if len(context) > room:
                raise RecordError(
                    "question_too_long",
                    f"the question is {len(ids)} tokens, which in a window of {self._limit} leaves {max(room, 0)} for "
                    f"the context; a context as long as this one needs more than doc_stride, {self._stride}",
                )

    def _windows(self, records: Sequence[Record]) -> list[list[Piece]]:
        tokenizer = self.loaded.processor
        names = ("question", "context") if self._question_first else ("context", "question")
        encoded = tokenizer(
            *([record[name] for record in records] for name in names),
            truncation="only_second" if self._question_first else "only_first",
            max_length=self._limit,
            stride=self._stride,
            return_overflowing_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        arguments = [name for name in tokenizer.model_input_names if name in encoded]
        pieces: list[list[Piece]] = [[] for _ in records]
        for index, number in enumerate(encoded["overflow_to_sample_mapping"]):
            ids = encoded["input_ids"][index]
            window = window_of(encoded[index], int(self._question_first), records[number]["context"])
            if window is None:
                raise RecordError("empty_context", "the context has no token that the model knows")
            null = [i for i, id in enumerate(ids) if id == tokenizer.cls_token_id and i not in window.tokens]
            inputs = {name: encoded[name][index] for name in arguments}
            pieces[number].append(Piece(inputs, len(ids), notes=Notes(window, null)))
        return pieces

    def infer(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Return the logits for an answer's first and last token, of shape (pieces, 2, longest)."""
        output = self.loaded.model(**padded(self.loaded, pieces))
        return torch.stack([output.start_logits, output.end_logits], dim=1)

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        found: list[Answer] = []
        null_scores = []
        for piece, output in zip(pieces, outputs, strict=True):
            logits = output[:, : piece.cost] if self._question_first else output[:, -piece.cost :]
            null, start, end = probabilities(piece.notes, logits)
            null_scores.append(null)
            found += answers(piece.notes.window, best_spans(start, end, self.params.max_answer_len, self._spans))
        competing = merged(found)
        if self.params.handle_impossible_answer:
            competing.append(Answer("", min(null_scores), 0, 0))
        best = sorted(competing, key=lambda answer: -answer.score)[: self.params.top_k]
        top = [{"answer": a.text, "score": min(a.score, 1.0), "start": a.start, "end": a.end} for a in best]
        return top[0] | {"top": top}


def probabilities(notes: Notes, logits: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the score of no answer, and each window token's probabilities to be an answer's first and last token.

    `logits` has shape (2, tokens of the piece). The softmax is over the window and CLS; nothing else may be an answer.
    Raise RecordError (`not_finite`) for NaN or infinity.
    """
    kept = [*notes.null, *notes.window.tokens]
    start, end = (scores(row[kept], "softmax") for row in logits)
    outside = len(notes.null)
    null = float(start[0] * end[0]) if outside else 0.0
    return null, start[outside:], end[outside:]

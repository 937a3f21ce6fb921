"""Which spans of a text are likely answers? Finds the best spans of each window, and joins the windows' answers.

Rule: QuestionAnsweringPipeline of Transformers 4.57, transformers/pipelines/question_answering.py, which took it from
Chen et al., Reading Wikipedia to Answer Open-Domain Questions (https://arxiv.org/abs/1704.00051).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text among the tokens of an encoded pair.

    `first` is the part's first token. `starts` and `ends`, int32 of shape (tokens,), are the character offsets in the
    text of each token's word, as far as the word is within the window.
    """

    text: str
    first: int
    starts: np.ndarray
    ends: np.ndarray

    @property
    def tokens(self) -> range:
        """The positions of the part's tokens in the encoded pair."""
        return range(self.first, self.first + len(self.starts))


@dataclass(frozen=True, slots=True)
class Answer:
    """A span of a text, `text[start:end]`, and how likely it is."""

    text: str
    score: float
    start: int
    end: int


def window_of(encoding: Any, sequence: int, text: str) -> Window | None:
    """Return an encoding's window on its sequence 0 or 1, or None if it has no token of the sequence.

    The encoding is one of the tokenizers library. A token that belongs to no word is a word of its own.
    """
    sequences = encoding.sequence_ids
    if sequence not in sequences:
        return None
    first = sequences.index(sequence)
    last = len(sequences) - sequences[::-1].index(sequence)
    words = [-1 - place if word is None else word for place, word in enumerate(encoding.word_ids[first:last])]
    offsets = np.array(encoding.offsets[first:last], dtype=np.int32)
    begins = np.diff(words, prepend=words[0] - 1) != 0
    heads = np.flatnonzero(begins)
    tails = np.append(heads[1:], len(words)) - 1
    word = np.cumsum(begins) - 1
    return Window(text, first, offsets[heads[word], 0], offsets[tails[word], 1])


def best_spans(start: np.ndarray, end: np.ndarray, longest: int, count: int) -> list[tuple[int, int, float]]:
    """Return the `count` likeliest spans of at most `longest` tokens, best first, as (first token, last token, score).

    `start` and `end`, float32 of shape (tokens,), are each token's probabilities to be a span's first and last token. A
    span's score is their product. If scores are equal, the earlier and shorter span comes first.
    """
    tokens = len(end)
    longest = min(longest, tokens)
    reach = sliding_window_view(np.pad(end, (0, longest - 1)), longest)
    products = (start[:, None] * reach).ravel()
    inside = (np.arange(tokens)[:, None] + np.arange(longest) < tokens).ravel()
    spans = np.flatnonzero(inside)
    scores = products[spans]
    if count < len(scores):
        least = np.partition(scores, -count)[-count]
        spans, scores = spans[scores >= least], scores[scores >= least]
    order = np.argsort(-scores, kind="stable")[:count]
    return [
        (int(span // longest), int(span // longest + span % longest), float(score))
        for span, score in zip(spans[order], scores[order], strict=True)
    ]


def answers(window: Window, spans: Iterable[tuple[int, int, float]]) -> list[Answer]:
    """Return the spans of a window's tokens as spans of its text, from the start of a word to the end of a word."""
    found = []
    for first, last, score in spans:
        start, end = int(window.starts[first]), int(window.ends[last])
        found.append(Answer(window.text[start:end], score, start, end))
    return found


def merged(found: Iterable[Answer]) -> list[Answer]:
    """Join answers that differ in case at most: keep the first one, with the sum of their scores. Keep the order."""
    first: dict[str, Answer] = {}
    for answer in found:
        known = first.setdefault(answer.text.lower(), Answer(answer.text, 0.0, answer.start, answer.end))
        first[answer.text.lower()] = Answer(known.text, known.score + answer.score, known.start, known.end)
    return list(first.values())

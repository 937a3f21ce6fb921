"""Spans: where tokens and words lie, the likeliest spans, and answers that are the same."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.text.answer_spans import Answer, Window, answers, best_spans, merged, window_of

probability = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])


def window(text: str, *words: tuple[int, int]) -> Window:
    starts, ends = np.array(words, dtype=np.int32).T
    return Window(text, 0, starts, ends)


@given(st.lists(st.tuples(probability, probability), min_size=1, max_size=12), st.integers(1, 14), st.integers(1, 100))
def test_best_spans_are_those_of_a_plain_search(pairs: list[tuple[float, float]], longest: int, count: int) -> None:
    start, end = np.array(pairs, dtype=np.float32).T
    every = [
        (first, last, float(start[first] * end[last]))
        for first in range(len(pairs))
        for last in range(first, min(first + longest, len(pairs)))
    ]
    assert best_spans(start, end, longest, count) == sorted(every, key=lambda span: -span[2])[:count]


def test_a_window_lies_among_the_tokens_of_its_sequence_and_ends_at_words() -> None:
    # [CLS] who [SEP] "a film, ##s" [SEP]: the last word is two tokens, and the next window has the rest of it
    encoding = SimpleNamespace(
        sequence_ids=[None, 0, None, 1, 1, 1, None],
        word_ids=[None, 0, None, 0, 1, 1, None],
        offsets=[(0, 0), (0, 3), (0, 0), (0, 1), (2, 6), (6, 8), (0, 0)],
    )
    found = window_of(encoding, 1, "a film's")
    assert found is not None
    assert (found.tokens, found.starts.tolist(), found.ends.tolist()) == (range(3, 6), [0, 2, 2], [1, 8, 8])
    assert found.starts.dtype == found.ends.dtype == np.dtype("int32")
    question = window_of(encoding, 0, "who")
    assert question is not None
    assert question.tokens == range(1, 2)


def test_a_token_of_no_word_is_one_of_its_own() -> None:
    encoding = SimpleNamespace(sequence_ids=[1, 1, 1], word_ids=[None, None, 4], offsets=[(0, 1), (1, 2), (2, 5)])
    found = window_of(encoding, 1, "ab cd")
    assert found is not None
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 1, 2], [1, 2, 5])


def test_a_text_without_tokens_has_no_window() -> None:
    assert window_of(SimpleNamespace(sequence_ids=[None, 0, None]), 1, "\u200b") is None


def test_answers_are_pieces_of_the_text() -> None:
    here = window("a good film", (0, 1), (2, 6), (7, 11))
    found = answers(here, [(1, 2, 0.5), (0, 0, 0.25)])
    assert found == [Answer("good film", 0.5, 2, 11), Answer("a", 0.25, 0, 1)]


def test_answers_of_one_text_are_one_where_it_came_first() -> None:
    found = merged([Answer("Film", 0.25, 7, 11), Answer("a", 0.5, 0, 1), Answer("film", 0.5, 30, 34)])
    assert found == [Answer("Film", 0.75, 7, 11), Answer("a", 0.5, 0, 1)]


@pytest.mark.parametrize("longest", [1, 3, 50])
def test_no_span_is_longer_than_allowed_or_beyond_the_window(longest: int) -> None:
    values = np.full(8, 0.125, dtype=np.float32)
    for first, last, _ in best_spans(values, values, longest, 1000):
        assert 0 <= first <= last < min(8, first + longest)

"""Chunks of a stream are those that the Transformers pipeline cuts out of an array."""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.pipelines import automatic_speech_recognition

from workers.audio.chunks import Chunking

#: Transformers' own, which has no types.
chunk_iter: Any = automatic_speech_recognition.chunk_iter


class Extractor:
    """Gives the samples back."""

    sampling_rate = 16_000

    def __call__(self, samples: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
        return {"samples": samples}


def blocks(samples: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (samples[start : start + size] for start in range(0, len(samples), size))


def check(length: int, size: int, stride: int, block: int) -> None:
    samples = np.arange(length, dtype=np.float32)
    cut = list(Chunking(size, stride).cut(blocks(samples, block)))
    theirs = list(chunk_iter(samples, Extractor(), size, stride, stride))
    assert [astuple(span) for _, span in cut] == [(*item["stride"], not i) for i, item in enumerate(theirs)]
    assert all(np.array_equal(ours, item["samples"]) for (ours, _), item in zip(cut, theirs, strict=True))
    own = [chunk[span.left : span.length - span.right] for chunk, span in cut]
    assert np.array_equal(np.concatenate(own), samples)
    assert sum(span.own for _, span in cut) == length


@given(st.integers(1, 400), st.integers(3, 60), st.data(), st.integers(1, 90))
def test_as_the_pipeline_cuts(length: int, size: int, data: st.DataObject, block: int) -> None:
    check(length, size, data.draw(st.integers(0, (size - 1) // 2)), block)


@pytest.mark.parametrize("length", [1, 59, 60, 61, 99, 100, 101, 139, 140, 141])
def test_at_the_edges(length: int) -> None:
    check(length, 60, 10, 7)


def test_a_last_chunk_is_longer_than_what_its_neighbours_answer_for() -> None:
    for length in range(61, 300):
        *_, (_, last) = Chunking(60, 10).cut([np.zeros(length, np.float32)])
        assert last.own > last.left == 10
        assert last.right == 0


def test_no_samples_are_no_chunks() -> None:
    assert not list(Chunking(60, 10).cut([]))
    assert not list(Chunking(60, 10).cut([np.zeros(0, np.float32)]))


def test_seconds_become_whole_frames() -> None:
    assert Chunking.of(30.0, 5.0, 16_000, 320) == Chunking(480_000, 80_000)
    assert Chunking.of(1.02, 0.33, 16_000, 320) == Chunking(16_320, 5_120)

"""Cut a stream of sound into overlapping chunks of one length, while holding only the chunk in progress.

Rule: `chunk_iter` of Transformers' pipelines/automatic_speech_recognition.py, which cuts an array.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A chunk's size in samples: its length, and the parts at its left and right that its neighbours answer for.

    Without these parts the chunks make up the clip, so that the sum of `own` is the clip's length.
    """

    length: int
    left: int
    right: int
    first: bool

    @property
    def own(self) -> int:
        return self.length - self.left - self.right


@dataclass(frozen=True)
class Chunking:
    """Chunks of `size` samples that overlap by twice `stride`."""

    size: int
    stride: int

    @classmethod
    def of(cls, size_s: float, stride_s: float, rate: int, align: int) -> "Chunking":
        """Convert seconds to samples at `rate` Hz, both rounded to multiples of `align`."""
        return cls(round(size_s * rate / align) * align, round(stride_s * rate / align) * align)

    def cut(self, blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, Span]]:
        """Yield a clip's chunks from its consecutive blocks of samples. The last chunk has the remaining samples."""
        held = np.zeros(0, dtype=np.float32)
        left, first = 0, True
        for block in blocks:
            held = np.concatenate([held, block])
            while len(held) > self.size:  # so that a chunk with no samples after it is the last
                yield held[: self.size], Span(self.size, left, self.stride, first)
                held, left, first = held[self.size - 2 * self.stride :], self.stride, False
        if len(held):
            yield held, Span(len(held), left, 0, first)

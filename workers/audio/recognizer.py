"""What must a kind of speech model implement? The interface of CTC and Whisper; the handler owns records and chunks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from schemas.errors import Permanent
from workers.audio.chunks import Chunking, Span
from workers.handler import Output, Piece


@dataclass(frozen=True)
class SpeechProcessor:
    """A speech model's processors: the feature extractor before it, and the tokenizer after it."""

    extractor: Any
    tokenizer: Any


@dataclass(frozen=True)
class Transcript:
    """A clip's text. `chunks` have text, start_s and end_s; `language` is a code, or None if the model has none."""

    text: str
    chunks: list[dict[str, Any]]
    language: str | None = None


class Recognizer(ABC):
    """A loaded model of one kind, for one job. Several threads call its methods at once; one thread calls `infer`."""

    #: How a clip is cut for the model, in samples at `rate` Hz.
    chunking: Chunking
    rate: int

    @abstractmethod
    def piece(self, samples: np.ndarray, span: Span) -> Piece:
        """Encode a chunk; its span becomes the piece's notes. Raise RecordError if the model can't take the clip."""

    @abstractmethod
    def infer(self, pieces: Sequence[Piece]) -> Sequence[Output]:
        """Run the model on chunks of any clips together."""

    @abstractmethod
    def transcript(self, spans: Sequence[Span], outputs: Sequence[Any]) -> Transcript:
        """Return a clip's transcript from all its chunks."""


def refuse(name: str, problem: str) -> NoReturn:
    """Raise Permanent (`bad_params`), since a parameter doesn't go with the model."""
    raise Permanent(f"params.{name}: {problem}", code="bad_params")

"""Recognizer: what CTC and Whisper each have to give. The handler owns records and chunks."""

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
    """What stands around a speech model: its feature extractor in front, its tokenizer behind."""

    extractor: Any
    tokenizer: Any


@dataclass(frozen=True)
class Transcript:
    """`chunks` are of text, start_s and end_s; `language` is a code, or None where the model knows of none."""

    text: str
    chunks: list[dict[str, Any]]
    language: str | None = None


class Recognizer(ABC):
    """One kind of model, loaded, for one job. Its methods are called by several threads at once, `infer` by one."""

    #: How a clip is cut for it, in samples at `rate` Hz.
    chunking: Chunking
    rate: int

    @abstractmethod
    def piece(self, samples: np.ndarray, span: Span) -> Piece:
        """A chunk encoded, with its span for a note. Raises RecordError for a clip that can't be heard."""

    @abstractmethod
    def infer(self, pieces: Sequence[Piece]) -> Sequence[Output]:
        """Chunks of any clips, heard together."""

    @abstractmethod
    def transcript(self, spans: Sequence[Span], outputs: Sequence[Any]) -> Transcript:
        """A clip's, from all its chunks."""


def refuse(name: str, problem: str) -> NoReturn:
    """Say that a parameter doesn't go with the model. Raises Permanent (`bad_params`)."""
    raise Permanent(f"params.{name}: {problem}", code="bad_params")

"""automatic-speech-recognition: a clip's chunks through a CTC model or Whisper, then one transcript of them all."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCTC, AutoModelForSpeechSeq2Seq

from schemas.job import JobSpec
from schemas.tasks.automatic_speech_recognition import TASK, Params
from workers.audio.clip import Clip
from workers.audio.ctc import CtcRecognizer, check_ctc
from workers.audio.features import load_feature_extractor
from workers.audio.recognizer import Recognizer, SpeechProcessor
from workers.audio.whisper import WhisperRecognizer
from workers.handler import Handler, Loaded, Output, Piece, Prediction, Record
from workers.models.load import load_model, load_tokenizer


class AutomaticSpeechRecognition(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        whisper = loaded.model.config.model_type == "whisper"
        self._recognizer: Recognizer = (WhisperRecognizer if whisper else CtcRecognizer)(loaded, params)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        whisper = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type") == "whisper"
        model = load_model(AutoModelForSpeechSeq2Seq if whisper else AutoModelForCTC, folder, device, dtype)
        if not whisper:
            check_ctc(model)
        return Loaded(model, SpeechProcessor(load_feature_extractor(folder), load_tokenizer(folder)), device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[Iterator[Piece]]:
        return [self._pieces(record["audio"]) for record in records]

    def _pieces(self, clip: Clip) -> Iterator[Piece]:
        recognizer = self._recognizer
        for samples, span in recognizer.chunking.cut(clip.blocks(recognizer.rate)):
            yield recognizer.piece(samples, span)

    def infer(self, pieces: Sequence[Piece]) -> Sequence[Output]:
        return self._recognizer.infer(pieces)

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        spans = [piece.notes for piece in pieces]
        found = self._recognizer.transcript(spans, outputs)
        return {
            "text": found.text,
            "chunks": found.chunks,
            "duration_s": sum(span.own for span in spans) / self._recognizer.rate,
            "language": found.language,
        }

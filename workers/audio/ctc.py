"""CTC models: they give a token for each frame of samples; repeated tokens and blanks are then dropped.

Rules: the pipeline's, pipelines/automatic_speech_recognition.py of Transformers 5 (`type == "ctc"`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2CTCTokenizer

from schemas.errors import Permanent
from schemas.tasks.automatic_speech_recognition import Params
from workers.audio.chunks import Chunking, Span
from workers.audio.features import batches, check_length, encode, pads, shortest
from workers.audio.recognizer import Recognizer, SpeechProcessor, Transcript, refuse
from workers.handler import Loaded, Piece


class CtcRecognizer(Recognizer):
    def __init__(self, loaded: Loaded, params: Params) -> None:
        processor: SpeechProcessor = loaded.processor
        self._tokenizer = processor.tokenizer
        self._timestamps = params.timestamps
        self._check(params)
        self._loaded = replace(loaded, processor=processor.extractor)
        self._shortest, self._pads = shortest(self._loaded), pads(self._loaded)
        self.rate = processor.extractor.sampling_rate
        self._ratio: int = loaded.model.config.inputs_to_logits_ratio
        self.chunking = Chunking.of(params.chunk_length_s, params.stride_s, self.rate, self._ratio)

    def _check(self, params: Params) -> None:
        if params.timestamps == "segment":
            refuse("timestamps", "a CTC model knows no segments; it gives char and word")
        if params.timestamps != "none" and not isinstance(self._tokenizer, Wav2Vec2CTCTokenizer):
            refuse("timestamps", f"a {type(self._tokenizer).__name__} gives no times; leave it at none")
        for name in ("language", "num_beams"):
            if getattr(params, name) is not None:
                refuse(name, "a CTC model has no choice of it; leave it out")
        if params.task == "translate":
            refuse("task", "a CTC model can only transcribe")

    def piece(self, samples: np.ndarray, span: Span) -> Piece:
        """Return the samples as float32, normalised over the chunk if the model needs that.

        Raise RecordError (`audio_too_short`) for a clip of less than a frame. A last chunk of less adds no tokens.
        """
        if span.first:
            check_length(samples, self._shortest)
        return encode(self._loaded, samples, notes=span)

    def infer(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Return the best token of each frame, int64 of shape (frames,) for each piece.

        Only pieces of equal length are computed together, except by models whose answer padding doesn't change.
        """
        heard = [i for i, piece in enumerate(pieces) if piece.notes.length >= self._shortest]
        found = dict.fromkeys(range(len(pieces)), torch.zeros(0, dtype=torch.int64))
        for places, inputs in batches(self._loaded, [pieces[i] for i in heard], self._pads) if heard else ():
            best = self._loaded.model(**inputs).logits.argmax(dim=-1)
            for place, row in zip(places, best, strict=True):
                found[heard[place]] = row[: self._frames(pieces[heard[place]].notes.length)]
        return list(found.values())

    def _frames(self, samples: int) -> int:
        return int(self._loaded.model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def transcript(self, spans: Sequence[Span], outputs: Sequence[Any]) -> Transcript:
        tokens = np.concatenate([self._own(span, frames) for span, frames in zip(spans, outputs, strict=True)])
        text = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return Transcript(text, [] if self._timestamps == "none" else self._timed(tokens))

    def _own(self, span: Span, frames: np.ndarray) -> np.ndarray:
        """Return a chunk's frames without those that its neighbours answer for: `rescale_stride` of the pipeline."""
        total = round(span.length * (1 / self._ratio))
        left, right = (round(side / span.length * total) for side in (span.left, span.right))
        return frames[left : total - right]

    def _timed(self, tokens: np.ndarray) -> list[dict[str, Any]]:
        unit = self._timestamps
        places = self._tokenizer.decode(tokens, skip_special_tokens=False, output_char_offsets=True)["char_offsets"]
        if unit == "word":
            places = self._tokenizer._get_word_offsets(places, self._tokenizer.replace_word_delimiter_char)

        def seconds(frame: Any) -> float:
            return int(frame) * self._ratio / self.rate

        return [
            {"text": place[unit], "start_s": seconds(place["start_offset"]), "end_s": seconds(place["end_offset"])}
            for place in places
        ]


def check_ctc(model: Any) -> None:
    """Raise Permanent (code `model`) if a CTC model reads something other than samples."""
    if model.main_input_name != "input_values" or not hasattr(model.config, "inputs_to_logits_ratio"):
        raise Permanent(
            f"a {type(model).__name__} reads {model.main_input_name}; of CTC models only those that read samples "
            "(Wav2Vec2, HuBERT, WavLM and their kin) are run here",
            code="model",
        )

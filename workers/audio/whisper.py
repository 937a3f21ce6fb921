"""Whisper: generates tokens from half a minute of sound at once, with times if they are wanted.

Rules: the pipeline's (pipelines/automatic_speech_recognition.py of Transformers 5, `type == "seq2seq_whisper"`), and
those of `generate` in models/whisper/generation_whisper.py. Two things are done differently, with the same tokens as a
result: chunks of any clips are computed together, and a window is encoded once, for language, tokens and times.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from schemas.tasks.automatic_speech_recognition import Params
from workers.audio.chunks import Chunking, Span
from workers.audio.recognizer import Recognizer, SpeechProcessor, Transcript, refuse
from workers.audio.whisper_prompt import Prompt
from workers.audio.whisper_timestamps import PLACE_S, cross_attentions, token_times
from workers.handler import Loaded, Piece
from workers.models.device import to_device

#: The pipeline's defaults, used if neither the job nor the model sets them.
DEFAULT_BEAMS = 5
DEFAULT_NEW_TOKENS = 256


@dataclass
class Hearing:
    """A chunk's progress: its frames of sound, the frames done (`seek`), and the language, tokens and times found."""

    frames: int
    language: int | None = None
    seek: int = 0
    tokens: list[int] = field(default_factory=list)
    times: list[torch.Tensor] = field(default_factory=list)

    def output(self) -> dict[str, torch.Tensor]:
        return {
            "tokens": torch.tensor(self.tokens, dtype=torch.int64),
            "times": torch.cat([torch.zeros(0), *self.times]),
            "language": torch.tensor(-1 if self.language is None else self.language),
        }


class WhisperRecognizer(Recognizer):
    def __init__(self, loaded: Loaded, params: Params) -> None:
        self._loaded = loaded
        self._model = loaded.model
        processor: SpeechProcessor = loaded.processor
        self._extractor, self._tokenizer = processor.extractor, processor.tokenizer
        self._timestamps = params.timestamps
        own = self._model.generation_config
        untimed = getattr(own, "no_timestamps_token_id", None)
        if params.timestamps == "char":
            refuse("timestamps", "Whisper gives no times of characters; it gives word and segment")
        if params.timestamps != "none" and untimed is None:
            refuse("timestamps", "the model's generation configuration lacks no_timestamps_token_id; leave it at none")
        if params.timestamps == "word" and not getattr(own, "alignment_heads", None):
            refuse(
                "timestamps",
                "the model's generation configuration lacks alignment_heads, which word needs; take segment",
            )
        if params.chunk_length_s > self._extractor.chunk_length:
            refuse("chunk_length_s", f"the model hears {self._extractor.chunk_length} seconds at once at most")
        self.rate = self._extractor.sampling_rate
        self.chunking = Chunking.of(params.chunk_length_s, params.stride_s, self.rate, 1)
        self._prompt = Prompt.of(loaded, params)
        self._generation = _generation_config(own, params, self._tokenizer.pad_token_id)
        ends = self._generation.eos_token_id
        self._ends: list[int] = ends if isinstance(ends, list) else [ends]
        #: The first token that is a time. If the model has no such tokens, it is beyond the vocabulary.
        self._first_time = self._model.config.vocab_size + 1 if untimed is None else untimed + 1

    def piece(self, samples: np.ndarray, span: Span) -> Piece:
        """Return the chunk's log mel spectrogram, float32 (bins, frames of a whole window), and its frames of sound.

        It is made on the CPU, as in the pipeline. On a GPU its last digits would differ.
        """
        made = self._extractor(samples, sampling_rate=self.rate, return_attention_mask=True, return_tensors="np")
        inputs = {"features": made["input_features"][0], "frames": int(made["attention_mask"].sum())}
        # Greedy decoding gains from large batches, and takes less memory than beams: a third of the encoder's places.
        places: int = self._model.config.max_source_positions
        return Piece(inputs, max(1, places * min(self._generation.num_beams, 3) // 3), span)

    def infer(self, pieces: Sequence[Piece]) -> list[dict[str, torch.Tensor]]:
        """Return each chunk's `tokens` (int64), `times` (for words; float32, seconds from its start) and `language`.

        With times, a chunk is run again from its last pair of times on, until all of it is transcribed.
        """
        features = torch.from_numpy(np.stack([piece.inputs["features"] for piece in pieces]))
        features = to_device(features, self._loaded.device).to(self._loaded.dtype)
        window = features.shape[-1]
        hearings = [Hearing(piece.inputs["frames"]) for piece in pieces]
        active, number = list(range(len(pieces))), 0
        while active:
            windows = [features[i, :, hearings[i].seek :] for i in active]
            padded = torch.stack([torch.nn.functional.pad(one, (0, window - one.shape[-1])) for one in windows])
            self._hear(padded, [hearings[i] for i in active], number)
            active, number = [i for i in active if hearings[i].seek < window], number + 1
        return [hearing.output() for hearing in hearings]

    def _hear(self, windows: torch.Tensor, hearings: Sequence[Hearing], number: int) -> None:
        """Transcribe each window, in the chunks' turn of this number, and move the chunks on."""
        hidden = self._model.get_encoder()(windows).last_hidden_state
        if number == 0:
            for hearing, language in zip(hearings, self._prompt.languages(hidden), strict=True):
                hearing.language = language
        prompts = [self._prompt.tokens(hearing.language) for hearing in hearings]
        rows = self._generate(hidden, prompts, hearings, number)
        for place, (hearing, prompt, row) in enumerate(zip(hearings, prompts, rows, strict=True)):
            tokens = row[:-1] if row[-1] in self._ends else row
            kept, heard = self._kept(tokens, windows.shape[-1] - hearing.seek)
            if self._timestamps == "word":
                times = self._times(hidden[place : place + 1], prompt, row, hearing.frames - hearing.seek)
                hearing.times.append(times[:kept] + hearing.seek * PLACE_S / 2)
            hearing.tokens += tokens[:kept]
            hearing.seek += heard

    def _generate(
        self, hidden: torch.Tensor, prompts: list[list[int]], hearings: Sequence[Hearing], number: int
    ) -> list[list[int]]:
        """Return the tokens after each prompt, up to and including the first end token."""
        begin = len(prompts[0])
        languages = [self._prompt.name(hearing.language) for hearing in hearings if hearing.language is not None]
        sequences = self._model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=torch.ones(hidden.shape[:2], dtype=torch.int64, device=hidden.device),
            decoder_input_ids=torch.tensor(prompts, device=hidden.device),
            generation_config=self._limited(begin, number),
            language=languages or None,
            return_timestamps=self._timestamps != "none",
            force_unique_generate_call=True,
        )
        rows: list[list[int]] = sequences[:, begin:].tolist()
        return [row[: next((i + 1 for i, token in enumerate(row) if token in self._ends), len(row))] for row in rows]

    def _limited(self, begin: int, number: int) -> GenerationConfig:
        """Return the configuration with this turn's limit; `generate` lets the limit grow by the prompt each turn."""
        config = copy.copy(self._generation)
        places = self._model.config.max_target_positions
        if config.max_new_tokens is not None:
            config.max_new_tokens = min(config.max_new_tokens, places - begin)
        else:
            config.max_length = min(config.max_length + number * begin, places)
        return config

    def _kept(self, tokens: list[int], left: int) -> tuple[int, int]:
        """Return how many of the tokens count, and how many of the frames left they cover: `_retrieve_segment`."""
        timed = [token >= self._first_time for token in tokens]
        pairs = [i for i in range(1, len(tokens)) if timed[i - 1] and timed[i]]
        if not pairs or timed[-2:] == [False, True]:
            return len(tokens), left
        heard = 2 * (tokens[pairs[-1] - 1] - self._first_time)
        return pairs[-1] + 1, heard or left  # without times, a model may say 0.00 twice, for ever

    def _times(self, hidden: torch.Tensor, prompt: list[int], row: list[int], frames: int) -> torch.Tensor:
        """Return when each token of the row begins, in seconds from the window's start."""
        ids = torch.tensor([[*prompt, *row[:-1]]], device=hidden.device)
        heads = self._model.generation_config.alignment_heads
        weights = cross_attentions(self._model, hidden, ids, heads)[:, len(prompt) :]
        # Twice, as in Transformers: if a window begins after the sound (frames < 0), one cut leaves something else.
        weights = weights[..., : frames // 2][..., : frames // 2]
        return token_times(weights, self._model.config.median_filter_width)

    def transcript(self, spans: Sequence[Span], outputs: Sequence[Any]) -> Transcript:
        words = self._timestamps == "word"
        heard = []
        for span, output in zip(spans, outputs, strict=True):
            tokens, times = output["tokens"].tolist(), output["times"].tolist()
            if words and output["language"] >= 0:  # in some languages words have no spaces between them
                tokens, times = [int(output["language"]), *tokens], [0.0, *times]
            stride = tuple(samples / self.rate for samples in (span.length, span.left, span.right))
            heard.append({"tokens": np.array([tokens]), "token_timestamps": np.array([times]), "stride": stride})
        text, more = self._tokenizer._decode_asr(
            heard,
            return_timestamps={"none": None, "word": "word", "segment": True}[self._timestamps],
            return_language=None,
            time_precision=self._extractor.chunk_length / self._model.config.max_source_positions,
        )
        chunks = [
            {"text": chunk["text"], "start_s": chunk["timestamp"][0], "end_s": chunk["timestamp"][1]}
            for chunk in more.get("chunks", ())
        ]
        found = Counter(int(output["language"]) for output in outputs)
        return Transcript(text, chunks, self._prompt.code(max(found, key=found.__getitem__)))


def _generation_config(own: GenerationConfig, params: Params, pad: int) -> GenerationConfig:
    """Return the model's configuration with the job's beams, and with the values that the pipeline fills in."""
    config: GenerationConfig = copy.deepcopy(own)
    config.num_beams = params.num_beams or own.num_beams or DEFAULT_BEAMS
    if own.max_length is None and own.max_new_tokens is None:
        config.max_new_tokens = DEFAULT_NEW_TOKENS
    if own.pad_token_id is None:
        config.pad_token_id = pad
    return config

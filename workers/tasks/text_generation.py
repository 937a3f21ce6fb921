"""text-generation: prompts or conversations through the decoder, then answers as texts that end at stop strings.

Rule: TextGenerationPipeline of Transformers 5, pipelines/text_generation.py and pipelines/base.py.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, TextGenerationPipeline

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.tasks.text_generation import TASK, Params
from workers.generation.causal import Causal, Prompts, load_causal
from workers.generation.chat_template import rendered
from workers.generation.decoder import Decoder, Prompt
from workers.generation.end_tokens import end_tokens, generated
from workers.generation.stop_strings import Stops
from workers.handler import Handler, Loaded, Piece, Prediction, Record

#: The pipeline's defaults, used if neither the job nor the model sets them.
DEFAULT_NEW_TOKENS = 256
DEFAULT_TEMPERATURE = 0.7


@dataclass(frozen=True)
class Notes:
    """A prompt's text if the answer begins with it, else an empty string; and whether the prompt was cut."""

    text: str
    truncated: bool


class TextGeneration(Handler[Params]):
    task = TASK

    def __init__(self, loaded: Loaded, params: Params, spec: JobSpec) -> None:
        super().__init__(loaded, params, spec)
        assert isinstance(loaded, Causal)
        self._prompts = Prompts(loaded)
        self._config = configuration(loaded.own, params)
        self._ends = end_tokens(self._config)
        self._stops = Stops(loaded.processor, params.stop or _own_stops(loaded.own))
        self._decoder = Decoder(loaded, self._config, self._stops)
        self.deterministic = not self._config.do_sample
        self._prefix = _prefix(loaded.model) if params.prefix is None else params.prefix
        self._prefix_tokens = len(self._prompts.bare([self._prefix])[0]) if self._prefix else 0
        self._new, self._length = limits(loaded.own, params, self._prompts.positions)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Causal:
        return load_causal(folder, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        if records and "messages" in records[0]:
            texts = [rendered(self.loaded.processor, record["messages"]) for record in records]
            encoded, extra = self._prompts.bare(texts), 0
        else:
            texts = [record["text"] for record in records]
            encoded, extra = self._prompts.encode([self._prefix + text for text in texts]), self._prefix_tokens
        return [[self._piece(ids, text, extra)] for ids, text in zip(encoded, texts, strict=True)]

    def _piece(self, ids: list[int], text: str, extra: int) -> Piece:
        """Return the prompt with its limit. `extra` of its tokens don't count towards `max_length`."""
        positions = self._prompts.positions
        if self._length is None:
            limit = self._new
            kept = self._prompts.cut(ids, None if positions is None else positions - limit)
        else:
            kept = self._prompts.cut(ids, None)
            limit = min(self._length + extra, positions or self._length + extra) - len(kept)
        if limit < 1:
            raise RecordError(
                "prompt_too_long",
                f"the prompt has {len(kept):,} tokens, and max_length or the model has no room for one more; with "
                "max_new_tokens such prompts are cut",
            )
        notes = Notes(text if self.params.return_full_text else "", len(kept) < len(ids))
        return Piece({"input_ids": kept, "limit": limit}, len(kept) + limit, notes)

    def infer(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        return self._decoder.run([Prompt(p.inputs["input_ids"], p.inputs["limit"], p.seed) for p in pieces])

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        tokens = generated(outputs[0])
        text = self._stops.text(tokens)
        stopped = tokens[-1] in self._ends
        start = self._stops.start(text)
        if start is not None:
            tokens, text, stopped = tokens[: self._stops.count(tokens)], text[:start], True
        notes: Notes = pieces[0].notes
        return {
            "text": notes.text + text,
            "tokens": tokens,
            "finish_reason": "stop" if stopped else "length",
            "truncated": notes.truncated,
        }


def _own_stops(own: GenerationConfig) -> list[str]:
    stops: str | list[str] | None = own.stop_strings
    return [stops] if isinstance(stops, str) else stops or []


def _prefix(model: Any) -> str:
    """Return the prefix that the pipeline puts before a text by default."""
    own: str | None = getattr(model.config, "prefix", None)
    if own is None and type(model).__name__ == "XLNetLMHeadModel":
        own = TextGenerationPipeline.XL_PREFIX
    return own or ""


def configuration(own: GenerationConfig, params: Params) -> GenerationConfig:
    """Return the model's configuration without limits, with the job's parameters or else the pipeline's defaults."""
    config: Any = copy.deepcopy(own)
    names = ("do_sample", "temperature", "top_k", "top_p", "num_beams", "repetition_penalty")
    for name in names:
        if (value := getattr(params, name)) is not None:
            setattr(config, name, value)
    if params.do_sample:
        config.num_beams = 1
    searches = (config.num_beams or 1) > 1
    config.do_sample = not searches and (config.do_sample is None or config.do_sample)
    if config.temperature is None:
        config.temperature = DEFAULT_TEMPERATURE
    if config.top_k is None:
        config.top_k = 50
    config.num_return_sequences = 1
    config.max_new_tokens = config.max_length = None
    made: GenerationConfig = config
    return made


def limits(own: GenerationConfig, params: Params, positions: int | None) -> tuple[int, int | None]:
    """Return how many tokens to generate, and the limit of prompt and answer together, which counts if it isn't None.

    Raise Permanent (`bad_params`) if the job wants as many new tokens as the model has positions, or more. A default of
    the model or the pipeline is at most half of the positions.
    """
    new = params.max_new_tokens
    if new is not None and positions is not None and new >= positions:
        raise Permanent(
            f"params.max_new_tokens: {new:,} leaves no room for a prompt: the model reads and writes {positions:,} "
            "tokens in all",
            code="bad_params",
        )
    length = params.max_length
    if new is None and length is None:
        new = own.max_new_tokens
        length = own.max_length if new is None else None
        new = DEFAULT_NEW_TOKENS if new is None else new
        new = new if positions is None else min(new, max(1, positions // 2))
    return new or 0, length

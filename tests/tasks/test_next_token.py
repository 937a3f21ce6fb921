"""next-token against the page's own lines for one text, on GPT-2, Llama and XLNet."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import RecordError
from schemas.tasks.next_token import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_causal import make_causal
from tests.tasks.handlers import (
    a_few,
    any_text,
    handler_on,
    load,
    loaded_handler,
    pieces_of,
    predictions,
    problems,
    reference_model,
)
from tests.texts import ODD, sentences
from workers.engine.runner import infer

SCHEMA = "1:775b59b92607"
TEXTS = [*ODD, "<|endoftext|> <pad> <s>", *sentences(20, longest=40)]
handler_of = partial(loaded_handler, TASK)
plain = partial(reference_model, AutoModelForCausalLM)
#: XLNet reads texts of any length, and takes its time.
FEW = [text for text in TEXTS if len(text) < 100]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_causal(tmp_path_factory.mktemp(name), name) for name in ("gpt2", "llama", "xlnet")}


@cache
def probabilities(model: Path, text: str, top_k: int, top_p: float, temperature: float) -> Any:
    """What one text's next token is drawn from, by the page's lines, and whether the text was cut."""
    tokenizer, network = plain(model)
    xlnet = type(network).__name__.startswith("XLNet")
    ids = tokenizer(text, add_special_tokens=not xlnet, verbose=False)["input_ids"]
    whole = len(ids)
    if not xlnet and whole > MAX_LENGTH:
        first = tokenizer("")["input_ids"]
        ids = first + ids[whole - MAX_LENGTH + len(first) :]
    ids = torch.tensor([ids or [tokenizer.bos_token_id]])
    with torch.inference_mode():
        inputs = network.prepare_inputs_for_generation(ids) if xlnet else {"input_ids": ids}
        scores = network(**inputs).logits[0, -1]
    logits = scores / temperature
    if top_k:
        logits[logits < torch.topk(logits, min(top_k, len(logits))).values[-1]] = -torch.inf
    if top_p < 1:
        ordered, places = torch.sort(logits, descending=True)
        remove = torch.softmax(ordered, -1).cumsum(-1) > top_p
        remove[1:] = remove[:-1].clone()
        remove[0] = False
        logits[places[remove]] = -torch.inf
    return torch.softmax(logits, -1), ids.shape[1] < whole


def reference(model: Path, text: str, candidates: int = 5, **options: Any) -> dict[str, Any]:
    """The answer without drawing, in the shape of our prediction."""
    chosen = {"top_k": 50, "top_p": 1.0, "temperature": 1.0} | options
    scores, truncated = probabilities(model, text, **chosen)
    top = torch.topk(scores, candidates)
    decode = plain(model)[0].decode
    found = [
        {"token": token, "token_str": decode([token], clean_up_tokenization_spaces=False), "score": score}
        for token, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        if score > 0
    ]
    first = {name: found[0][name] for name in ("token", "token_str")}
    return first | {"text": text + found[0]["token_str"], "candidates": found, "truncated": truncated}


OPTIONS: dict[str, dict[str, Any]] = {
    "gpt2": {"candidates": 9},
    "llama": {"top_p": 0.7, "temperature": 1.7, "candidates": 20},
    "xlnet": {"top_k": 3},
}


@pytest.fixture(params=list(OPTIONS))
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    model, options = models[request.param], OPTIONS[request.param]
    records: list[dict[str, Any]] = [{"text": text} for text in (FEW if request.param == "xlnet" else TEXTS)]
    params = options | {"do_sample": False}
    return Case(TASK, model, records, params, lambda record: reference(model, record["text"], **options), SCHEMA)


@pytest.mark.parametrize("architecture", list(OPTIONS))
def test_the_cases_differ(architecture: str, models: dict[str, Path]) -> None:
    assert len({reference(models[architecture], text)["token"] for text in FEW}) > 5


@pytest.mark.parametrize("architecture", list(OPTIONS))
def test_what_is_drawn_is_the_same_whatever_the_batch(
    architecture: str, models: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    records: list[dict[str, Any]] = [{"text": text} for text in FEW]
    case = Case(TASK, models[architecture], records, {"temperature": 2.0}, dict, SCHEMA)
    found = []
    for number, batch_size in enumerate([1, 3, 32]):
        rows = run_case(case, settings, tmp_path, records, batch_size=batch_size, shard={"rows": 9 + 11 * number})
        found.append([row["prediction"]["token"] for row in rows])
        (tmp_path / "out").rename(tmp_path / f"out{number}")
        for row in rows:
            assert row["prediction"]["text"] == row["text"] + row["prediction"]["token_str"]
    assert found[0] == found[1] == found[2]
    rows = run_case(case, settings, tmp_path, records, seed=1)
    assert [row["prediction"]["token"] for row in rows] != found[0]


@pytest.mark.parametrize(("architecture", "params"), [("gpt2", {"top_k": 4}), ("xlnet", {"top_p": 0.8, "top_k": 0})])
def test_tokens_are_drawn_by_the_pages_probabilities(
    architecture: str, params: dict[str, Any], models: dict[str, Path]
) -> None:
    """A text at 2,000 places: as often each token as its probability says (chi-square, loosely)."""
    count = 2000
    text = "the good film was"
    handler = handler_of(models[architecture], temperature=3.0, **params)
    assert handler.deterministic is False
    found = predictions(handler, text=[text] * count)
    options = {"top_k": 50, "top_p": 1.0} | params
    expected = count * probabilities(models[architecture], text, temperature=3.0, **options)[0].numpy()
    seen = np.bincount([one["token"] for one in found], minlength=len(expected))
    assert seen[expected == 0].sum() == 0
    often = expected >= 5
    assert often.sum() >= 4
    assert ((seen - expected)[often] ** 2 / expected[often]).sum() < often.sum() - 1 + 5 * (2 * often.sum()) ** 0.5


def test_an_empty_text_needs_a_token_that_begins_texts(models: dict[str, Path]) -> None:
    loaded: Any = load(TASK, models["gpt2"])
    loaded.own.bos_token_id = None
    loaded.processor.bos_token = None
    with pytest.raises(RecordError) as error:
        handler_on(TASK, loaded).prepare([{"text": ""}])
    assert error.value.code == "no_tokens"


def test_scores_that_are_no_numbers_are_that_records_error(tmp_path: Path) -> None:
    folder = make_causal(tmp_path, "gpt2")
    tokenizer, network = plain(folder)
    with torch.no_grad():
        network.get_input_embeddings().weight[tokenizer("Q")["input_ids"][0]] = torch.nan
    network.save_pretrained(folder)
    for sample in (True, False):
        handler = handler_of(folder, do_sample=sample)
        with pytest.raises(RecordError) as error:
            predictions(handler, text=["good", "Q good"])
        assert error.value.code == "not_finite"
        whole = handler_of(make_causal(tmp_path / f"whole{sample}", "gpt2"), do_sample=sample)
        pieces = [piece for (piece,) in pieces_of(handler, text=["good", "Q good"])]
        outputs, alone = infer(handler, pieces), infer(whole, pieces[:1])
        assert np.allclose(outputs[0]["scores"], alone[0]["scores"], atol=1e-5)


@given(st.lists(any_text, min_size=1, max_size=6))
@a_few
def test_any_unicode_at_any_length(models: dict[str, Path], texts: list[str]) -> None:
    found = predictions(handler_of(models["gpt2"], do_sample=False), text=texts)
    for one, text in zip(found, texts, strict=True):
        assert close(one, reference(models["gpt2"], text))


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
        ({"temperature": 0}, "temperature", "greater than 0"),
        ({"do_sample": "yes"}, "do_sample", "valid boolean"),
        ({"candidates": 0}, "candidates", "greater than or equal to 1"),
        ({"seed": 1}, "seed", "unknown key"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[f"params.{field}"]

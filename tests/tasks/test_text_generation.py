"""text-generation against TextGenerationPipeline and against a plain loop over the model, on GPT-2, Llama and XLNet."""

import random
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, TextGenerationPipeline

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, run_case
from schemas.errors import Permanent, RecordError
from schemas.job import parse_spec
from schemas.tasks.text_generation import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_causal import make_causal
from tests.integration.harness import House, read_output
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
    spec_json,
)
from tests.texts import ODD, sentences
from workers.engine.runner import infer

SCHEMA = "1:035d9fe79fb7"
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 10}
handler_of = partial(loaded_handler, TASK)
plain = partial(reference_model, AutoModelForCausalLM)
TEXTS = [*ODD, "<|endoftext|> good <|endoftext|>", *sentences(10, longest=30)]
SHORT = ["Good", "a", *sentences(12, seed=4, longest=8), "a"]
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": "good"}, {"role": "user", "content": "bad"}]
    if index % 3 == 0
    else [{"role": "user", "content": text}]
    for index, text in enumerate(["", "<s> </s>", "😀 👩‍👩‍👧‍👦", *sentences(9, seed=2, longest=8)])
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_causal(tmp_path_factory.mktemp(name), name) for name in ("gpt2", "llama", "xlnet")}


@cache
def pipe(model: Path) -> Any:
    tokenizer, network = plain(model)
    made: Any = TextGenerationPipeline
    return made(model=network, tokenizer=tokenizer, device="cpu")


def piped(model: Path, prompt: Any, **options: Any) -> dict[str, Any]:
    """What the pipeline gives for one prompt, in the shape of our prediction; remembered."""
    key = prompt if isinstance(prompt, str) else tuple((m["role"], m["content"]) for m in prompt)
    return _piped(model, key, tuple(options.items()))


@cache
def _piped(model: Path, key: Any, chosen: tuple[Any, ...]) -> dict[str, Any]:
    pipeline, tokenizer, options = pipe(model), plain(model)[0], dict(chosen)
    call = {"handle_long_generation": "hole"} | GREEDY | options
    if "max_length" in call:
        del call["max_new_tokens"], call["handle_long_generation"]
    full = call.pop("return_full_text", False)
    if isinstance(key, str):
        prompt: Any = key
        special = "xlnet" not in type(pipeline.model).__name__.lower()
        call["add_special_tokens"] = special
        prefix = call.get("prefix", pipeline._preprocess_params.get("prefix", ""))
        ids = tokenizer(prefix + key, add_special_tokens=special, verbose=False)["input_ids"]
    else:
        prompt = [{"role": role, "content": content} for role, content in key]
        open_end = prompt[-1]["role"] != "assistant"
        ids = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=open_end, continue_final_message=not open_end, return_dict=True
        )["input_ids"]
    known = tokenizer.model_max_length == MAX_LENGTH and "handle_long_generation" in call
    kept = min(len(ids), MAX_LENGTH - call["max_new_tokens"]) if known else len(ids)
    made = pipeline(prompt, return_tensors=True, **call)[0]["generated_token_ids"]
    tokens = made[max(kept, 1) :]
    return {
        "text": pipeline(prompt, return_full_text=full, **call)[0]["generated_text"],
        "tokens": tokens,
        "finish_reason": "stop" if tokens[-1] == tokenizer.eos_token_id else "length",
        "truncated": kept < len(ids),
    }


@pytest.fixture(params=["gpt2", "llama", "xlnet", "chat"])
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    model = models[{"chat": "llama"}.get(request.param, request.param)]
    if request.param == "chat":
        records: list[dict[str, Any]] = [{"messages": chat} for chat in CHATS]
        return Case(TASK, model, records, GREEDY, lambda record: piped(model, record["messages"]), SCHEMA)
    options: dict[str, Any] = {"gpt2": {}, "llama": {"return_full_text": True}, "xlnet": {"prefix": "good bad film. "}}
    params = GREEDY | options[request.param]
    texts = TEXTS if request.param == "gpt2" else SHORT
    return Case(
        TASK, model, [{"text": text} for text in texts], params, lambda r: piped(model, r["text"], **params), SCHEMA
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "xlnet"])
def test_the_cases_differ(architecture: str, models: dict[str, Path]) -> None:
    found = predictions(handler_of(models[architecture], prefix="good bad film. ", **GREEDY), text=SHORT)
    assert len({tuple(one["tokens"]) for one in found}) > len(SHORT) // 2
    assert {one["finish_reason"] for one in found} == {"stop", "length"}


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral", "mamba"])
def test_greedy_is_the_plain_loop_over_the_model(architecture: str, tmp_path: Path) -> None:
    model = make_causal(tmp_path, architecture)
    tokenizer, network = plain(model)
    for text, found in zip(SHORT, predictions(handler_of(model, **GREEDY), text=SHORT), strict=True):
        ids = tokenizer(text)["input_ids"]
        tokens: list[int] = []
        while len(tokens) < 10 and tokens[-1:] != [tokenizer.eos_token_id]:
            with torch.inference_mode():
                tokens.append(int(network(torch.tensor([ids + tokens])).logits[0, -1].argmax()))
        assert found["tokens"] == tokens


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3, "max_new_tokens": 6},
        {"max_length": 40},
        {"max_length": 40, "repetition_penalty": 1.5},
        {"max_new_tokens": 50, "return_full_text": True},
        {"max_new_tokens": 1},
    ],
    ids=str,
)
def test_parameters_are_the_pipelines(options: dict[str, Any], models: dict[str, Path]) -> None:
    model = models["gpt2"]
    handler = handler_of(model, **({"do_sample": False} | options))
    assert predictions(handler, text=SHORT) == [piped(model, text, **options) for text in SHORT]


@pytest.mark.parametrize(
    "own",
    [
        {"max_new_tokens": 7, "do_sample": False},
        {"max_length": 30, "do_sample": False},
        {"min_new_tokens": 12, "max_new_tokens": 14, "do_sample": False},
        {"no_repeat_ngram_size": 2, "max_new_tokens": 12, "do_sample": False},
        {"forced_eos_token_id": 1, "max_length": 30, "repetition_penalty": 1.2, "do_sample": False},
        {"num_beams": 2, "max_new_tokens": 5, "early_stopping": True, "do_sample": False},
        {"use_cache": False, "max_time": 60.0, "max_new_tokens": 9, "do_sample": False},
        {"suppress_tokens": [280, 361, 141], "max_new_tokens": 5, "do_sample": False},
    ],
    ids=str,
)
def test_what_is_null_is_the_models_own(own: dict[str, Any], tmp_path: Path) -> None:
    model = make_causal(tmp_path, "llama", own)
    pipeline, end = pipe(model), plain(model)[0].eos_token_id
    for text, found in zip(SHORT, predictions(handler_of(model), text=SHORT), strict=True):
        (made,) = pipeline(text, return_full_text=False)
        assert found["text"] == made["generated_text"]
        assert found["finish_reason"] == ("stop" if found["tokens"][-1] == end else "length")


def test_a_chat_goes_through_the_template_once(models: dict[str, Path]) -> None:
    handler = handler_of(models["llama"], return_full_text=True, **GREEDY)
    ((piece,),) = handler.prepare([{"messages": CHATS[1]}])
    ids = piece.inputs["input_ids"]
    assert ids.count(handler.loaded.processor.bos_token_id) == 2  # the template's, and the one that the user wrote
    for chat, found in zip(CHATS, predictions(handler, messages=CHATS), strict=True):
        start = plain(models["llama"])[0].apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert found["text"] == start + piped(models["llama"], chat)["text"]


def test_a_last_message_of_the_assistant_is_continued(models: dict[str, Path]) -> None:
    chat = [{"role": "user", "content": "a film"}, {"role": "assistant", "content": "very good"}]
    assert predictions(handler_of(models["llama"], **GREEDY), messages=[chat]) == [piped(models["llama"], chat)]


@pytest.mark.parametrize(
    "chat",
    [
        [],
        [None],
        [{"role": "user", "content": None}],
        [{"role": None, "content": "good"}],
        [{"role": "user", "content": "good"}, {"role": "user", "content": "bad"}],
    ],
    ids=str,
)
def test_bad_messages_are_a_records_error(chat: list[Any], models: dict[str, Path]) -> None:
    with pytest.raises(RecordError) as error:
        handler_of(models["llama"]).prepare([{"messages": chat}])
    assert error.value.code == "bad_messages"


def test_messages_need_a_template(models: dict[str, Path]) -> None:
    with pytest.raises(Permanent, match="give it its input as `text`") as error:
        handler_of(models["gpt2"]).prepare([{"messages": CHATS[0]}])
    assert error.value.code == "model"


def test_xlnet_has_the_pipelines_padding_text_unless_told(models: dict[str, Path]) -> None:
    short, length = SHORT[:3], {"max_length": 40, "do_sample": False}
    handler = handler_of(models["xlnet"], max_new_tokens=4, do_sample=False)
    assert predictions(handler, text=short) == [piped(models["xlnet"], text, max_new_tokens=4) for text in short]
    counted = predictions(handler_of(models["xlnet"], prefix="good film. ", **length), text=short)
    assert counted == [piped(models["xlnet"], text, prefix="good film. ", **length) for text in short]
    ((piece,),) = handler_of(models["xlnet"], prefix="").prepare([{"text": "good film"}])
    assert piece.inputs["input_ids"] == plain(models["xlnet"])[0]("good film", add_special_tokens=False)["input_ids"]


def test_a_cut_prompt_keeps_the_tokens_before_it(models: dict[str, Path]) -> None:
    handler = handler_of(models["llama"], max_new_tokens=60, do_sample=False)
    ((piece,),) = handler.prepare([{"text": "good film " * 50}])
    ids = plain(models["llama"])[0]("good film " * 50)["input_ids"]
    assert piece.inputs["input_ids"] == [ids[0], *ids[-3:]]
    assert piece.notes.truncated


def test_a_prompt_that_fills_max_length_is_an_error(models: dict[str, Path]) -> None:
    for length in (5, 500):
        handler = handler_of(models["gpt2"], max_length=length)
        with pytest.raises(RecordError) as error:
            handler.prepare([{"text": "good film " * 50}])
        assert error.value.code == "prompt_too_long"


def test_limits_that_the_model_can_not_meet_are_refused(models: dict[str, Path]) -> None:
    with pytest.raises(Permanent, match=r"params\.max_new_tokens: 64 leaves no room") as error:
        handler_of(models["gpt2"], max_new_tokens=MAX_LENGTH)
    assert error.value.code == "bad_params"
    ((piece,),) = handler_of(models["gpt2"]).prepare([{"text": "good film " * 50}])
    assert (len(piece.inputs["input_ids"]), piece.inputs["limit"], piece.cost) == (32, 32, 64)


def test_a_prompt_without_tokens_needs_one_that_begins_texts(tmp_path: Path) -> None:
    handler = handler_of(make_causal(tmp_path, "gpt2", {"bos_token_id": None}), **GREEDY)
    assert handler.prepare([{"text": ""}])
    handler.loaded.processor.bos_token = None
    with pytest.raises(RecordError) as error:
        handler_on(TASK, handler.loaded, **GREEDY).prepare([{"text": ""}])
    assert error.value.code == "no_tokens"


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "xlnet"])
@pytest.mark.parametrize("beams", [1, 2])
def test_stop_strings_end_a_text_wherever_tokens_meet(architecture: str, beams: int, models: dict[str, Path]) -> None:
    loaded = load(TASK, models[architecture])
    common: dict[str, Any] = {"max_new_tokens": 10, "num_beams": beams, "prefix": "", "do_sample": False}
    whole = predictions(handler_on(TASK, loaded, **common), text=SHORT)
    middles = [(one["text"][2:5], one["text"][4:6]) for one in whole]
    stops = [stop for both in middles[:6] for stop in both if stop and "\ufffd" not in stop]
    assert len(stops) > 3
    handler = handler_on(TASK, loaded, stop=stops, **common)
    together = predictions(handler, text=SHORT)
    assert together == [predictions(handler, text=[text])[0] for text in SHORT]
    for one, found in zip(whole, together, strict=True):
        places = [place for stop in stops if (place := one["text"].find(stop)) >= 0]
        if not places:
            assert found == one
            continue
        assert found["text"] == one["text"][: min(places)]
        assert found["finish_reason"] == "stop"
        count = len(found["tokens"])
        assert found["tokens"] == one["tokens"][:count]
        texts = [loaded.processor.decode(one["tokens"][:n], skip_special_tokens=True) for n in (count - 1, count)]
        assert [any(stop in text for stop in stops) for text in texts] == [False, True]


def test_a_models_own_stop_strings_count(tmp_path: Path, models: dict[str, Path]) -> None:
    stop = predictions(handler_of(models["llama"], **GREEDY), text=SHORT)[2]["text"][3:6]
    model = make_causal(tmp_path, "llama", {"stop_strings": stop})
    expected = predictions(handler_of(models["llama"], stop=[stop], **GREEDY), text=SHORT)
    assert predictions(handler_of(model, **GREEDY), text=SHORT) == expected
    assert "stop" in {one["finish_reason"] for one in expected}


def test_a_text_of_many_rounds_stops_where_it_would_alone(models: dict[str, Path]) -> None:
    """Rows of very different lengths, each ended by its own limit, its end token or a stop string."""
    for params in ({"max_length": 60}, {"max_new_tokens": 30, "stop": ["good", "\ufffd\ufffd"]}):
        handler = handler_of(models["llama"], do_sample=False, **params)
        together = predictions(handler, text=[*SHORT, *sentences(20, longest=20)])
        assert together == [predictions(handler, text=[text])[0] for text in [*SHORT, *sentences(20, longest=20)]]


@pytest.mark.parametrize(
    ("architecture", "params"),
    [
        ("gpt2", {"temperature": 1.3, "top_k": 30, "top_p": 0.9}),
        ("gpt2", {"top_k": 0, "top_p": 0.95, "repetition_penalty": 1.2}),
        ("xlnet", {"temperature": 4.0, "top_k": 0}),
    ],
    ids=str,
)
def test_sampling_is_the_same_whatever_the_batch(
    architecture: str, params: dict[str, Any], models: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    records: list[dict[str, Any]] = [{"text": text} for text in [*SHORT, *["very good"] * 6]]
    options = {"do_sample": True, "max_new_tokens": 8, "prefix": ""} | params
    case = Case(TASK, models[architecture], records, options, dict, SCHEMA)
    found = []
    for number, batch_size in enumerate([1, 3, 32]):
        # One place, since a record's seed comes from where the record is; shards of several sizes.
        if number:
            (tmp_path / "out").rename(tmp_path / f"out{number}")
        rows = run_case(case, settings, tmp_path, records, batch_size=batch_size, shard={"rows": 7 + 10 * number})
        found.append([row["prediction"]["tokens"] for row in rows])
    assert found[0] == found[1] == found[2]
    assert len({tuple(tokens) for tokens in found[0][-6:]}) > 1
    (tmp_path / "out").rename(tmp_path / "out-last")
    rows = run_case(case, settings, tmp_path, records, seed=1)
    assert [row["prediction"]["tokens"] for row in rows] != found[0]


def test_sampling_does_not_depend_on_the_neighbours(models: dict[str, Path]) -> None:
    handler = handler_of(models["llama"], do_sample=True, max_new_tokens=20, temperature=1.2)
    pieces = [piece for (piece,) in pieces_of(handler, text=[*SHORT, *sentences(20, longest=12)])]
    order = list(range(len(pieces)))
    random.Random(5).shuffle(order)
    shuffled = dict(zip(order, infer(handler, [pieces[place] for place in order]), strict=True))
    for place, piece in enumerate(pieces):
        assert shuffled[place].tolist() == infer(handler, [piece])[0].tolist()
    assert handler.deterministic is False
    assert handler_of(models["llama"], **GREEDY).deterministic


def test_what_the_pipeline_samples_is_sampled_here(models: dict[str, Path], tmp_path: Path) -> None:
    """By default at temperature 0.7 of the 50 likeliest; as the model says, or the job."""
    config = handler_of(models["gpt2"])._config  # type: ignore[attr-defined]
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 0.7, 50, None)
    model = make_causal(tmp_path, "gpt2", {"do_sample": True, "temperature": 0.3, "top_p": 0.5, "min_p": 0.01})
    config = handler_of(model, top_p=0.9)._config  # type: ignore[attr-defined]
    assert (config.do_sample, config.temperature, config.top_k, config.top_p) == (True, 0.3, 50, 0.9)
    assert not handler_of(model, num_beams=2)._config.do_sample  # type: ignore[attr-defined]


def test_scores_that_are_no_numbers_are_that_records_error(tmp_path: Path, settings: Settings) -> None:
    folder = make_causal(tmp_path / "model", "llama")
    tokenizer, network = plain(folder)
    token = tokenizer("Q", add_special_tokens=False)["input_ids"][0]
    texts = [*SHORT, "Q good", *SHORT]
    before = predictions(handler_of(folder, **GREEDY), text=SHORT)
    assert not any(token in one["tokens"] for one in before)
    with torch.no_grad():
        network.get_input_embeddings().weight[token] = torch.nan
    network.save_pretrained(folder)
    for options in (GREEDY, GREEDY | {"num_beams": 2}, {"max_new_tokens": 5, "top_k": 3}):
        records: list[dict[str, Any]] = [{"text": text} for text in texts]
        case = Case(TASK, folder, records, options, dict, SCHEMA)
        place = tmp_path / str(options["max_new_tokens"]) / str(len(options))
        place.mkdir(parents=True)
        rows = run_case(case, settings, place, records)
        assert [row["error"] and row["error"]["code"] for row in rows].count("not_finite") >= 1
        assert rows[len(SHORT)]["error"]["code"] == "not_finite"
        if options is GREEDY:
            assert [row["prediction"] for row in rows if row["error"] is None] == before * 2


def test_a_lone_surrogate_is_that_records_error(models: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    """Which UTF-8 can't hold, so that a table has it only as broken text."""
    table = pa.table({"text": pa.array([b"good", b"a\xed\xa0\x80b"], pa.binary()).view(pa.string())})
    pq.write_table(table, tmp_path / "in.parquet")
    place = {"input": {"uri": f"{tmp_path}/in.parquet", "keep": []}, "output": {"uri": f"{tmp_path}/out"}}
    House(settings).run(parse_spec(spec_json(TASK, GREEDY) | place | {"model": str(models["gpt2"])}))
    good, broken = read_output(f"{tmp_path}/out")
    assert good["prediction"] == piped(models["gpt2"], "good")
    assert broken["error"]["code"] == "invalid_utf8"


@given(st.lists(any_text, min_size=1, max_size=5))
@hypothesis_settings(a_few, max_examples=15)
def test_any_unicode_at_any_length(models: dict[str, Path], texts: list[str]) -> None:
    found = predictions(handler_of(models["gpt2"], do_sample=False, max_new_tokens=4), text=texts)
    assert found == [piped(models["gpt2"], text, max_new_tokens=4) for text in texts]


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens", "greater than or equal to 1"),
        ({"max_new_tokens": 5, "max_length": 6}, "max_length", "not both"),
        ({"temperature": 0}, "temperature", "greater than 0"),
        ({"top_k": -1}, "top_k", "greater than or equal to 0"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"num_beams": 0}, "num_beams", "greater than or equal to 1"),
        ({"num_beams": 2, "do_sample": True}, "num_beams", "a beam search draws nothing"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"do_sample": 1}, "do_sample", "valid boolean"),
        ({"stop": "x"}, "stop", "valid list"),
        ({"stop": ["x", ""]}, "stop", "an empty string is in every text"),
        ({"return_full_text": None}, "return_full_text", "valid boolean"),
        ({"seed": 3}, "seed", "unknown key"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[f"params.{field}"]

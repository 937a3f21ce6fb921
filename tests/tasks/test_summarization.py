"""summarization against a plain one-record loop over `generate`, on BART and T5."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case
from schemas.errors import Permanent, RecordError
from schemas.tasks.summarization import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_seq2seq import TASKS, make_seq2seq
from tests.tasks.handlers import loaded_handler, predictions, problems, reference_model
from tests.texts import ODD, sentences

SCHEMA = "1:ea6c363156df"
TEXTS = [*ODD, "<pad> good <pad>", *sentences(10)]
handler_of = partial(loaded_handler, TASK)
plain = partial(reference_model, AutoModelForSeq2SeqLM)
#: What T5's configuration says for summaries.
ENTRY = {name: value for name, value in TASKS["summarization"].items() if name != "prefix"}


def reference(model: Path, text: str, prefix: str = "", **options: Any) -> dict[str, Any]:
    """What `generate` gives for one text, in the shape of our prediction; remembered."""
    return _reference(model, prefix + text, tuple(options.items()))


@cache
def _reference(model: Path, text: str, chosen: tuple[Any, ...]) -> dict[str, Any]:
    tokenizer, network = plain(model)
    options = {"do_sample": False} | dict(chosen)
    ids = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")["input_ids"]
    tokens = network.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)[0, 1:].tolist()
    most = options.get("max_new_tokens") or options["max_length"] - 1
    forced = network.generation_config.forced_eos_token_id is not None and len(tokens) == most
    return {
        "text": tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        "tokens": tokens,
        "finish_reason": "stop" if tokens[-1] == tokenizer.eos_token_id and not forced else "length",
        "truncated": len(tokenizer(text, verbose=False)["input_ids"]) > MAX_LENGTH,
    }


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seq2seq(tmp_path_factory.mktemp("bart"), "bart")


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seq2seq(tmp_path_factory.mktemp("t5"), "t5")


@pytest.fixture(params=["bart", "t5"])
def case(request: pytest.FixtureRequest) -> Case:
    """BART greedily; T5 with the beams, lengths and prefix of its configuration."""
    records: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    model: Path = request.getfixturevalue(request.param)
    options: dict[str, Any] = {"max_new_tokens": 8, "num_beams": 1} if request.param == "bart" else {"max_length": 8}
    known = options if request.param == "bart" else {"prefix": "summarize: "} | ENTRY | options
    return Case(TASK, model, records, options, lambda record: reference(model, record["text"], **known), SCHEMA)


def test_the_cases_end_in_every_way(bart: Path) -> None:
    answers = [reference(bart, text, max_new_tokens=8, num_beams=1) for text in TEXTS]
    assert {answer["finish_reason"] for answer in answers} == {"stop", "length"}
    assert {answer["truncated"] for answer in answers} == {True, False}
    assert len({tuple(answer["tokens"]) for answer in answers}) > len(TEXTS) // 2


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 7, "num_beams": 2},
        {"max_new_tokens": 8, "num_beams": 3, "length_penalty": -4.0},
        {"max_new_tokens": 8, "num_beams": 3, "length_penalty": 4.0},
        {"max_new_tokens": 8, "min_length": 7, "num_beams": 1},
    ],
    ids=str,
)
def test_each_parameter(options: dict[str, Any], bart: Path) -> None:
    for text, found in zip(TEXTS, predictions(handler_of(bart, **options), text=TEXTS), strict=True):
        assert found == reference(bart, text, **options)


def test_parameters_come_from_the_job_then_the_entry_then_the_model(tmp_path: Path, t5: Path, bart: Path) -> None:
    def chosen(model: Path, **params: Any) -> tuple[Any, ...]:
        config = handler_of(model, **params)._generation  # type: ignore[attr-defined]
        assert config.do_sample is False
        return config.num_beams, config.max_length, config.min_length

    assert chosen(bart) == (4, MAX_LENGTH, 0)  # 257 tokens, as far as there are positions
    assert chosen(bart, max_new_tokens=9) == (4, 10, 0)
    assert chosen(t5) == (3, 12, 4)
    assert chosen(t5, num_beams=1, max_new_tokens=2) == (1, 3, 3)
    own = {"do_sample": True, "temperature": 0.5, "max_new_tokens": 20, "min_new_tokens": 3, "num_beams": 1}
    assert chosen(make_seq2seq(tmp_path / "own", "bart", own)) == (1, 21, 4)
    both = make_seq2seq(tmp_path / "both", "t5", {"max_new_tokens": 20, "num_beams": 5})
    assert chosen(both) == (3, 12, 4)
    neither = make_seq2seq(tmp_path / "neither", "t5", task_specific_params=None)
    assert chosen(neither) == (4, 257, 0)


def test_a_sampling_model_is_not_sampled(tmp_path: Path) -> None:
    own = {"do_sample": True, "temperature": 5.0, "max_new_tokens": 6, "num_beams": 1}
    model = make_seq2seq(tmp_path, "bart", own)
    for text, found in zip(TEXTS, predictions(handler_of(model), text=TEXTS), strict=True):
        assert found == reference(model, text, max_new_tokens=6, num_beams=1)


def test_the_prefix_is_the_entry_s_or_the_configuration_s(tmp_path: Path, t5: Path) -> None:
    model = make_seq2seq(tmp_path, "bart", prefix="in short: ")
    for folder, prefix in ((t5, "summarize: "), (model, "in short: ")):
        handler = handler_of(folder)
        ((piece,),) = handler.prepare([{"text": "good film"}])
        assert piece.inputs["input_ids"] == handler.loaded.processor(prefix + "good film")["input_ids"]


@pytest.mark.parametrize("beams", [1, 2])
def test_scores_that_are_no_numbers_are_an_error(beams: int, bart: Path) -> None:
    handler = handler_of(bart, max_new_tokens=5, num_beams=beams)
    with torch.no_grad():
        handler.loaded.model.get_output_embeddings().weight.fill_(torch.nan)
    with pytest.raises(RecordError) as error:
        predictions(handler, text=["a good film"])
    assert error.value.code == "not_finite"


def test_a_text_without_a_token_is_an_error(bart: Path) -> None:
    handler = handler_of(bart)
    handler.loaded.processor.backend_tokenizer.post_processor = None  # such as adds no special tokens
    with pytest.raises(RecordError) as error:
        handler.prepare([{"text": ""}])
    assert error.value.code == "no_tokens"


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"max_new_tokens": 5, "max_length": 6}, "params.max_length", "not both"),
        ({"max_new_tokens": 0}, "params.max_new_tokens", "greater than or equal to 1"),
        ({"max_length": 1}, "params.max_length", "greater than or equal to 2"),
        ({"num_beams": True}, "params.num_beams", "valid integer"),
        ({"do_sample": True}, "params.do_sample", ""),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]


def test_a_min_length_that_cannot_be_is_refused(bart: Path) -> None:
    with pytest.raises(Permanent, match=f"params.min_length: 100 is more than the {MAX_LENGTH} tokens") as error:
        handler_of(bart, min_length=100)
    assert error.value.code == "bad_params"

"""translation against a plain one-record loop over `generate`, on T5, mBART and Marian."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case
from schemas.errors import Permanent
from schemas.tasks.translation import TASK, Params
from tests.checkpoints_seq2seq import TASKS, make_seq2seq
from tests.tasks.handlers import handler_on, load, loaded_handler, predictions, problems
from tests.tasks.test_summarization import TEXTS, plain, reference
from workers.handler import Handler
from workers.tasks.translation import pair_entry

SCHEMA = "1:ea6c363156df"
handler_of = partial(loaded_handler, TASK)
PAIRS = "its pairs are de to en, en to de, en to fr"
#: A job's parameters for each architecture.
OPTIONS: dict[str, dict[str, Any]] = {
    "t5": {"src_lang": "en", "tgt_lang": "fr"},
    "mbart": {"src_lang": "de_DE", "tgt_lang": "ro_RO", "max_new_tokens": 8, "num_beams": 2},
    "marian": {"max_new_tokens": 8, "num_beams": 1},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make_seq2seq(tmp_path_factory.mktemp(name), name) for name in OPTIONS}


def expected(model: Path, architecture: str, text: str) -> dict[str, Any]:
    """The reference with what the languages of OPTIONS come to, written out."""
    if architecture == "t5":
        return reference(model, text, **TASKS["translation_en_to_fr"])
    if architecture == "marian":
        return reference(model, text, max_new_tokens=8, num_beams=1)
    tokenizer, _ = plain(model)
    tokenizer.src_lang = "de_DE"
    target = tokenizer.convert_tokens_to_ids("ro_RO")
    return reference(model, text, max_new_tokens=8, num_beams=2, forced_bos_token_id=target)


@pytest.fixture(params=list(OPTIONS))
def case(request: pytest.FixtureRequest, models: dict[str, Path]) -> Case:
    name: str = request.param
    records: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
    return Case(TASK, models[name], records, OPTIONS[name], lambda r: expected(models[name], name, r["text"]), SCHEMA)


def encoded(handler: Handler[Any], text: str) -> list[int]:
    ((piece,),) = handler.prepare([{"text": text}])
    ids: list[int] = piece.inputs["input_ids"]
    return ids


@pytest.mark.parametrize("architecture", list(OPTIONS))
def test_the_cases_differ(architecture: str, models: dict[str, Path]) -> None:
    answers = {tuple(expected(models[architecture], architecture, text)["tokens"]) for text in TEXTS}
    assert len(answers) > len(TEXTS) // 4


@pytest.mark.parametrize(
    ("languages", "entry"),
    [
        ({}, "translation_de_to_en"),
        ({"src_lang": "en", "tgt_lang": "de"}, "translation_en_to_de"),
        ({"src_lang": "en", "tgt_lang": "fr"}, "translation_en_to_fr"),
        ({"src_lang": "de"}, "translation_de_to_en"),
        ({"tgt_lang": "fr"}, "translation_en_to_fr"),
    ],
)
def test_the_languages_pick_t5s_entry(languages: dict[str, str], entry: str, models: dict[str, Path]) -> None:
    handler = handler_of(models["t5"], **languages)
    assert encoded(handler, "good film") == handler.loaded.processor(TASKS[entry]["prefix"] + "good film")["input_ids"]
    found = predictions(handler, text=TEXTS[-3:])
    assert found == [reference(models["t5"], text, **TASKS[entry]) for text in TEXTS[-3:]]


def test_a_t5_without_entries_has_no_prefix(tmp_path: Path) -> None:
    model = make_seq2seq(tmp_path, "t5", task_specific_params=None)
    handler = handler_of(model, max_new_tokens=5, num_beams=1)
    assert encoded(handler, "good film") == handler.loaded.processor("good film")["input_ids"]
    assert predictions(handler, text=TEXTS) == [reference(model, text, max_new_tokens=5, num_beams=1) for text in TEXTS]


@pytest.mark.parametrize("pair", [("en_XX", "de_DE"), ("fr_XX", "ro_RO")])
def test_mbart_reads_one_language_and_is_forced_to_begin_with_the_other(
    pair: tuple[str, str], models: dict[str, Path]
) -> None:
    source, target = pair
    handler = handler_of(models["mbart"], src_lang=source, tgt_lang=target, max_new_tokens=4, num_beams=1)
    tokenizer = handler.loaded.processor
    assert encoded(handler, "good film")[-2:] == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(source)]
    assert encoded(handler, "good " * 300)[-1] == tokenizer.convert_tokens_to_ids(source)
    for found in predictions(handler, text=TEXTS):
        assert found["tokens"][0] == tokenizer.convert_tokens_to_ids(target)
        assert target not in found["text"]


def test_jobs_of_two_languages_share_a_model(models: dict[str, Path]) -> None:
    loaded = load(TASK, models["mbart"])
    handlers = [handler_on(TASK, loaded, src_lang=language, tgt_lang="en_XX") for language in ("de_DE", "fr_XX")]
    ends = [encoded(handler, "good")[-1] for handler in (*handlers, *handlers)]
    assert ends == loaded.processor.convert_tokens_to_ids(["de_DE", "fr_XX"] * 2)


@pytest.mark.parametrize(
    ("architecture", "languages", "says"),
    [
        ("t5", {"src_lang": "en", "tgt_lang": "xx"}, f"params.tgt_lang: the model has no pair en to xx; {PAIRS}"),
        ("t5", {"src_lang": "xx", "tgt_lang": "en"}, f"params.src_lang: the model has no pair xx to en; {PAIRS}"),
        ("t5", {"src_lang": "xx"}, "params.src_lang: the model has no pair xx to (any)"),
        ("t5", {"tgt_lang": "xx"}, "params.tgt_lang: the model has no pair (any) to xx"),
        ("t5", {"src_lang": "en"}, f"params.tgt_lang: the model has several such pairs: name both; {PAIRS}"),
        ("mbart", {}, "params.src_lang: this model needs it; its languages are ar_AR, cs_CZ"),
        ("mbart", {"src_lang": "en_XX"}, "params.tgt_lang: this model needs it"),
        ("mbart", {"src_lang": "en", "tgt_lang": "de_DE"}, "params.src_lang: the model doesn't know 'en'"),
        ("mbart", {"src_lang": "en_XX", "tgt_lang": "good"}, "params.tgt_lang: the model doesn't know 'good'"),
        ("marian", {"src_lang": "en", "tgt_lang": "de"}, "it takes no languages: leave them out"),
    ],
)
def test_languages_that_the_model_lacks_are_refused(
    architecture: str, languages: dict[str, str], says: str, models: dict[str, Path]
) -> None:
    with pytest.raises(Permanent) as error:
        handler_of(models[architecture], **languages)
    assert error.value.code == "bad_params"
    assert says in str(error.value)


def test_one_language_needs_both_where_several_pairs_end_in_it() -> None:
    entries: dict[str, Any] = {"translation_en_to_de": {}, "translation_fr_to_de": {}, "summarization": {}}
    with pytest.raises(Permanent, match=r"params\.src_lang: the model has several such pairs"):
        pair_entry(entries, Params(tgt_lang="de"))


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"max_new_tokens": 5, "max_length": 6}, "params.max_length", "not both"),
        ({"src_lang": ""}, "params.src_lang", "at least 1 character"),
        ({"length_penalty": 1.0}, "params.length_penalty", ""),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]

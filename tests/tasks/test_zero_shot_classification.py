"""zero-shot-classification against the Transformers pipeline, on BERT and BART models of entailment."""

import logging
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.errors import Permanent
from schemas.tasks.zero_shot_classification import TASK
from tests.checkpoints import MAX_LENGTH
from tests.checkpoints_embeddings import make_nli
from tests.tasks.handlers import a_few, any_text, loaded_handler, pieces_of, predictions, problems, reference_pipeline
from tests.texts import ODD, sentences
from workers.handler import Handler

SCHEMA = "1:b30299903cfe"
LABELS = ["good film", "bad battery", "night shift", "the long model of a table row"]


def reference(model: Path, text: str, labels: list[str] = LABELS, **options: Any) -> dict[str, Any]:
    """What the pipeline gives for one text, in the shape of our prediction; remembered."""
    return _reference(model, text, tuple(labels), tuple(options.items()))


@cache
def _reference(model: Path, text: str, labels: tuple[str, ...], chosen: tuple[Any, ...]) -> dict[str, Any]:
    options = dict(chosen)
    template = options.get("hypothesis_template", "This example is {}.")
    run = reference_pipeline(TASK, model)
    if text:
        found = run(text, list(labels), **options)
    else:  # the pipeline turns an empty text away at its door; these are the steps behind that
        steps = [{"candidate_label": label, "sequence": text, "is_last": True} for label in labels]
        for step in steps:
            step.update(run._parse_and_tokenize([[text, template.format(step["candidate_label"])]]))
        found = run.postprocess([run.forward(step) for step in steps], options.get("multi_label", False))
    top = [{"label": a, "score": b} for a, b in zip(found["labels"], found["scores"], strict=True)]
    whole = max(len(run.tokenizer(text, template.format(label), verbose=False)["input_ids"]) for label in labels)
    return top[0] | {"top": top, "truncated": whole > MAX_LENGTH}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Close, but for the order of labels whose scores differ in the last bits, as those near 1 of `multi_label` do."""
    found, expected = ({label["label"]: label["score"] for label in side["top"]} for side in (one, other))
    in_order = [expected[label["label"]] for label in one["top"]]
    return (
        close(found, expected)
        and all(better > worse - 1e-6 for better, worse in pairwise(in_order))
        and (one["label"], one["score"]) == (one["top"][0]["label"], one["top"][0]["score"])
        and one["truncated"] == other["truncated"]
    )


def handler_of(model: Path, labels: list[str] = LABELS, **params: Any) -> Handler[Any]:
    return loaded_handler(TASK, model, labels=labels, **params)


@pytest.fixture(scope="module", params=["bert", "bart"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nli(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def case(model: Path) -> Case:
    records: list[dict[str, Any]] = [{"text": text} for text in [*ODD, *sentences(50)]]
    return Case(TASK, model, records, {"labels": LABELS}, lambda record: reference(model, record["text"]), SCHEMA)


@pytest.mark.parametrize(
    "options",
    [
        {"multi_label": True},
        {"labels": ["film"]},
        {"labels": ["film"], "multi_label": True},
        {"hypothesis_template": "{} it was {{not}}"},
    ],
    ids=str,
)
def test_each_parameter(options: dict[str, Any], model: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": text} for text in [*ODD, *sentences(20)]]
    case = Case(
        TASK, model, records, {"labels": LABELS} | options, lambda r: reference(model, r["text"], **options), ""
    )
    for record, row in zip(records, run_case(case, settings, tmp_path, records), strict=True):
        assert same(row["prediction"], case.reference(record)), (record, row)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "names",
    [{0: "Entailment", 1: "neutral", 2: "contradiction"}, {0: "no", 1: "perhaps", 2: "yes"}],
    ids=["entailment first", "no entailment"],
)
def test_the_configuration_names_entailment(
    names: dict[int, str], multi_label: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_nli(tmp_path, "bert", names)
    handler = handler_of(model, multi_label=multi_label)
    warned = [record.levelno for record in caplog.records if record.message == "no_entailment_label"]
    assert warned == ([logging.WARNING] if names[0] == "no" else [])
    for text in sentences(5):
        assert same(predictions(handler, text=[text])[0], reference(model, text, multi_label=multi_label))


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({}, "params.labels", "is required"),
        ({"labels": []}, "params.labels", "at least 1 item"),
        ({"labels": ["a", "b", "a"]}, "params.labels", "given twice: 'a'"),
        ({"labels": ["a", ""]}, "params.labels.1", "at least 1 character"),
        ({"labels": "a, b"}, "params.labels", "valid list"),
        ({"labels": ["a"], "hypothesis_template": "It is so."}, "params.hypothesis_template", "write {} once"),
        ({"labels": ["a"], "hypothesis_template": "{} and {}"}, "params.hypothesis_template", "write {} once"),
        ({"labels": ["a"], "hypothesis_template": "{{}}"}, "params.hypothesis_template", "write {} once"),
        ({"labels": ["a"], "hypothesis_template": "{label}"}, "params.hypothesis_template", "write {} once"),
        ({"labels": ["a"], "hypothesis_template": "{:9999999}"}, "params.hypothesis_template", "write {} once"),
        ({"labels": ["a"], "hypothesis_template": "{} }"}, "params.hypothesis_template", "'}'"),
        ({"labels": ["a"], "multi_label": "yes"}, "params.multi_label", "valid boolean"),
    ],
)
def test_a_bad_parameter_is_named(params: dict[str, Any], field: str, says: str) -> None:
    assert says in problems(TASK, params)[field]


def test_a_hypothesis_without_room_for_text_is_refused(model: Path) -> None:
    with pytest.raises(Permanent, match=f"params.labels: the hypothesis for 'film film .* may have {MAX_LENGTH}"):
        handler_of(model, labels=["good", "film " * MAX_LENGTH])


def test_a_text_is_cut_for_the_longest_hypothesis_only(model: Path) -> None:
    """Of texts that grow by a word there is one that only the longer hypothesis leaves no room for."""
    handler = handler_of(model, labels=["a", "a long model"])
    blocks = pieces_of(handler, text=["good " * count for count in range(1, MAX_LENGTH + 1)])
    cuts = [(short.notes, long.notes) for short, long in blocks]
    assert sorted(set(cuts)) == [(False, False), (False, True), (True, True)]
    assert cuts == sorted(cuts)
    assert max(piece.cost for pieces in blocks for piece in pieces) == MAX_LENGTH
    tokens = handler.loaded.processor.decode(blocks[-1][1].inputs["input_ids"])
    assert "a long model" in tokens


def test_end_tokens_in_a_text_leave_its_neighbours_alone(tmp_path: Path) -> None:
    model = make_nli(tmp_path, "bart")
    texts = ["good film", "</s> bad film", "night </s> shift </s>", "dull"]
    for text, found in zip(texts, predictions(handler_of(model), text=texts), strict=True):
        assert same(found, reference(model, text))


@pytest.fixture(scope="module")
def handler(model: Path) -> Handler[Any]:
    return handler_of(model)


@given(st.lists(any_text, min_size=1, max_size=8))
@a_few
def test_any_unicode_at_any_length(model: Path, handler: Handler[Any], texts: list[str]) -> None:
    for text, found in zip(texts, predictions(handler, text=texts), strict=True):
        assert same(found, reference(model, text))

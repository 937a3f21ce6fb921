"""text-classification against the Transformers pipeline, on BERT, DistilBERT and RoBERTa, single texts and pairs."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.settings import Settings
from nightshift.testing import *  # noqa: F403
from nightshift.testing import Case, close, run_case
from schemas.tasks.text_classification import TASK
from tests.checkpoints import MAX_LENGTH, make_classifier
from tests.tasks.handlers import a_few, any_text, loaded_handler, predictions, reference_pipeline
from tests.texts import ODD, sentences
from workers.handler import Handler


def reference(model: Path, record: dict[str, Any], top_k: int = 1, **options: Any) -> dict[str, Any]:
    """What the pipeline gives for one record, in the shape of our prediction; remembered."""
    return _reference(model, tuple(record.items()), top_k, tuple(options.items()))


@cache
def _reference(model: Path, items: tuple[Any, ...], top_k: int, chosen: tuple[Any, ...]) -> dict[str, Any]:
    record, options = dict(items), dict(chosen)
    run = reference_pipeline(TASK, model)
    limits = {"truncation": True, "max_length": MAX_LENGTH}
    (top,) = [run(record, top_k=top_k, **limits, **options)]
    whole = len(run.tokenizer(record["text"], record.get("text_pair"), verbose=False)["input_ids"])
    return {"label": top[0]["label"], "score": top[0]["score"], "top": top, "truncated": whole > MAX_LENGTH}


SCHEMA = "1:56cfbcda25a6"
ARCHITECTURES = ["bert", "distilbert", "roberta"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(params=["single", "pair"])
def case(request: pytest.FixtureRequest, model: Path) -> Case:
    texts = [*ODD, *sentences(100)]
    records: list[dict[str, Any]] = [{"text": text} for text in texts]
    if request.param == "pair":
        records = [r | {"text_pair": pair} for r, pair in zip(records, reversed(texts), strict=True)]
    return Case(TASK, model, records, {"top_k": 3}, lambda record: reference(model, record, top_k=3), SCHEMA)


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_each_function(function: str, model: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": text} for text in sentences(40)]
    params: dict[str, Any] = {"function_to_apply": function, "top_k": 2}
    case = Case(
        TASK, model, records, params, lambda r: reference(model, r, top_k=2, function_to_apply=function), SCHEMA
    )
    for record, row in zip(records, run_case(case, settings, tmp_path, records), strict=True):
        assert close(row["prediction"], case.reference(record))


@pytest.mark.parametrize(
    "config",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression", "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}},
        {"id2label": {0: "SCORE"}, "label2id": {"SCORE": 0}},
    ],
    ids=["multi-label", "regression", "one label"],
)
def test_the_configuration_decides_the_function(config: dict[str, Any], settings: Settings, tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model", "bert", **config)
    records = [{"text": text} for text in sentences(30)]
    case = Case(TASK, model, records, {}, lambda r: reference(model, r), SCHEMA)
    for record, row in zip(records, run_case(case, settings, tmp_path, records), strict=True):
        assert close(row["prediction"], case.reference(record))


def test_max_length_truncates_and_says_so(model: Path, settings: Settings, tmp_path: Path) -> None:
    records = [{"text": "good film"}, {"text": "good film " * 30}]
    case = Case(TASK, model, records, {"max_length": 10}, lambda r: r, SCHEMA)
    short, long = run_case(case, settings, tmp_path, records)
    assert (short["prediction"]["truncated"], long["prediction"]["truncated"]) == (False, True)
    expected = reference_pipeline(TASK, model)(records[1], top_k=1, truncation=True, max_length=10)
    assert close(long["prediction"]["top"], expected)


@pytest.fixture(scope="module")
def handler(model: Path) -> Handler[Any]:
    return loaded_handler(TASK, model, top_k=3)


@given(st.lists(any_text, min_size=1, max_size=8))
@a_few
def test_any_unicode_at_any_length(model: Path, handler: Handler[Any], texts: list[str]) -> None:
    for text, found in zip(texts, predictions(handler, text=texts), strict=True):
        assert close(found, reference(model, {"text": text}, top_k=3))
